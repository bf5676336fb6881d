"""The topology: what is joined to what, live, and every node of it opens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from snapshots.picture import read_text
from support.app import make_app, press, running, see, until
from support.told_networks import tell
from support.world import Lab, uid_of
from textual.pilot import Pilot

from kc_tui.screens.networks import NetworkPage, NetworksScreen
from kc_tui.screens.topology import TopologyScreen
from kc_tui.screens.vm import VMScreen
from kc_tui.screens.vms import VMsScreen

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path)
    lab.add("Network", "inner", {"uplink": "isolated", "ipv4": {"subnet": "10.9.0.0/24", "mode": "static"}})
    lab.add_vm("fw", networks=("default", "inner"))
    lab.add_vm("web-1", address="192.168.150.17")
    lab.add_vm("db-1", networks=("inner",))
    lab.add_foreign("theirs")
    return lab


def topology(pilot: Pilot[None]) -> TopologyScreen:
    screen = pilot.app.screen
    assert isinstance(screen, TopologyScreen)
    return screen


async def drawn(pilot: Pilot[None], count: int = 1) -> TopologyScreen:
    screen = topology(pilot)
    await until(pilot, lambda: len(screen.view.spots) >= count, "the drawing has its nodes")
    return screen


async def go_to(pilot: Pilot[None], node: str) -> None:
    view = (await drawn(pilot)).view
    for _ in view.spots:
        if view.spot is not None and view.spot.node == node:
            return
        await press(pilot, "j")
    assert view.spot is not None
    assert view.spot.node == node


async def test_t_draws_networks_with_their_vms_and_esc_leads_out(lab: Lab):
    async with running(make_app(lab)) as pilot:
        await press(pilot, "3")
        await see(pilot, "t topology")
        await press(pilot, "t")
        await drawn(pilot, 5)
        for pattern in (r"internet ── NAT", r"default", r"192\.168\.150\.0/24 +dhcp", r"web-1 +\.17", r"db-1"):
            await see(pilot, pattern)
        assert "theirs" not in read_text(pilot.app)
        assert "2 networks, 3 VMs" in read_text(pilot.app)
        await press(pilot, "t")
        topology(pilot)
        await press(pilot, "escape")
        assert isinstance(pilot.app.screen, NetworksScreen)


async def test_the_palette_has_it_on_every_screen(lab: Lab):
    async with running(make_app(lab)) as pilot:
        await press(pilot, "colon", "=topology", "enter")
        await drawn(pilot)
        await press(pilot, "escape")
        assert isinstance(pilot.app.screen, VMsScreen)


async def test_enter_opens_a_vm_and_a_network_and_esc_comes_back_to_the_same_node(lab: Lab):
    async with running(make_app(lab)) as pilot:
        await press(pilot, "t")
        await go_to(pilot, "vm:web-1")
        await press(pilot, "enter")
        assert isinstance(pilot.app.screen, VMScreen)
        await press(pilot, "escape")
        spot = topology(pilot).view.spot
        assert spot is not None
        assert spot.node == "vm:web-1"
        await go_to_top(pilot)
        await go_to(pilot, "network:inner")
        await press(pilot, "enter")
        assert isinstance(pilot.app.screen, NetworkPage)
        await see(pilot, r"10\.9\.0\.0/24")
        await press(pilot, "escape")
        topology(pilot)


async def go_to_top(pilot: Pilot[None]) -> None:
    await press(pilot, "g")


async def test_a_click_goes_to_a_node_and_a_second_one_opens_it(lab: Lab):
    async with running(make_app(lab)) as pilot:
        await press(pilot, "t")
        view = (await drawn(pilot, 5)).view
        place = next(spot for spot in view.spots if spot.node == "vm:db-1")
        offset = (place.start + 1, place.line - round(view.scroll_y))
        await pilot.click(view, offset=offset)
        await until(pilot, lambda: view.spot == place, "the cursor is there")
        await pilot.click(view, offset=offset)
        await until(pilot, lambda: isinstance(pilot.app.screen, VMScreen), "it is open")


async def test_it_follows_what_changes_and_keeps_its_cursor(lab: Lab):
    async with running(make_app(lab)) as pilot:
        await press(pilot, "t")
        await go_to(pilot, "vm:web-1")
        lab.add_vm("aaa")
        lab.add("Network", "brand-new", {"uplink": "isolated"})
        await see(pilot, "aaa")
        await see(pilot, "brand-new")
        spot = topology(pilot).view.spot
        assert spot is not None
        assert spot.node == "vm:web-1"


async def test_a_network_that_is_not_well_says_so_in_the_drawing(lab: Lab):
    async with running(make_app(lab, factory=lambda: tell(lab, {"inner": {"state": "down"}}))) as pilot:
        await press(pilot, "t")
        await see(pilot, r"inner ✕ down|inner ▲ down|inner .*down")


async def test_an_empty_kc_says_how_to_make_a_first_network(tmp_path: Path):
    async with running(make_app(Lab(tmp_path, furnished=False))) as pilot:
        await press(pilot, "t")
        await see(pilot, "There is no network yet")
        await press(pilot, "j", "k", "g", "G", "enter", "ctrl+d", "ctrl+u", "slash", "space", "y", "o", "m")
        topology(pilot)
        await press(pilot, "escape")
        assert isinstance(pilot.app.screen, VMsScreen)


async def test_keys_of_lists_that_a_drawing_has_no_use_for_say_so(lab: Lab):
    async with running(make_app(lab)) as pilot:
        await press(pilot, "t")
        await drawn(pilot)
        await press(pilot, "slash")
        await see(pilot, "this is a drawing")


async def test_the_drawing_can_be_copied_as_text(lab: Lab):
    async with running(make_app(lab)) as pilot:
        await press(pilot, "t")
        await drawn(pilot)
        await press(pilot, "y")
        assert "internet ── NAT" in pilot.app.clipboard
        assert "web-1  .17" in pilot.app.clipboard


async def test_it_scrolls_with_its_cursor(lab: Lab):
    for number in range(9):
        lab.add("Network", f"n{number}", {"uplink": "isolated"})
    async with running(make_app(lab)) as pilot:
        await press(pilot, "t")
        view = (await drawn(pilot, 12)).view
        await press(pilot, "G")
        await see(pilot, "n8")
        assert view.spot == view.spots[-1]
        assert view.scroll_y > 0
        await press(pilot, "ctrl+u", "g")
        assert (view.spot, round(view.scroll_y)) == (view.spots[0], 0)


async def test_ten_thousand_vms_are_counted_where_they_would_fill_the_drawing(lab: Lab):
    store = lab.service.store
    template = store.get("VM", uid_of("web-1"))
    assert template is not None
    body = {key: value for key, value in template.items() if key not in ("version", "status")}
    for start in range(0, 10_000, 1000):
        with store.transaction() as transaction:
            for number in range(start, start + 1000):
                transaction.put(body | {"name": f"vm-{number}", "uid": uid_of(f"vm-{number}")}, expect=0)
    app = make_app(lab)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.session.inventory.count("VM") > 10_000, "all are known", 60)
        await pilot.press("t")
        await see(pilot, r"\+9,\d{3} more")
        screen = topology(pilot)
        assert len(screen.view.lines) < 60
        assert re.search(r"2 networks, 10,003 VMs", read_text(app))
