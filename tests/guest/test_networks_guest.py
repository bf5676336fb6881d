"""What booted guests see of KC's networks, and what passes between them: each address mode, alone and dual."""

from __future__ import annotations

import contextlib
import urllib.request
import uuid
from collections.abc import Iterator
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest
from network_lab import FAMILIES, UNDERLAY_MTU, Lab, Seen, canonical, eui64, first_host, plain
from support.guest_vm import Elsewhere, Guest, ssh, wait_until
from support.kc import run_kc

pytestmark = [pytest.mark.libvirt, pytest.mark.guest, pytest.mark.timeout(600)]

SEGMENTS = ("lease", "fixed", "routed", "stateless", "four", "slaac", "six", "leased", "wide")
ISOLATED = ("stateless", "four", "slaac", "six", "leased", "wide")
VXLAN_MTU = UNDERLAY_MTU - 50


@pytest.fixture(scope="module")
def lab(ready_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab(ready_home, tmp_path_factory.mktemp("lab"))
    try:
        made.build()
        yield made
    finally:
        made.remove()


# --- what the documents say of a NIC


def wanted_addresses(lab: Lab, guest: str, segment: str, family: str, seen: Seen) -> list[str]:
    """Return which addresses a NIC is to have; one that a server chose is to be from what it may give."""
    nic, side = lab.nic(guest, segment), lab.networks[segment]["spec"][family]
    mode, given = lab.mode(guest, segment, family), nic[family]["address"]
    if mode == "none":
        return []
    if mode in ("slaac", "stateless"):
        return [eui64(side["subnet"], nic["mac"])]
    length = "/128" if mode == "dhcpv6" else f"/{ip_network(side['subnet']).prefixlen}"
    if given:
        return [f"{plain(given)}{length}"]
    # Chosen by the server, hence not known beforehand: the upper three quarters, or from ::100.
    chosen = [text for text in seen.of(family) if text.endswith(length) and is_dynamic(plain(text), side["subnet"])]
    return chosen or [f"one of {side['subnet']} by {mode}"]


def is_dynamic(address: str, subnet: str) -> bool:
    whole = ip_network(subnet)
    first = whole[256 if whole.version == 6 else whole.num_addresses // 4]
    return ip_interface(address).ip in whole and int(ip_interface(address).ip) >= int(first)


def wanted_gateways(lab: Lab, guest: str, segment: str, family: str) -> list[str]:
    """Return by whom a NIC's default route is to lead."""
    network = lab.networks[segment]
    subnet, mode = network["spec"][family]["subnet"], lab.mode(guest, segment, family)
    if network["spec"]["uplink"] == "isolated" or mode == "none":
        return []
    if family == "ipv6" and mode != "static":
        # A router advertises itself by its link-local address.
        return [link_local(network["status"]["bridge"])]
    return [first_host(subnet)]


def link_local(device: str) -> str:
    shown = Elsewhere.ip("-6", "-o", "address", "show", "dev", device, "scope", "link")
    return plain(shown.split("inet6 ")[1].split()[0])


def sources(lab: Lab, guest: str, segment: str) -> dict[str, list[str]]:
    """Return who tells a NIC of names and times, with the families that each tells of."""
    found: dict[str, list[str]] = {}
    if "static" in (lab.mode(guest, segment, family) for family in FAMILIES):
        found["0static"] = list(FAMILIES)
    if lab.mode(guest, segment, "ipv4") == "dhcp":
        found["2dhcp4"] = ["ipv4"]
    if lab.mode(guest, segment, "ipv6") in ("slaac", "stateless", "dhcpv6"):
        found["1advertised"] = ["ipv6"]
    if lab.mode(guest, segment, "ipv6") in ("stateless", "dhcpv6"):
        found["3dhcp6"] = ["ipv6"]
    return found


def differences(lab: Lab, guest: str, segment: str) -> list[str]:
    """Return in what a guest's NIC is not as the documents say, one line each."""
    seen, spec = lab.look(guest, segment, again=True), lab.networks[segment]["spec"]
    pairs: list[tuple[str, Any, Any]] = [("mtu", spec["mtu"] or 1500, seen.mtu)]
    for family in FAMILIES:
        wanted = wanted_addresses(lab, guest, segment, family, seen)
        pairs.append((f"{family} addresses", wanted, seen.of(family)))
        routes = seen.routes_of(family)
        pairs.append((f"{family} gateways", wanted_gateways(lab, guest, segment, family), routes.pop("default", [])))
        told = {route["to"]: [route["via"]] for route in spec[family]["routes"]} if wanted else {}
        pairs.append((f"{family} routes", told, routes))
    for source, families in sources(lab, guest, segment).items():
        servers = [server for server in spec["dns"] if ("ipv6" if ":" in server else "ipv4") in families]
        lines = seen.told.get(f"dns.{source}", [])
        if servers:
            heard = [canonical(line.split()[1]) for line in lines if line.startswith("nameserver ")]
            pairs.append((f"DNS by {source}", servers, heard))
        if spec["searchDomain"]:
            searched = [line.split()[1].rstrip(".") for line in lines if line.startswith("search ")]
            pairs.append((f"search by {source}", [spec["searchDomain"]], searched))
        if source in ("2dhcp4", "3dhcp6"):
            clocks = [canonical(line) for line in seen.told.get(f"ntp.{source}", [])]
            pairs.append(
                (f"NTP by {source}", [server for family in families for server in spec[family]["ntp"]], clocks)
            )
    return [f"{what}: wanted {wanted}, seen {found}" for what, wanted, found in pairs if wanted != found]


@pytest.mark.parametrize("segment", SEGMENTS)
@pytest.mark.parametrize("guest", ["a", "b"])
def test_a_nic_is_in_the_guest_what_the_documents_say(lab: Lab, guest: str, segment: str) -> None:
    with contextlib.suppress(AssertionError):
        # Address and names come by different ways, none of which waits for the others.
        wait_until(lambda: not differences(lab, guest, segment), "all is told", 20)
    assert differences(lab, guest, segment) == []


def test_every_mode_is_there_alone_and_beside_the_other_family(lab: Lab) -> None:
    seen = {
        (lab.mode(guest, segment, "ipv4"), lab.mode(guest, segment, "ipv6"))
        for segment in SEGMENTS
        for guest in ("a", "b")
    }
    assert {("dhcp", "none"), ("static", "none")} <= seen
    assert {("none", mode) for mode in ("static", "slaac", "stateless", "dhcpv6")} <= seen
    assert {("dhcp", "slaac"), ("dhcp", "stateless"), ("dhcp", "dhcpv6"), ("static", "static")} <= seen


# --- what passes


@pytest.mark.parametrize("segment", SEGMENTS)
def test_two_guests_reach_one_another(lab: Lab, segment: str) -> None:
    there, here = lab.look("a", segment), lab.look("b", segment)
    addresses = [plain(text) for family in FAMILIES for text in there.of(family)]
    assert addresses
    assert [address for address in addresses if not lab.guests["b"].pings(here.device, address)] == []


@pytest.fixture(scope="module")
def outside(lab: Lab) -> tuple[str, str]:
    """What is beyond this host, which knows no way back but to what is routed: its addresses."""
    four, six = lab.host4(11, 2), lab.host6(11, 2)
    lab.elsewhere = Elsewhere(f"{four}/24", f"{six}/64")
    lab.elsewhere.address_here(f"{lab.host4(11, 1)}/24")
    lab.elsewhere.address_here(f"{lab.host6(11, 1)}/64")
    routed = lab.networks["routed"]["spec"]
    lab.elsewhere.route(routed["ipv4"]["subnet"], lab.host4(11, 1))
    lab.elsewhere.route(routed["ipv6"]["subnet"], lab.host6(11, 1))
    return four, six


@pytest.mark.parametrize("segment", ["lease", "fixed", "routed"])
def test_the_outside_is_reached_from_where_it_should_be(lab: Lab, outside: tuple[str, str], segment: str) -> None:
    for guest in ("a", "b"):
        device = lab.look(guest, segment).device
        assert [address for address in outside if not lab.guests[guest].pings(device, address)] == []


@pytest.mark.parametrize("segment", ISOLATED)
def test_the_outside_is_not_reached_from_an_isolated_segment_even_by_a_route(
    lab: Lab, outside: tuple[str, str], segment: str
) -> None:
    guest, seen = lab.guests["a"], lab.look("a", segment)
    for address, family in zip(outside, FAMILIES, strict=True):
        subnet = lab.networks[segment]["spec"][family]["subnet"]
        if not subnet:
            continue
        host = first_host(subnet)
        assert guest.pings(seen.device, host)
        route = f"{address} via {host} dev {seen.device} metric 1"
        guest.output(f"ip route add {route}")
        try:
            assert guest.run(f"ping -c 2 -W 1 -I {seen.device} {address}")[0] != 0
        finally:
            guest.output(f"ip route delete {route}")


def test_the_mtu_of_a_vxlan_arrives_by_dhcp_by_advertisement_and_by_the_seed(lab: Lab) -> None:
    guest, seen = lab.guests["a"], lab.look("a", "wide")
    assert lab.networks["wide"]["spec"]["mtu"] == lab.networks["wide"]["status"]["mtu"] == VXLAN_MTU
    guest.write("/tmp/tell", '#!/bin/sh\necho "$1 $mtu"\n')
    lease = guest.output(f"chmod +x /tmp/tell; udhcpc -f -n -q -O mtu -s /tmp/tell -i {seen.device} 2>/dev/null")
    assert f"bound {VXLAN_MTU}" in lease.splitlines()
    assert f"MTU                      :         {VXLAN_MTU} bytes" in guest.output(f"rdisc6 -1 {seen.device}")
    assert guest.output(f"cat /proc/sys/net/ipv6/conf/{seen.device}/mtu") == f"{VXLAN_MTU}\n"
    assert guest.output("cat /run/kc/seed/network-config").count(f'"mtu": {VXLAN_MTU}') == 1
    # The largest that fits, and no more: 28 bytes are the headers of IPv4 and ICMP.
    other = plain(lab.look("b", "wide").of("ipv4")[0])
    assert guest.run(f"ping -c 1 -W 5 -s {VXLAN_MTU - 28} -I {seen.device} {other}")[0] == 0


def test_a_vm_on_an_ipv6_only_network_is_ready_and_answers_the_host(lab: Lab) -> None:
    name = f"{lab.stem}-only"
    created = run_kc(
        lab.home, "vm", "create", name, "--image", "starter", "--type", "tiny", "--network", lab.name("slaac"),
        "--ssh-key", f"{lab.key}.pub", "--wait", "ready",
    )  # fmt: skip
    assert created.status == 0, created.stderr
    try:
        status = Guest(lab.home, name).show()["status"]
        addresses = [each["address"] for each in status["addresses"] if each["family"] == "ipv6"]
        assert [each["family"] for each in status["addresses"]] == ["ipv6"] * len(addresses) != []
        with urllib.request.urlopen(f"http://[{addresses[0]}]/", timeout=20) as page:
            assert page.read().decode() == f"hello from {name}\n"
        assert ssh(lab.key, addresses[0], "hostname").stdout == f"{name}\n"
    finally:
        run_kc(lab.home, "vm", "delete", name, "--yes", "--now")


def test_a_nic_that_is_added_while_the_guest_runs_takes_the_address_that_kc_chose(lab: Lab) -> None:
    guest = lab.guests["a"]
    guest.kc("vm", "nic", "add", guest.name, "--network", f"{lab.name('four')},ipv4=static")
    added = guest.show()["spec"]["nics"][-1]
    try:
        assert ip_interface(added["ipv4"]["address"]).ip in ip_network(lab.networks["four"]["spec"]["ipv4"]["subnet"])
        wait_until(lambda: added["ipv4"]["address"] in guest.output("ip -4 -o address"), "its address")
        assert lab.guests["b"].pings(lab.look("b", "four").device, plain(added["ipv4"]["address"]))
    finally:
        guest.kc("vm", "nic", "remove", guest.name, added["id"])
    wait_until(lambda: added["mac"] not in guest.output("ip link"), "the NIC is gone")


# --- who would deceive


def drops(guest: Guest, nic: str) -> dict[str, int]:
    """Return what the guard of a NIC has dropped, by the reason."""
    guards = {each["nic"]: each for each in guest.show()["status"]["guards"]}
    found: dict[str, int] = guards[nic]["drops"]
    return found


@pytest.fixture
def liar(lab: Lab) -> Iterator[tuple[Guest, str, str]]:
    """The guest that will deceive the other on the routed segment: the guest, its NIC's id, and its device."""
    guest, nic = lab.guests["b"], lab.nic("b", "routed")
    device = lab.look("b", "routed").device
    yield guest, nic["id"], device
    guest.run(
        f"killall radvd udhcpd; sysctl -w net.ipv6.conf.all.forwarding=0; ip link set {device} address {nic['mac']}"
    )


def unheard(lab: Lab, liar: tuple[Guest, str, str], command: str, reason: str) -> None:
    """Assert that a ping from a changed sender is not answered, and that the guard counts it."""
    guest, nic, _ = liar
    before = drops(guest, nic).get(reason, 0)
    assert guest.run(command)[0] != 0
    assert drops(guest, nic).get(reason, 0) > before


def test_a_guest_with_another_mac_is_not_heard(lab: Lab, liar: tuple[Guest, str, str]) -> None:
    guest, nic, device = liar
    victim = plain(lab.look("a", "routed").of("ipv4")[0])
    assert guest.pings(device, victim)
    guest.output(f"ip link set {device} address 02:00:00:00:66:66")
    unheard(lab, liar, f"ping -c 3 -W 1 -I {device} {victim}", "mac")
    # Nothing but the guard is in its way.
    guest.kc("vm", "nic", "set", guest.name, nic, "antispoof=off")
    try:
        assert guest.pings(device, victim)
    finally:
        guest.kc("vm", "nic", "set", guest.name, nic, "antispoof=network")
    unheard(lab, liar, f"ping -c 3 -W 1 -I {device} {victim}", "mac")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_guest_with_anothers_address_is_not_heard(lab: Lab, liar: tuple[Guest, str, str], family: str) -> None:
    guest, _, device = liar
    victim = plain(lab.look("a", "routed").of(family)[0])
    number = SEGMENTS.index("routed")
    false = lab.host4(number, 33) if family == "ipv4" else lab.host6(number, 0x33)
    guest.output(f"ip address add {false} dev {device} {'' if family == 'ipv4' else 'nodad'}")
    try:
        unheard(lab, liar, f"ping -c 3 -W 1 -I {false} {victim}", family)
    finally:
        guest.output(f"ip address delete {false} dev {device}")
    assert guest.pings(device, victim)


def test_a_guest_that_announces_itself_as_a_router_is_not_heard(lab: Lab, liar: tuple[Guest, str, str]) -> None:
    guest, nic, device = liar
    before = drops(guest, nic).get("router", 0)
    settings = "AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; prefix fd66::/64 { };"
    guest.write("/etc/radvd.conf", f"interface {device} {{ {settings} }};\n")
    guest.output("sysctl -q -w net.ipv6.conf.all.forwarding=1; radvd")
    wait_until(lambda: drops(guest, nic).get("router", 0) > before + 1, "its advertisements are dropped")
    seen = lab.look("a", "routed", again=True)
    assert not [address for address in seen.of("ipv6") if address.startswith("fd66")]
    assert seen.routes_of("ipv6")["default"] == wanted_gateways(lab, "a", "routed", "ipv6")


def test_a_guest_that_serves_dhcp_is_not_heard(lab: Lab, liar: tuple[Guest, str, str]) -> None:
    guest, nic, device = liar
    number = SEGMENTS.index("routed")
    before = drops(guest, nic).get("dhcp-server", 0)
    guest.write(
        "/tmp/udhcpd.conf",
        f"start {lab.host4(number, 5)}\nend {lab.host4(number, 9)}\ninterface {device}\nlease_file /tmp/leases\n",
    )
    guest.output("touch /tmp/leases; udhcpd -S /tmp/udhcpd.conf")
    victim, there = lab.guests["a"], lab.look("a", "routed").device
    victim.write("/tmp/who", '#!/bin/sh\necho "$1 $serverid"\n')
    asked = f"chmod +x /tmp/who; udhcpc -f -n -q -C -x 0x3d:{uuid.uuid4().hex[:12]} -s /tmp/who -i {there} 2>/dev/null"
    host = first_host(lab.networks["routed"]["spec"]["ipv4"]["subnet"])
    for _ in range(3):
        assert f"bound {host}" in victim.output(asked).splitlines()
    assert drops(guest, nic).get("dhcp-server", 0) > before
