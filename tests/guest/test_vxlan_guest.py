"""Two hosts, each with a libvirtd and an underlay of its own, joined by VXLAN: a guest on either side tells."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.guest_vm import Guest, wait_until
from support.kc import run_kc
from support.private import PrivateHost

pytestmark = [pytest.mark.libvirt, pytest.mark.guest, pytest.mark.timeout(600)]

VNI = 7007
LOCAL = ("10.199.0.1", "10.199.0.2")
ADDRESS = ("10.198.0.11", "10.198.0.12")
ADDRESS6 = ("fd98::11", "fd98::12")
GROUP = "239.19.8.1"
MTU = 1450


class FarGuest(Guest):
    """A guest on a host of its own."""

    def __init__(self, home: Path, name: str, host: PrivateHost) -> None:
        super().__init__(home, name)
        self.host = host

    def kc(self, *arguments: str) -> str:
        done = run_kc(self.home, *arguments, KC_LIBVIRT_URI=self.host.uri)
        assert done.status == 0, done.stderr
        return done.stdout

    def _ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        request = json.dumps({"execute": command, "arguments": arguments})
        answer = self.host.virsh("qemu-agent-command", self.name, request, "--timeout", "30")
        found: dict[str, Any] = json.loads(answer)["return"]
        return found

    def network(self) -> Any:
        """Return the network's document, with what the kernel says of it."""
        return json.loads(self.kc("network", "show", "far", "-o", "json"))

    def set_vxlan(self, number: int, **ends: Any) -> None:
        """Change where the network's VXLAN leads."""
        vxlan = {"vni": VNI, "local": LOCAL[number], **ends}
        self.kc("network", "set", "far", f"spec.vxlan={json.dumps(vxlan)}", "--yes")


class Pair:
    """Two hosts and a guest on either, `left` and `right`."""

    def __init__(self, folder: Path) -> None:
        self.hosts: list[PrivateHost] = []
        try:
            self._build(folder)
        except BaseException:
            self.close()
            raise

    def _build(self, folder: Path) -> None:
        guests = []
        for number in (0, 1):
            (folder / f"host{number}").mkdir()
            host = PrivateHost(folder / f"host{number}")
            self.hosts.append(host)
            guests.append(FarGuest(folder / f"home{number}", f"far{number}", host))
        self.left, self.right = guests
        lay_underlay(*self.hosts)
        for number, guest in enumerate(guests):
            guest.kc("init")
            guest.kc(
                "network", "create", "far", "--uplink", "isolated", "--gateway", "none",
                "--vxlan", f"vni={VNI},local={LOCAL[number]},peer={LOCAL[1 - number]}",
            )  # fmt: skip
            guest.kc(
                "vm", "create", guest.name, "--image", "starter", "--type", "tiny", "--wait", "running",
                "--network", f"far,ipv4={ADDRESS[number]}/24,ipv6={ADDRESS6[number]}/64",
            )  # fmt: skip
        for guest in guests:
            wait_until(lambda: answers(guest), f"the agent of {guest.name} answers", 180)  # noqa: B023 - asked at once
            wait_until(lambda: ADDRESS[guests.index(guest)] in guest.run("ip addr")[1], "it has its address")  # noqa: B023

    def close(self) -> None:
        for host in self.hosts:
            host.close()


def answers(guest: FarGuest) -> bool:
    try:
        return guest.run("true")[0] == 0
    except subprocess.CalledProcessError:
        return False


def lay_underlay(first: PrivateHost, second: PrivateHost) -> None:
    """Join two hosts by a line of their own."""
    ends = [f"u{uuid.uuid4().hex[:8]}" for _ in range(2)]
    subprocess.run(["ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1]], check=True)
    for host, end, address in zip((first, second), ends, LOCAL, strict=True):
        subprocess.run(["ip", "link", "set", end, "netns", str(host.pid), "name", "under"], check=True)
        host.run("ip", "address", "add", f"{address}/24", "dev", "under")
        host.run("ip", "link", "set", "under", "up")
        # Where a multicast group is joined and sent to.
        host.run("ip", "route", "add", "239.0.0.0/8", "dev", "under")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    pair = Pair(tmp_path_factory.mktemp("far"))
    yield pair
    pair.close()


def reaches(guest: FarGuest, address: str, size: int = 56) -> bool:
    """Return whether an address answers a ping within five seconds."""
    return guest.run(f"for i in 1 2 3 4 5; do ping -c 1 -W 1 -s {size} {address} && exit 0; done; exit 1")[0] == 0


def fragments(guest: FarGuest) -> int:
    """Return how many fragments a guest has sent and taken together, in both families."""
    text = guest.output("grep '^Ip:' /proc/net/snmp; grep -E 'ReasmReqds|FragCreates' /proc/net/snmp6")
    names, values = (line.split() for line in text.splitlines()[:2])
    figures = dict(zip(names, values, strict=True))
    return (
        int(figures["ReasmReqds"])
        + int(figures["FragCreates"])
        + sum(int(line.split()[1]) for line in text.splitlines()[2:])
    )


def test_full_size_packets_cross_in_one_piece(pair: Pair) -> None:
    for number, guest in enumerate((pair.left, pair.right)):
        assert guest.network()["spec"]["mtu"] == MTU
        device = guest.devices()["nic0"]
        assert guest.output(f"cat /sys/class/net/{device}/mtu").strip() == str(MTU)
        before = fragments(guest)
        # The headers of IP and ICMP: Linux sets DF on what fits its own MTU.
        assert reaches(guest, ADDRESS[1 - number], MTU - 28)
        assert reaches(guest, ADDRESS6[1 - number], MTU - 48)
        assert fragments(guest) == before


def test_a_peer_that_is_removed_hears_nothing_and_nobody_is_cut_off_else(pair: Pair) -> None:
    assert reaches(pair.left, ADDRESS[1])
    pair.left.set_vxlan(0, peers=[])
    assert not reaches(pair.left, ADDRESS[1])
    assert not reaches(pair.right, ADDRESS6[0])
    assert pair.left.show()["status"]["power"] == "running"
    pair.left.set_vxlan(0, peers=[LOCAL[1]])
    assert reaches(pair.left, ADDRESS[1])
    assert reaches(pair.right, ADDRESS6[0])


def test_a_device_that_is_lost_is_seen_and_put_back(pair: Pair) -> None:
    network = pair.left.network()
    assert network["status"]["state"] == "up", network["status"]
    device = f"kx{network['uid'].replace('-', '')[:10]}"
    pair.hosts[0].run("ip", "link", "delete", device)
    lost = pair.left.network()["status"]
    assert (lost["state"], [problem["code"] for problem in lost["problems"]]) == ("degraded", ["vxlan-missing"])
    assert not reaches(pair.left, ADDRESS[1])
    pair.left.kc("network", "reconcile", "far")
    assert pair.left.network()["status"]["state"] == "up"
    assert reaches(pair.left, ADDRESS[1])


def test_a_libvirtd_that_starts_anew_changes_nothing(pair: Pair) -> None:
    pair.hosts[1].tell("signal libvirtd TERM")
    wait_until(lambda: not libvirtd_answers(pair.hosts[1]), "libvirtd has ended")
    assert reaches(pair.left, ADDRESS[1])
    pair.hosts[1].tell("start libvirtd")
    pair.hosts[1].wait_for_daemon()
    assert pair.right.network()["status"]["state"] == "up"
    assert reaches(pair.right, ADDRESS[0])


def libvirtd_answers(host: PrivateHost) -> bool:
    done = subprocess.run(["virsh", "-c", host.uri, "version"], capture_output=True, timeout=60, check=False)
    return done.returncode == 0


def flooded_to(host: PrivateHost) -> str:
    """Return where a host sends what it knows no better way for, as the kernel has it."""
    command = ["nsenter", "--target", str(host.pid), "--net", "bridge", "fdb", "show"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return "\n".join(line for line in done.stdout.splitlines() if line.startswith("00:00:00:00:00:00 "))


def test_a_multicast_group_takes_the_place_of_peers(pair: Pair) -> None:
    pair.left.set_vxlan(0, group=GROUP)
    # Whoever still knows the other by name is answered: a guest that asks after its neighbour is learned from.
    assert f"dst {LOCAL[1]} " not in flooded_to(pair.hosts[0])
    assert f"dst {GROUP} " in flooded_to(pair.hosts[0])
    pair.right.set_vxlan(1, group=GROUP)
    assert reaches(pair.left, ADDRESS[1], MTU - 28)
    assert reaches(pair.right, ADDRESS6[0], MTU - 48)


def test_the_device_goes_with_the_network(pair: Pair) -> None:
    pair.left.kc("vm", "delete", pair.left.name, "--now", "--yes")
    pair.left.kc("network", "delete", "far", "--now", "--yes")
    left = subprocess.run(
        ["nsenter", "--target", str(pair.hosts[0].pid), "--net", "ip", "-o", "link", "show", "type", "vxlan"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert left.stdout == ""
