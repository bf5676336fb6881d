"""The starter image takes all that a network tells: by DHCPv4, router advertisements, and either kind of DHCPv6."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from machine import Machine, wait_for, write_seed

pytestmark = [pytest.mark.guest, pytest.mark.timeout(300)]

BRIDGE, TAP = "kcstbr1", "kcsttap1"
MAC = "52:54:00:4b:43:02"
BY_DHCP4 = (
    "--dhcp-range=10.213.78.50,10.213.78.60,255.255.255.0,1h",
    "--dhcp-option=option:classless-static-route,10.99.0.0/16,10.213.78.9,0.0.0.0/0,10.213.78.254",
    "--dhcp-option=option:dns-server,10.213.78.53",
    "--dhcp-option=option:domain-search,four.test,more.test",
    "--dhcp-option=option:ntp-server,10.213.78.123",
    "--dhcp-option=option:mtu,1400",
)
BY_ADVERTISEMENT = (
    "--enable-ra", f"--ra-param={BRIDGE},mtu:1380,0,1800", "--dhcp-option=option6:domain-search,six.test",
)  # fmt: skip


class Segment:
    """A bridge with a server on it whose settings change as the test goes on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server: subprocess.Popen[bytes] | None = None
        for words in (
            f"link add {BRIDGE} type bridge",
            f"address add 10.213.78.1/24 dev {BRIDGE}",
            f"address add fd4b:78::1/64 dev {BRIDGE} nodad",
            f"link set {BRIDGE} up",
        ):
            subprocess.run(["ip", *words.split()], check=True, timeout=10)

    def serve(self, *settings: str) -> None:
        self.stop()
        self.server = subprocess.Popen(
            [
                *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-hosts", "--no-resolv", "--port=0"),
                *(f"--interface={BRIDGE}", "--bind-interfaces", "--except-interface=lo", "--domain=kc.test"),
                *(f"--dhcp-leasefile={self.folder}/leases", f"--pid-file={self.folder}/pid", *settings),
            ]
        )

    def stop(self) -> None:
        if self.server:
            self.server.terminate()
            self.server.wait(10)

    def end(self) -> None:
        self.stop()
        subprocess.run(["ip", "link", "delete", BRIDGE], check=True, timeout=10)


@pytest.fixture
def segment(tmp_path: Path) -> Iterator[Segment]:
    made = Segment(tmp_path)
    yield made
    made.end()


def plug_in(machine: Machine) -> None:
    machine.qmp.call("netdev_add", type="tap", id="net1", ifname=TAP, script="no", downscript="no")
    subprocess.run(["ip", "link", "set", TAP, "master", BRIDGE, "up"], check=True, timeout=10)
    machine.qmp.call("device_add", driver="virtio-net-pci", netdev="net1", id="nic1", bus="spare", mac=MAC)


def wait_for_output(machine: Machine, command: str, *parts: str, seconds: float = 30) -> None:
    wait_for(
        lambda: all(part in machine.output(command) for part in parts),
        seconds,
        lambda: f"{parts} in {machine.output(command)!r}; {machine.output('ip addr; ip route; ip -6 route; ps')}",
    )


def test_it_takes_what_a_network_tells_and_hears_of_changes(tmp_path: Path, image: Path, segment: Segment) -> None:
    seed = write_seed(tmp_path / "seed.iso", meta_data='{"instance-id": "i-4", "local-hostname": "told"}')
    segment.serve(
        *BY_DHCP4, *BY_ADVERTISEMENT, "--dhcp-range=fd4b:78::,ra-stateless,64,1h",
        "--dhcp-option=option6:dns-server,[fd4b:78::53]", "--dhcp-option=option6:ntp-server,[fd4b:78::123]",
    )  # fmt: skip
    with Machine(tmp_path / "vm", image, seed=seed) as machine:
        machine.wait_for_serial("KC starter: told is up")
        plug_in(machine)
        machine.wait_for_serial("KC starter: eth1 10.213.78.", 30)
        machine.wait_for_serial("KC starter: eth1 fd4b:78::5054:ff:fe4b:4302/64", 30)
        wait_for_output(machine, "ip -4 route show dev eth1", "10.99.0.0/16 via 10.213.78.9 ")
        wait_for_output(machine, "ip -4 route show dev eth1", "default via 10.213.78.254 ")
        wait_for_output(machine, "ip -6 route show default dev eth1", "via fe80::", "metric 1103")
        wait_for_output(machine, "cat /etc/resolv.conf", "nameserver 10.213.78.53", "nameserver fd4b:78::53")
        wait_for_output(machine, "cat /etc/resolv.conf", "four.test more.test", "six.test")
        assert machine.output("cat /sys/class/net/eth1/mtu /proc/sys/net/ipv6/conf/eth1/mtu") == "1400\n1380\n"
        # DHCPv6 told this, though it gave no address.
        wait_for_output(machine, "cat /run/kc/ntp", "fd4b")
        servers = machine.output("cat /run/kc/ntp").split()
        assert [str(ip_address(server)) for server in servers] == ["10.213.78.123", "fd4b:78::123"]
        assert "/128" not in machine.output("ip -6 address show dev eth1")

        segment.serve(
            *BY_ADVERTISEMENT, "--dhcp-range=fd4b:78::100,fd4b:78::1ff,64,1h", "--dhcp-host=told,[fd4b:78::77]",
            "--dhcp-option=option6:dns-server,[fd4b:78::54]",
        )  # fmt: skip
        machine.wait_for_serial("KC starter: eth1 fd4b:78::77/128", 60)
        wait_for_output(machine, "cat /etc/resolv.conf", "nameserver fd4b:78::54")
        assert "fd4b:78::53" not in machine.output("cat /etc/resolv.conf")

        machine.qmp.call("device_del", id="nic1")
        wait_for(lambda: "eth1" not in machine.output("ip link; ps"), 30, lambda: machine.output("ip link; ps"))
        assert "fd4b:78::" not in machine.output("cat /etc/resolv.conf /run/kc/ntp")
