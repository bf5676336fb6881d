"""Scenes of networks: how they are, a new one, what is joined to what."""

from __future__ import annotations

from support.app import press, see, settle, until
from support.told_networks import Told
from support.world import Lab
from textual.pilot import Pilot

from kc_tui.screens.topology import TopologyScreen

TOLD: Told = {
    "default": {
        "state": "up", "bridge": "virbr1", "mtu": 1500,
        "gateway": {"ipv4": "192.168.150.1", "ipv6": "", "state": "answers"},
    },
    "office": {"state": "up", "bridge": "br0", "mtu": 1500},
    "backend": {
        "state": "degraded", "bridge": "virbr2", "mtu": 1450,
        "problems": [
            {"code": "gateway-silent", "message": "the gateway fd00:1::fe (VM fw-1) does not answer",
             "hint": "kc vm start fw-1"},
        ],
        "gateway": {"ipv4": "", "ipv6": "fd00:1::fe", "state": "silent"},
        "leases": [],
        "addresses": [
            {"address": "fd00:1::fe", "owner": "VM fw-1/nic1", "source": "static"},
            {"address": "fd00:1::27", "owner": "VM build-7/nic0", "source": "agent"},
            {"address": "fd00:1::1:9", "owner": "VM db-2/nic0", "source": "arp"},
        ],
        "free": {"ipv6": 1 << 64},
    },
}  # fmt: skip


def furnish_segments(lab: Lab) -> None:
    """Let a VM route for a network that VXLAN joins to other hosts."""
    backend = lab.service.store.find("Network", "backend")
    assert backend is not None
    lab.add_vm("fw-1", "stopped", type="tiny", networks=("default", "backend"))
    vxlan = {"vni": 42, "local": "10.0.0.4", "peers": ["10.0.0.5", "10.0.0.6"], "group": "", "port": 4789, "dev": ""}
    lab.change(backend, 4_000, "ada", spec__gateway="vm:fw-1", spec__vxlan=vxlan, spec__mtu=1450)


async def show_networks(pilot: Pilot[None]) -> None:
    await press(pilot, "3")
    await see(pilot, "degraded")
    await until(pilot, lambda: pilot.app.size.width < 100 or _shows(pilot, "Addresses in use"), "the pane tells all")
    await settle(pilot)


def _shows(pilot: Pilot[None], text: str) -> bool:
    from snapshots.picture import read_text

    return text in read_text(pilot.app)


async def show_network(pilot: Pilot[None]) -> None:
    await press(pilot, "3", "enter")
    await see(pilot, "VM build-7/nic0|silent")
    await settle(pilot)


async def show_new_network(pilot: Pilot[None]) -> None:
    await press(pilot, "3", "n", "=lab", "enter", "=10.20.0.0/24", "tab", "tab", "tab", "=fd00:20::/64", "tab", "tab")
    await press(pilot, *["backspace"] * 4, "=vm:fw-1", "up", "up", "up", "=10.21.0.50-10.21.0.99")
    await see(pilot, "is not in")
    await settle(pilot)


async def show_new_network_review(pilot: Pilot[None]) -> None:
    await press(pilot, "3", "n", "=lab", "enter", "=10.20.0.0/24", "tab", "tab", "tab", "=fd00:20::/64", "enter")
    await press(pilot, "=10.20.0.3", "tab", "tab", "tab", "=10.0.0.4", "tab", "=77", "tab", "=10.0.0.5", "enter")
    await see(pilot, r"--vxlan vni=77")
    await settle(pilot)


async def show_topology(pilot: Pilot[None]) -> None:
    await press(pilot, "t")
    screen = pilot.app.screen
    assert isinstance(screen, TopologyScreen)
    await until(pilot, lambda: _shows(pilot, "degraded"), "the drawing is there")
    await press(pilot, "j", "j")


async def show_nic_options(pilot: Pilot[None]) -> None:
    await press(pilot, "n", "enter", "a", "right", "right", "right", "down", "down", "down", "right", "down", "right")
    await press(pilot, "right", "right", "down", "down", "down", "down", "=100")
    await settle(pilot)
