"""What changes on a network while domains run on it, and what is mended that broke under them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hosts import PrivateHost, wait_until
from station import Station
from support.hypervisor_rig import open_rig
from support.network_sides import serve

from backend.errors import ConflictError, UnreachableError
from backend.hypervisor.link import Link
from backend.hypervisor.networks import Networks
from backend.hypervisor.plan import DomainPlan, NicPlan
from backend.hypervisor.protocol import Hypervisor
from backend.network.plan import DhcpHost, NetworkPlan, NetworkState, Vxlan
from backend.network.shell import Shell, open_shell

pytestmark = pytest.mark.libvirt

FOUR = serve("10.77.61.0/24", ranges=(("10.77.61.70", "10.77.61.79"),))
SIX = serve("fd00:77:61::/64", "dhcpv6")
MAC = "52:54:00:77:61:01"
TAP = "kt0000007761"


@pytest.fixture
def shell(private_host: PrivateHost) -> Shell:
    return open_shell(private_host.uri)


@pytest.fixture
def segment(hypervisor: Hypervisor) -> Iterator[NetworkPlan]:
    """A network of both families."""
    token = uuid.uuid4().hex
    plan = NetworkPlan(f"net-{token[:6]}", str(uuid.uuid4()), "nat", ipv4=FOUR, ipv6=SIX)
    hypervisor.ensure_network(plan)
    yield plan
    hypervisor.ensure_network_gone(plan)


@pytest.fixture
def domain(hypervisor: Hypervisor, segment: NetworkPlan, make: Callable[..., DomainPlan]) -> DomainPlan:
    """A domain that runs on the network."""
    plan = make(nics=(NicPlan("nic0", "52:54:00:77:61:99", segment.name, tap=TAP),))
    hypervisor.ensure_defined(plan)
    hypervisor.ensure_running(plan.uid)
    assert TAP in look(hypervisor, segment).ports
    return plan


@pytest.fixture
def station(shell: Shell, hypervisor: Hypervisor, segment: NetworkPlan, tmp_path: Path) -> Iterator[Station]:
    """A client on the network."""
    made = Station(shell, tmp_path, MAC)
    made.plug(look(hypervisor, segment).bridge)
    yield made
    made.close()


def look(hypervisor: Hypervisor, plan: NetworkPlan) -> NetworkState:
    return hypervisor.network_states([plan])[0]


def server_of(shell: Shell, plan: NetworkPlan) -> str:
    return shell.run(("cat", f"/run/libvirt/network/{plan.name}.pid")).output.strip()


def index_of(shell: Shell, device: str) -> str:
    """Return the kernel's number of a device, which no other gets that takes its name."""
    return shell.run(("ip", "-o", "link", "show", "dev", device)).output.partition(":")[0]


def mac_of(shell: Shell, device: str) -> str:
    return shell.run(("ip", "-o", "link", "show", "dev", device)).output.partition("link/ether ")[2].split()[0]


def test_ranges_and_what_is_kept_change_with_nobody_cut(
    hypervisor: Hypervisor, shell: Shell, segment: NetworkPlan, domain: DomainPlan, station: Station
) -> None:
    bridge = look(hypervisor, segment).bridge
    before = index_of(shell, bridge)
    assert station.ask_dhcp()["ip"].startswith("10.77.61.7")
    moved = segment._replace(
        ipv4=FOUR._replace(ranges=(("10.77.61.80", "10.77.61.80"),)),
        ipv6=SIX._replace(ranges=(("fd00:77:61::8", "fd00:77:61::8"),)),
    )
    assert hypervisor.would_cut(moved) == ()
    hypervisor.replace_network(moved)
    assert station.ask_dhcp()["ip"] == "10.77.61.80"
    told = station.ask_dhcpv6("solicit")
    assert told is not None
    assert told["address"] == "fd00:77:61::8"
    keeping = moved._replace(
        ipv4=moved.ipv4._replace(hosts=(DhcpHost(MAC, "10.77.61.5", "web"),)),
        ipv6=moved.ipv6._replace(hosts=(DhcpHost("", "fd00:77:61::5", "web"),)),
    )
    assert hypervisor.would_cut(keeping) == ()
    hypervisor.ensure_network(keeping)
    assert station.ask_dhcp()["ip"] == "10.77.61.5"
    named = station.ask_dhcpv6("solicit", "00:03:00:01:52:54:00:77:61:02", "web")
    assert named is not None
    assert named["address"] == "fd00:77:61::5"
    # What it will be when it starts next is the same.
    assert hypervisor.would_cut(keeping) == ()
    assert (index_of(shell, bridge), hypervisor.observe(domain.uid) is not None) == (before, True)
    assert TAP in look(hypervisor, segment).ports


def test_a_server_that_was_started_for_few_has_leases_for_all_that_it_keeps(
    hypervisor: Hypervisor, segment: NetworkPlan, station: Station
) -> None:
    small = segment._replace(ipv4=FOUR._replace(ranges=(("10.77.61.70", "10.77.61.70"),)), ipv6=serve(SIX.subnet))
    hypervisor.replace_network(small)
    station.plug(look(hypervisor, segment).bridge)
    macs = [f"52:54:00:77:61:{number:02x}" for number in range(1, 4)]
    for number, _ in enumerate(macs, start=1):
        kept = tuple(DhcpHost(mac, f"10.77.61.{n}") for n, mac in enumerate(macs[:number], start=5))
        hypervisor.ensure_network(small._replace(ipv4=small.ipv4._replace(hosts=kept)))
    for number, mac in enumerate(macs, start=5):
        station.run("ip", "link", "set", "eth0", "address", mac)
        assert station.ask_dhcp()["ip"] == f"10.77.61.{number}"


def test_another_gateway_makes_the_network_anew_and_all_that_was_on_it_is_on_it_again(
    hypervisor: Hypervisor, shell: Shell, segment: NetworkPlan, domain: DomainPlan, station: Station
) -> None:
    bridge = look(hypervisor, segment).bridge
    before, mac = index_of(shell, bridge), mac_of(shell, bridge)
    address = station.ask_dhcp()["ip"]
    station.hear_router()
    assert station.has_default_route()
    changed = segment._replace(ipv4=FOUR._replace(gateway="10.77.61.9"), ipv6=SIX._replace(gateway=""))
    assert hypervisor.would_cut(changed) == (domain.name,)
    hypervisor.replace_network(changed)
    state = look(hypervisor, changed)
    assert (state.bridge, state.up, state.dnsmasq) == (bridge, True, True)
    assert set(state.ports) >= {TAP, station.cable}
    assert index_of(shell, bridge) != before
    # Guests know the host by its MAC, and hear within half a minute that it is no router any more.
    assert mac_of(shell, bridge) == mac
    wait_until(lambda: not station.has_default_route(), "the host is no router of IPv6", 30)
    # What the server knew of its clients is not forgotten.
    assert [lease.address for lease in hypervisor.leases([segment.name]) if lease.mac == MAC] == [address]
    told = station.ask_dhcp()
    assert (told["ip"], told["router"]) == (address, "10.77.61.9")
    assert hypervisor.would_cut(changed) == ()


def test_the_isolation_of_a_port_outlives_its_bridge(libvirt_uri: str, tmp_path: Path) -> None:
    # libvirt isolates a port through /sys, which is the machine's own on a private host.
    tap = f"kt{uuid.uuid4().hex[:10]}"
    with open_rig("libvirt", tmp_path) as rig:
        network = rig.network()
        rig.hypervisor.ensure_network(network)
        rig.running(nics=(NicPlan("nic0", "52:54:00:77:61:98", network.name, tap=tap, isolated=True),))
        for wanted in (network, network._replace(dns=("9.9.9.9",))):
            rig.hypervisor.replace_network(wanted)
            shown = open_shell(libvirt_uri).run(("bridge", "-d", "link", "show", "dev", tap)).output
            assert "isolated on" in shown


def test_where_nobody_can_put_them_back_running_domains_keep_the_network_as_it_is(
    hypervisor: Hypervisor, private_host: PrivateHost, segment: NetworkPlan, domain: DomainPlan
) -> None:
    def refuse() -> Shell:
        raise UnreachableError("it", "its kernel cannot be asked")

    link = Link(private_host.uri)
    blind = Networks(link, refuse)
    changed = segment._replace(dns=("9.9.9.9",))
    with pytest.raises(ConflictError, match=domain.name):
        blind.replace(changed)
    assert hypervisor.would_cut(segment) == ()
    # What libvirt can do alone is done, and so is all where nobody runs.
    ranged = segment._replace(ipv4=FOUR._replace(ranges=(("10.77.61.90", "10.77.61.99"),)))
    assert blind.replace(ranged).active
    assert blind.ensure(ranged).active
    hypervisor.ensure_stopped(domain.uid, grace_seconds=0, force=True)
    assert blind.replace(changed).active
    link.close()


@pytest.mark.parametrize("left", ["defined", "stopped", "absent", "started"])
@pytest.mark.parametrize("call", ["ensure", "replace"])
def test_a_change_that_was_killed_is_brought_to_its_end(
    hypervisor: Hypervisor, private_host: PrivateHost, segment: NetworkPlan, domain: DomainPlan, left: str, call: str
) -> None:
    changed = segment._replace(ipv4=FOUR._replace(gateway="10.77.61.9"))
    bridge = look(hypervisor, segment).bridge
    xml = private_host.virsh("net-dumpxml", "--inactive", segment.name)
    if left != "absent":
        hypervisor.replace_network(changed)
        xml = private_host.virsh("net-dumpxml", "--inactive", segment.name)
    if left == "defined":
        # The new definition is there, and the old network still runs: it goes on when it is asked to change.
        hypervisor.replace_network(segment)
        file = Path(private_host.uri.partition("socket=")[2]).with_name("changed.xml")
        file.write_text(xml)
        private_host.virsh("net-define", str(file))
        private_host.virsh("net-autostart", "--disable", segment.name)
    else:
        private_host.virsh("net-autostart", "--disable", segment.name)
        private_host.virsh("net-destroy", segment.name)
        if left == "absent":
            private_host.virsh("net-undefine", segment.name)
        if left == "started":
            private_host.virsh("net-start", segment.name)
            assert TAP not in look(hypervisor, segment).ports
    made = (hypervisor.ensure_network if call == "ensure" else hypervisor.replace_network)(changed)
    state = look(hypervisor, changed)
    assert (made.active, state.bridge, state.up, TAP in state.ports) == (True, bridge, True, True)
    assert "yes" in private_host.virsh("net-info", segment.name).split("Autostart:")[1]
    hypervisor.replace_network(changed)
    assert "10.77.61.9" in private_host.virsh("net-dumpxml", segment.name)
    assert TAP in look(hypervisor, changed).ports
    assert hypervisor.observe(domain.uid) is not None


@pytest.mark.parametrize("call", ["ensure", "replace"])
def test_a_server_that_died_is_started_under_those_who_run(
    hypervisor: Hypervisor, shell: Shell, segment: NetworkPlan, domain: DomainPlan, call: str
) -> None:
    before = index_of(shell, look(hypervisor, segment).bridge)
    shell.run(("kill", "-KILL", server_of(shell, segment)))
    wait_until(lambda: look(hypervisor, segment).dnsmasq is False, "the server is seen to be gone")
    (hypervisor.ensure_network if call == "ensure" else hypervisor.replace_network)(segment)
    state = look(hypervisor, segment)
    assert (state.dnsmasq, TAP in state.ports, index_of(shell, state.bridge)) == (True, True, before)
    assert hypervisor.would_cut(segment) == ()
    assert hypervisor.observe(domain.uid) is not None


@pytest.mark.parametrize("call", ["ensure", "replace"])
def test_a_bridge_that_was_deleted_is_made_again_with_its_ports(
    hypervisor: Hypervisor, shell: Shell, segment: NetworkPlan, domain: DomainPlan, call: str
) -> None:
    bridge = look(hypervisor, segment).bridge
    shell.run(("ip", "link", "delete", bridge))
    assert look(hypervisor, segment).up is False
    (hypervisor.ensure_network if call == "ensure" else hypervisor.replace_network)(segment)
    state = look(hypervisor, segment)
    assert (state.bridge, state.up, state.dnsmasq, state.ports) == (bridge, True, True, (TAP,))
    assert hypervisor.observe(domain.uid) is not None


def test_a_change_that_does_not_start_leaves_all_as_it_was(
    hypervisor: Hypervisor, private_host: PrivateHost, segment: NetworkPlan, domain: DomainPlan
) -> None:
    private_host.run("ip", "link", "add", "uplink2", "type", "bridge")
    private_host.run("ip", "addr", "add", "10.77.62.2/24", "dev", "uplink2")
    private_host.run("ip", "link", "set", "uplink2", "up")
    with pytest.raises(ConflictError, match="uplink2"):
        hypervisor.replace_network(segment._replace(ipv4=serve("10.77.62.0/24")))
    state = look(hypervisor, segment)
    assert (state.up, state.dnsmasq, TAP in state.ports) == (True, True, True)
    assert hypervisor.would_cut(segment) == ()
    assert hypervisor.observe(domain.uid) is not None


def test_a_vxlan_comes_changes_and_goes_with_its_network(
    hypervisor: Hypervisor, private_host: PrivateHost, shell: Shell, segment: NetworkPlan, domain: DomainPlan
) -> None:
    private_host.run("ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
    device = f"kx{segment.uid.replace('-', '')[:10]}"
    vxlan = Vxlan(device, 4261, "192.0.2.1", ("192.0.2.2",))
    joined = segment._replace(vxlan=vxlan)
    assert hypervisor.would_cut(joined) == ()
    hypervisor.replace_network(joined)
    assert look(hypervisor, joined).vxlan == "up"
    more = segment._replace(vxlan=vxlan._replace(peers=("192.0.2.2", "192.0.2.3")))
    assert look(hypervisor, more).vxlan == "different"
    hypervisor.ensure_network(more)
    assert look(hypervisor, more).vxlan == "up"
    hypervisor.replace_network(more._replace(dns=("9.9.9.9",)))
    state = look(hypervisor, more)
    assert (state.vxlan, set(state.ports)) == ("up", {TAP, device})
    shell.run(("ip", "link", "delete", device))
    hypervisor.ensure_network(more)
    assert look(hypervisor, more).vxlan == "up"
    hypervisor.replace_network(segment)
    assert shell.run(("ip", "link", "show", device)).code != 0
    hypervisor.replace_network(joined)
    hypervisor.ensure_stopped(domain.uid, grace_seconds=0, force=True)
    hypervisor.ensure_undefined(domain.uid, domain.owner)
    hypervisor.ensure_network_gone(joined)
    assert shell.run(("ip", "link", "show", device)).code != 0
    private_host.run("ip", "addr", "del", "192.0.2.1/32", "dev", "lo")
