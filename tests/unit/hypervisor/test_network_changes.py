"""What lies between a libvirt network and a changed plan."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.hypervisor.network_changes import compare_network, keep_bridge
from backend.hypervisor.network_xml import build_network
from backend.hypervisor.plan import NetworkPlan

PLAN = NetworkPlan(
    "net", "88abaf9e-e05c-4fc2-8e5c-0b9239a12f22", "nat", ipv4_subnet="10.1.0.0/24", ipv4_mode="dhcp",
    ipv6_subnet="fd00::/64", ipv6_mode="slaac",
)  # fmt: skip
# As libvirt writes what it was given.
WRITTEN = """
<network connections='1'><name>net</name><uuid>88abaf9e-e05c-4fc2-8e5c-0b9239a12f22</uuid>
  <forward mode='nat'><nat ipv6='yes'><port start='1024' end='65535'/></nat></forward>
  <bridge name='virbr7' stp='off' delay='0'/><mac address='52:54:00:11:22:33'/>
  <ip address='10.1.0.1' netmask='255.255.255.0'><dhcp><range start='10.1.0.2' end='10.1.0.254'>
    <lease expiry='1' unit='hours'/></range></dhcp></ip>
  <ip family='ipv6' address='fd00::1' prefix='64'/></network>
"""


def test_what_libvirt_wrote_is_what_was_meant() -> None:
    assert compare_network(WRITTEN, PLAN) == []
    assert keep_bridge(WRITTEN, PLAN).bridge == "virbr7"
    assert keep_bridge(WRITTEN, PLAN._replace(bridge="mine")).bridge == "mine"
    assert keep_bridge(WRITTEN, PLAN._replace(uplink="bridge:br0")).bridge == ""


def test_ranges_that_come_and_go_are_named_with_their_place() -> None:
    changes = compare_network(WRITTEN, PLAN._replace(ipv4_mode="static", ipv6_mode="dhcpv6"))
    assert changes is not None
    assert [(change.verb, change.position) for change in changes] == [("delete", 0), ("add", 1)]
    assert 'start="10.1.0.2"' in changes[0].xml
    assert 'end="fd00::ffff"' in changes[1].xml


@pytest.mark.parametrize(
    "change",
    [
        {"uplink": "isolated"}, {"uplink": "bridge:br0"}, {"bridge": "mine"}, {"ipv4_subnet": "10.2.0.0/24"},
        {"ipv4_subnet": "10.1.0.0/25"}, {"ipv4_subnet": ""}, {"ipv6_subnet": "fd01::/64"}, {"mtu": 1400},
        {"dns": ("9.9.9.9",)}, {"ipv6_subnet": "2001:db8::/64"},
    ],
)  # fmt: skip
def test_anything_else_is_the_whole_of_it(change: dict[str, object]) -> None:
    assert compare_network(WRITTEN, PLAN._replace(**change)) is None  # type: ignore[arg-type]


modes4, modes6 = st.sampled_from(["static", "dhcp"]), st.sampled_from(["static", "slaac", "dhcpv6"])


@settings(max_examples=40)
@given(modes4, modes6, modes4, modes6, st.integers(8, 29), st.integers(64, 126))
def test_only_ranges_that_differ_change(
    four: str, six: str, then_four: str, then_six: str, length: int, length6: int
) -> None:
    plan = PLAN._replace(
        ipv4_mode=four, ipv6_mode=six, ipv4_subnet=f"10.0.0.0/{length}", ipv6_subnet=f"fd00::/{length6}"
    )
    changes = compare_network(build_network(plan), plan._replace(ipv4_mode=then_four, ipv6_mode=then_six))
    assert changes is not None
    differs = ((four == "dhcp") != (then_four == "dhcp"), (six == "dhcpv6") != (then_six == "dhcpv6"))
    assert [change.position for change in changes] == [position for position in (0, 1) if differs[position]]
