"""VXLAN between hosts, proved by what gets from guest to guest."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.ssh_daemon import free_port, ssh_daemon
from vxlan_hosts import ALIAS, DEVICE, VNI, VxlanHost

from backend.errors import ConflictError, FailedError, RefusedError
from backend.network import links
from backend.network.plan import Vxlan
from backend.network.shell import open_shell

pytestmark = pytest.mark.libvirt

GROUPS = {4: "239.42.0.1", 6: "ff05::4242"}
OVERHEAD = {4: 50, 6: 70}
MADE = (DEVICE, "jumbo", "kt0", "kt1", "br1")
"""What the tests add to a host, besides VXLAN devices."""


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[VxlanHost, VxlanHost]]:
    """Two hosts with an underlay between them, and a guest on each."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    here, there = VxlanHost(1), VxlanHost(2)
    try:
        here.join(there)
        there.listen()
        yield here, there
    finally:
        here.close()
        there.close()


@pytest.fixture
def here(hosts: tuple[VxlanHost, VxlanHost]) -> Iterator[VxlanHost]:
    """The first host, without a VXLAN; what a test leaves is removed."""
    yield hosts[0]
    clean(hosts[0])


@pytest.fixture
def there(hosts: tuple[VxlanHost, VxlanHost]) -> Iterator[VxlanHost]:
    yield hosts[1]
    clean(hosts[1])


def clean(host: VxlanHost) -> None:
    links.ensure_no_vxlan(host.shell, DEVICE, ALIAS)
    for name in (*MADE, *(link["ifname"] for link in host.vxlans())):
        host.shell.run(("ip", "link", "delete", name))
    assert host.shell.run(("nft", "list", "tables")).output == ""


def connect(here: VxlanHost, there: VxlanHost) -> tuple[Vxlan, Vxlan]:
    plans = here.plan(there), there.plan(here)
    here.ensure(plans[0])
    there.ensure(plans[1])
    assert here.reaches(there)
    return plans


# --- packets


@pytest.mark.parametrize("version", [4, 6], ids=["over-ipv4", "over-ipv6"])
@pytest.mark.parametrize("way", ["peers", "group"])
def test_full_size_packets_pass_at_the_derived_mtu_and_one_byte_more_does_not(
    here: VxlanHost, there: VxlanHost, version: int, way: str
) -> None:
    for host, other in ((here, there), (there, here)):
        mtu = links.underlay_mtu(host.shell, host.local[version]) - OVERHEAD[version]
        plan = host.plan(other, version=version)
        host.ensure(plan if way == "peers" else plan._replace(peers=(), group=GROUPS[version]), mtu)
    assert mtu == 1500 - OVERHEAD[version]
    for family in (4, 6):
        assert here.reaches(there, mtu, family)
        assert here.is_cut_from(there, mtu + 1, family)
        assert here.reaches(there, mtu, family), "it is the size that stopped it"


@pytest.mark.parametrize("version", [4, 6], ids=["over-ipv4", "over-ipv6"])
def test_the_derived_mtu_is_the_largest_that_the_underlay_takes(
    here: VxlanHost, there: VxlanHost, version: int
) -> None:
    for host, other in ((here, there), (there, here)):
        host.ensure(host.plan(other, version=version), 1500)
    largest = 1500 - OVERHEAD[version]
    assert here.reaches(there, largest)
    assert here.is_cut_from(there, largest + 1), "the device would take it, but not the underlay below"


def test_a_peer_that_is_removed_on_one_side_alone_is_cut_and_comes_back_on_the_same_device(
    here: VxlanHost, there: VxlanHost
) -> None:
    plan, _ = connect(here, there)
    device = here.device()
    assert here.has(plan)
    here.ensure(plan._replace(peers=()))
    assert [each for each in here.entries() if "dst" in each] == [], "what was learned of the peer is forgotten too"
    assert here.is_cut_from(there)
    assert not here.has(plan)
    assert here.has(plan._replace(peers=()))
    here.ensure(plan._replace(peers=("10.99.0.7", here.plan(there).peers[0], "10.99.0.8")))
    assert here.reaches(there)
    here.ensure(plan)
    assert here.reaches(there)
    assert here.has(plan)
    assert here.device()["ifindex"] == device["ifindex"]


def test_a_stranger_who_has_the_vni_is_not_let_in(here: VxlanHost, there: VxlanHost) -> None:
    connect(here, there)
    there.ip("address", "add", "10.99.0.66/24", "dev", "under")
    there.ensure(there.plan(here)._replace(local="10.99.0.66"))
    assert here.is_cut_from(there)
    here.ensure(here.plan(peers=(there.local[4], "10.99.0.66")))
    assert here.reaches(there)
    there.ip("address", "delete", "10.99.0.66/24", "dev", "under")


def test_segments_of_other_numbers_on_the_same_port_are_left_alone(here: VxlanHost, there: VxlanHost) -> None:
    connect(here, there)
    for host in (here, there):
        links.ensure_vxlan(host.shell, host.plan(device="kxaaaaaaaaaa", vni=VNI + 1), bridge="br0", mtu=1450, alias="x")
    assert here.reaches(there), "the other's list of peers, which is empty, is not ours"
    for host in (here, there):
        links.ensure_no_vxlan(host.shell, "kxaaaaaaaaaa", "x")


# --- what is there is brought to the plan


def test_a_device_that_somebody_deleted_is_put_back(here: VxlanHost, there: VxlanHost) -> None:
    plan, _ = connect(here, there)
    here.ip("link", "delete", DEVICE)
    assert not here.has(plan)
    assert here.is_cut_from(there)
    here.ensure(plan)
    assert here.has(plan)
    assert here.reaches(there)


@pytest.mark.parametrize(
    "damage",
    [
        "ip link set dev DEVICE down",
        "ip link set dev DEVICE nomaster",
        "ip link set dev DEVICE type vxlan nolearning local 10.99.0.1",
        "bridge fdb del 00:00:00:00:00:00 dev DEVICE dst 10.99.0.2",
        "bridge fdb append 00:00:00:00:00:00 dev DEVICE dst 10.99.0.9",
        "nft delete table inet kc_DEVICE",
    ],
)  # fmt: skip
def test_what_somebody_changed_is_seen_and_mended(here: VxlanHost, there: VxlanHost, damage: str) -> None:
    plan, _ = connect(here, there)
    assert here.shell.run(damage.replace("DEVICE", DEVICE).split()).code == 0
    assert not here.has(plan)
    here.ensure(plan)
    assert here.has(plan)
    assert here.reaches(there)


def test_an_mtu_that_somebody_changed_is_mended(here: VxlanHost, there: VxlanHost) -> None:
    plan, _ = connect(here, there)
    # Below 1280 the kernel takes IPv6 from a device, and with it what KC sets of it.
    here.ip("link", "set", "dev", DEVICE, "mtu", "1000")
    here.ensure(plan)
    assert here.device()["mtu"] == 1450
    assert here.device()["addr_info"] == []
    assert here.reaches(there, 1450)
    here.ensure(plan, 600)
    here.ensure(plan, 600)
    assert here.device()["mtu"] == 600


@pytest.mark.parametrize(
    "changes",
    [{"vni": 77}, {"port": 8472}, {"local": "fd99::1", "peers": ("fd99::2",)}, {"peers": (), "group": "239.1.1.1"},
     {"underlay": "under"}],
    ids=["vni", "port", "local", "group", "underlay"],
)  # fmt: skip
def test_what_cannot_be_changed_makes_the_device_anew_and_traffic_follows_when_both_sides_have_it(
    here: VxlanHost, there: VxlanHost, changes: dict[str, object]
) -> None:
    plans = connect(here, there)
    before = here.device()["ifindex"]
    changed = plans[0]._replace(**changes)  # type: ignore[arg-type]
    assert not here.has(changed)
    here.ensure(changed)
    assert here.device()["ifindex"] != before
    assert here.has(changed)
    # By a group one hears everybody, and answers.
    if changes.keys().isdisjoint({"underlay", "group"}):
        assert here.is_cut_from(there)
    swap = {"local": "fd99::2", "peers": ("fd99::1",)} if "local" in changes else changes
    there.ensure(plans[1]._replace(**swap))  # type: ignore[arg-type]
    assert here.reaches(there)
    assert [link["ifname"] for link in here.vxlans()] == [DEVICE]


def test_repeating_it_changes_nothing(here: VxlanHost, there: VxlanHost) -> None:
    plan, _ = connect(here, there)
    before, entries = here.device(), here.entries()
    here.ensure(plan)
    after = here.device()
    for device in (before, after):
        del device["linkinfo"]["info_slave_data"]["forward_delay_timer"]
    assert after == before
    assert here.entries() == entries


def test_processes_that_do_it_at_the_same_time_end_well(here: VxlanHost, there: VxlanHost) -> None:
    there.ensure(there.plan(here))
    plan = here.plan(there)
    for _ in range(3):
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda _: here.ensure(plan), range(6)))
        assert here.has(plan)
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(lambda _: links.ensure_no_vxlan(here.shell, DEVICE, ALIAS), range(6)))
        assert not here.has(plan)


def test_a_device_whose_maker_was_killed_before_it_was_named_is_taken_over(here: VxlanHost) -> None:
    here.ip("link", "add", DEVICE, "type", "vxlan", "id", str(VNI), "local", here.local[4], "dstport", "4789")
    here.ensure(here.plan())
    assert here.has(here.plan())
    assert here.device()["addr_info"] == [], "a port needs no address of its own"


# --- what is another's


@pytest.mark.parametrize("kind", [["vxlan", "id", str(VNI), "local", "10.99.0.1", "dstport", "4789"], ["veth"]])
@pytest.mark.parametrize("alias", ["somebody's", ""])
def test_a_device_of_anothers_is_never_touched(here: VxlanHost, kind: list[str], alias: str) -> None:
    here.ip("link", "add", DEVICE, "type", *kind)
    here.ip("link", "set", DEVICE, "up")
    if alias:
        here.ip("link", "set", DEVICE, "alias", alias)
    before = here.device()
    with pytest.raises(ConflictError) as caught:
        here.ensure(here.plan())
    assert DEVICE in caught.value.why
    assert alias in caught.value.why
    links.ensure_no_vxlan(here.shell, DEVICE, ALIAS)
    assert here.device() == before


def test_a_number_that_another_device_has_on_the_port_is_told_with_the_device(here: VxlanHost) -> None:
    here.ip("link", "add", "vx-old", "type", "vxlan", "id", str(VNI), "local", "10.99.0.200", "dstport", "4789")
    with pytest.raises(ConflictError) as caught:
        here.ensure(here.plan())
    assert "vx-old" in caught.value.why
    assert "4789" in caught.value.why
    assert caught.value.details["device"] == "vx-old"
    assert here.device() == {}
    here.ensure(here.plan(port=8472))
    links.ensure_no_vxlan(here.shell, DEVICE, ALIAS)
    here.ensure(here.plan(version=6))
    assert here.has(here.plan(version=6)), "the kernel parts the two families"


def test_a_port_that_another_program_has_is_told(here: VxlanHost) -> None:
    taker = "import socket,sys; s=socket.socket(2,2); s.bind(('',4790)); print(flush=True); sys.stdin.read()"
    command = ["ip", "netns", "exec", here.name, sys.executable, "-c", taker]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(FailedError) as caught:
            here.ensure(here.plan(port=4790))
        process.communicate(b"", timeout=10)
    assert "vxlan.port" in caught.value.hint


def test_a_bridge_that_is_not_there_is_told(here: VxlanHost) -> None:
    with pytest.raises(FailedError) as caught:
        links.ensure_vxlan(here.shell, here.plan(), bridge="br-none", mtu=1450, alias=ALIAS)
    assert "br-none" in str(caught.value)


# --- it goes


def test_it_goes_with_its_network_and_that_may_be_repeated(here: VxlanHost, there: VxlanHost) -> None:
    connect(here, there)
    for _ in range(2):
        links.ensure_no_vxlan(here.shell, DEVICE, ALIAS)
        assert here.device() == {}
        assert here.shell.run(("nft", "list", "tables")).output == ""
    assert here.is_cut_from(there)


# --- the underlay


def test_the_underlay_is_found_by_address_or_name(here: VxlanHost) -> None:
    here.ip("link", "add", "jumbo", "mtu", "9000", "type", "veth")
    here.ip("address", "add", "fd98::1/64", "dev", "jumbo")
    assert links.underlay_mtu(here.shell, "10.99.0.1") == 1500
    assert links.underlay_mtu(here.shell, "FD99:0::1") == 1500
    assert links.underlay_mtu(here.shell, "fd98::1") == 9000
    assert links.underlay_mtu(here.shell, "10.99.0.1", "jumbo") == 9000


def test_an_underlay_that_is_not_there_is_refused_with_what_there_is(here: VxlanHost) -> None:
    for arguments in (("10.99.0.77",), ("fd99::77",), ("10.99.0.1", "eth9")):
        with pytest.raises(RefusedError) as caught:
            links.underlay_mtu(here.shell, *arguments)
        assert arguments[-1] in caught.value.what
        assert "10.99.0.1 (under)" in caught.value.hint
    for plan in (here.plan(local="10.99.0.77"), here.plan(underlay="eth9"), here.plan(group="239.1.1.1", underlay="x")):
        with pytest.raises(RefusedError):
            here.ensure(plan)
        assert here.device() == {}


def test_a_device_stays_while_the_underlay_has_lost_its_address(here: VxlanHost, there: VxlanHost) -> None:
    plan, _ = connect(here, there)
    before = here.device()["ifindex"]
    here.ip("address", "delete", f"{here.local[4]}/24", "dev", "under")
    here.ensure(plan)
    is_cut = here.is_cut_from(there)
    here.ip("address", "add", f"{here.local[4]}/24", "dev", "under")
    assert is_cut
    assert here.has(plan)
    assert here.device()["ifindex"] == before
    assert here.reaches(there)


def test_hosts_that_have_link_local_addresses_alone_are_joined(here: VxlanHost, there: VxlanHost) -> None:
    ends = {
        host: next(each["local"] for each in host.device("under")["addr_info"] if each["scope"] == "link")
        for host in (here, there)
    }
    for host, other in ((here, there), (there, here)):
        host.ensure(host.plan(local=ends[host], peers=(ends[other],)))
    assert here.reaches(there, 1430, 6)
    here.ensure(here.plan(local=ends[here]))
    assert here.is_cut_from(there)
    assert here.has(here.plan(local=ends[here]))


# --- ports of a bridge that was made anew


def test_devices_become_ports_of_a_bridge_and_those_kept_apart_do_not_reach_one_another(here: VxlanHost) -> None:
    for name in ("kt0", "kt1"):
        here.ip("link", "add", name, "type", "veth")
    here.ip("link", "add", "br1", "type", "bridge")
    here.ip("link", "set", "br1", "mtu", "1400", "up")
    links.attach_ports(here.shell, "br1", ["kt0", "kt1", "kt-gone"], isolated=["kt1"])
    for _ in range(2):
        ports = {name: here.device(name) for name in ("kt0", "kt1")}
        assert {name: (port["master"], port["mtu"]) for name, port in ports.items()} == {
            "kt0": ("br1", 1400), "kt1": ("br1", 1400),
        }  # fmt: skip
        flags = {name: port["linkinfo"]["info_slave_data"]["isolated"] for name, port in ports.items()}
        assert flags == {"kt0": False, "kt1": True}
        links.attach_ports(here.shell, "br1", ["kt0", "kt1"])
    with pytest.raises(FailedError) as caught:
        links.attach_ports(here.shell, "br-none", ["kt0"])
    assert "br-none" in caught.value.what
    assert here.device("kt0")["master"] == "br1"


# --- over ssh


def test_it_is_made_over_ssh_as_it_is_here(here: VxlanHost, there: VxlanHost, tmp_path: Path) -> None:
    there.ensure(there.plan(here))
    inside = ("ip", "netns", "exec", here.name)
    wrapper = tmp_path / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec {" ".join(inside)} ssh "$@"\n')
    wrapper.chmod(0o755)
    with ssh_daemon(tmp_path / "daemon", inside, free_port()) as daemon:
        shell = open_shell(
            f"qemu+ssh://root@127.0.0.1:{daemon.port}/system"
            f"?keyfile={daemon.key}&known_hosts={daemon.known_hosts}&command={wrapper}"
        )
        mtu = links.underlay_mtu(shell, here.local[4]) - OVERHEAD[4]
        links.ensure_vxlan(shell, here.plan(there), bridge="br0", mtu=mtu, alias=ALIAS)
        assert here.has(here.plan(there))
        assert here.reaches(there, mtu)
        links.ensure_no_vxlan(shell, DEVICE, ALIAS)
    assert here.device() == {}
