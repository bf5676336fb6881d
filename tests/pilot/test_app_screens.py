"""The other screens: sections, one VM, palette and help."""

from __future__ import annotations

from pathlib import Path

import pytest
from snapshots.picture import read_text
from snapshots.scenes import fill
from support.app import KEYMAP, make_app, press, running, see, settle, until
from support.world import Lab

from kc_tui.application import KCApp
from kc_tui.commands.dispatch import find_unhandled
from kc_tui.screens.activity import ActivityScreen
from kc_tui.screens.console import ConsoleScreen
from kc_tui.screens.difference import DifferenceScreen
from kc_tui.screens.history import HistoryScreen
from kc_tui.screens.networks import NetworksScreen
from kc_tui.screens.others import ImagesScreen, TypesScreen
from kc_tui.screens.trash import TrashScreen
from kc_tui.screens.vm import VMScreen
from kc_tui.screens.vms import VMsScreen
from kc_tui.session import load_remembered


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path)
    fill(lab)
    return lab


def test_every_command_is_done_by_some_screen():
    screens = (
        KCApp, VMsScreen, VMScreen, ImagesScreen, NetworksScreen, TypesScreen, ActivityScreen, ConsoleScreen,
        TrashScreen, HistoryScreen, DifferenceScreen,
    )  # fmt: skip
    assert find_unhandled(KEYMAP, *screens) == []


# --- sections


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("2", "debian-12 +x86_64 +3 GiB +515 MiB +2 +Debian 12, cloud"),
        ("3", r"default +\w+ +nat +192\.168\.150\.0/24 dhcp +host +5"),
        ("4", "tiny +1 +512 MiB +2 GiB +x86_64 +4 +cpus, memory, disk"),
        ("6", "11 m +creating +huge-1 +failed +2.0 s +no space left"),
    ],
)
async def test_each_section_lists_its_objects(lab: Lab, key: str, line: str):
    async with running(make_app(lab)) as pilot:
        await press(pilot, key)
        await see(pilot, line)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (("2", "j", "enter"), "Used by 2 VMs"),
        (("3", "enter"), r"ipv6 +fd00:1::/64, slaac"),
        (("4", "enter"), "3 parameters"),
        (("6", "j", "enter"), "No space left in the pool kc."),
    ],
)
async def test_enter_shows_all_about_an_object_and_escape_goes_back(lab: Lab, keys: tuple[str, ...], said: str):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, *keys)
        await see(pilot, said)
        await press(pilot, "escape")
        assert len(app.screen_stack) == 1


@pytest.mark.parametrize("key", ["1", "2", "3", "4", "6", "0"])
async def test_every_list_can_be_empty_and_says_what_makes_a_first_thing(tmp_path: Path, key: str):
    app = make_app(Lab(tmp_path, furnished=False))
    async with running(app) as pilot:
        await press(pilot, key)
        text = read_text(app)
        assert "There is no" in text or "Nothing has been done yet" in text or "The trash is empty" in text
        assert "n makes" in text or "kc init makes" in text or "told here" in text or "stays here" in text
        # No key of an empty list may do harm.
        await press(
            pilot,
            "enter",
            "space",
            "V",
            "asterisk",
            "o",
            "O",
            "y",
            "d",
            "s",
            "x",
            "u",
            "h",
            "e",
            "R",
            "E",
            "m",
            "G",
            "g",
            "slash",
            "=x",
            "escape",
        )
        assert app.is_running


async def test_a_section_is_left_and_found_as_it_was(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "slash", "=web", "enter", "j", "enter", "2", "1")
        assert isinstance(app.screen, VMScreen)
        await press(pilot, "escape")
        assert "2 of 10" in read_text(app)


async def test_an_operation_can_be_cancelled(tmp_path: Path):
    lab = Lab(tmp_path)
    import threading

    gate = threading.Event()
    healthy = lab.host.fail

    def slow(call: str) -> None:
        healthy(call)
        if call == "ensure_overlay":
            gate.wait(20)

    lab.host.fail = slow
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "n", "enter", "enter", "enter", "=web", "enter", "enter")
        await see(pilot, "step 3 of 6: making the disk")
        await press(pilot, "6", "x", "y")
        gate.set()
        await see(pilot, r"creating +web +cancelled")
        assert lab.host.domains == {}


# --- one VM


async def test_a_vm_has_its_pages(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "slash", "=web-1", "enter", "enter")
        await see(pilot, r"web-1 +● running +10\.0\.0\.17 +small")
        assert "memory    –/2.0 G" in read_text(app)
        await press(pilot, "m")
        await see(pilot, "mail ada@acme.example")
        await press(pilot, "tab", "tab")
        await see(pilot, r"● rebooting +done")
        await press(pilot, "tab")
        assert isinstance(app.screen, VMScreen)
        assert app.screen.page == "overview"


async def test_a_vms_screen_follows_it_to_its_end(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "slash", "=web-2", "enter", "enter", "s", "y")
        await see(pilot, r"web-2 +○ stopped")
        await press(pilot, "d", "y")
        await see(pilot, "This VM is gone.")
        await press(pilot, "s", "d", "c", "escape")
        assert len(app.screen_stack) == 1


async def test_a_foreign_domain_is_shown_and_left_alone(lab: Lab):
    async with running(make_app(lab)) as pilot:
        await press(pilot, "slash", "=win11", "enter", "enter")
        await see(pilot, "shown, never touched")
        await press(pilot, "d")
        await see(pilot, "is not KC's")


# --- palette and help


async def test_the_palette_finds_objects_and_commands(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "colon", "=build", "enter")
        await see(pilot, r"build-7 +● running")
        await press(pilot, "escape", "colon", "=office", "enter")
        await until(pilot, lambda: app.current_mode == "networks", "the section of networks")
        row = app.screen.table.row
        assert row.cells[0].text == "office"
        await press(pilot, "ctrl+p", "=activity", "enter")
        await until(pilot, lambda: app.current_mode == "activity", "the section of activity")


async def test_help_lists_the_keys_here_and_runs_what_is_chosen(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "question_mark", "=new VM", "enter")
        await see(pilot, "◉ image")


async def test_the_theme_is_chosen_seen_and_remembered(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "colon", "=theme", "enter", "=bird", "enter")
        await settle(pilot)
        assert app.theme == "bird"
    assert load_remembered(lab.home / "data").theme == "bird"
