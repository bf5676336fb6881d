"""The other screens: sections, one VM, the console, the palette; and the app as a whole."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from snapshots.picture import read_text
from snapshots.scenes import fill
from support.app import KEYMAP, make_app, press, running, see, settle, until
from support.world import Lab, uid_of
from textual.widget import Widget

from backend.errors import FailedError, UnreachableError
from backend.hypervisor.memory import fail_with
from kc_tui.app import name_host, scrub_environment
from kc_tui.application import KCApp, report_crash
from kc_tui.commands.dispatch import find_unhandled
from kc_tui.screens.activity import ActivityScreen
from kc_tui.screens.console import ConsoleScreen
from kc_tui.screens.others import ImagesScreen, NetworksScreen, TypesScreen
from kc_tui.screens.vm import VMScreen
from kc_tui.screens.vms import VMsScreen
from kc_tui.session import load_remembered
from kc_tui.state.glyphs import ASCII
from kc_tui.state.inventory import WATCHED


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path)
    fill(lab)
    return lab


def test_every_command_is_done_by_some_screen():
    screens = (KCApp, VMsScreen, VMScreen, ImagesScreen, NetworksScreen, TypesScreen, ActivityScreen, ConsoleScreen)
    assert find_unhandled(KEYMAP, *screens) == []


# --- sections


@pytest.mark.parametrize(
    ("key", "line"),
    [
        ("2", "debian-12 +x86_64 +3 GiB +515 MiB +2 +Debian 12, cloud"),
        ("3", r"default +nat +192\.168\.150\.0/24 dhcp +– +5"),
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
        (("3", "enter"), "fd00:1::/64"),
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


@pytest.mark.parametrize("key", ["1", "2", "3", "4", "6"])
async def test_every_list_can_be_empty_and_says_what_makes_a_first_thing(tmp_path: Path, key: str):
    app = make_app(Lab(tmp_path, furnished=False))
    async with running(app) as pilot:
        await press(pilot, key)
        text = read_text(app)
        assert "There is no" in text or "Nothing has been done yet" in text
        assert "n makes" in text or "kc init makes" in text or "told here" in text
        # No key of an empty list may do harm.
        await press(
            pilot, "enter", "space", "V", "asterisk", "o", "O", "y", "d", "s", "x", "G", "g", "slash", "=x", "escape"
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
        await press(pilot, "tab")
        await see(pilot, r"● rebooting +done")
        await press(pilot, "tab")
        assert isinstance(app.screen, VMScreen)
        assert app.screen.page == "overview"


async def test_a_vms_screen_follows_it_to_its_end(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "slash", "=web-2", "enter", "enter", "s", "y")
        await see(pilot, r"web-2 +○ stopped")
        await press(pilot, "d", "=web-2", "enter")
        await see(pilot, "This VM is gone.")
        await press(pilot, "s", "d", "c", "escape")
        assert len(app.screen_stack) == 1


async def test_a_foreign_domain_is_shown_and_left_alone(lab: Lab):
    async with running(make_app(lab)) as pilot:
        await press(pilot, "slash", "=win11", "enter", "enter")
        await see(pilot, "shown, never touched")
        await press(pilot, "d")
        await see(pilot, "is not KC's")


# --- the console


async def test_the_console_shows_what_was_said_before_and_takes_keys(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "slash", "=web-1", "enter", "c")
        await see(pilot, "KC: web-1 is up")
        screen = app.screen
        assert isinstance(screen, ConsoleScreen)
        assert "web-1 · console" in read_text(app)
        await press(pilot, "=q1nd", "enter")
        await until(pilot, lambda: "q1nd" in screen.terminal.text, "the guest echoes")
        await press(pilot, "escape", "ctrl+c")
        assert app.screen is screen
        await press(pilot, "ctrl+right_square_bracket")
        assert len(app.screen_stack) == 1


async def test_a_console_that_ends_says_so_and_can_be_opened_again(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "slash", "=web-1", "enter", "c")
        await see(pilot, "KC: web-1 is up")
        screen = app.screen
        assert isinstance(screen, ConsoleScreen)
        assert screen.link is not None
        screen.link._stream.close()
        await see(pilot, "The guest has ended it.")
        assert "KC: web-1 is up" in read_text(app)
        await see(pilot, "enter open it again +esc back")
        await press(pilot, "enter")
        await until(pilot, lambda: not screen.end_reason and screen.terminal.has_focus, "it is open again")
        await press(pilot, "ctrl+right_square_bracket")


async def test_a_console_that_cannot_be_opened_says_why(lab: Lab):
    async with running(make_app(lab)) as pilot:
        lab.host.fail = fail_with(UnreachableError("host lab", "it does not answer"), "console")
        await press(pilot, "slash", "=web-1", "enter", "c")
        await see(pilot, "Host lab: it does not answer.")
        await press(pilot, "escape")


async def test_pasting_several_lines_asks_first(lab: Lab):
    from textual import events

    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "slash", "=web-1", "enter", "c")
        await see(pilot, "KC: web-1 is up")
        screen = app.screen
        assert isinstance(screen, ConsoleScreen)
        screen.terminal.post_message(events.Paste("echo one\necho two\n"))
        await see(pilot, "The guest gets 2 lines at once")
        await press(pilot, "y")
        await until(pilot, lambda: "echo two" in screen.terminal.text, "the guest has it")


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


# --- the app as a whole


@pytest.mark.parametrize("size", [(59, 24), (80, 14), (20, 5)])
async def test_a_terminal_that_is_too_small_is_told_so(lab: Lab, size: tuple[int, int]):
    app = make_app(lab)
    async with running(app, size) as pilot:
        await until(pilot, lambda: "60 columns" in " ".join(read_text(app).split()), "it says what it needs")
        await pilot.resize_terminal(80, 24)
        await see(pilot, "web-1 +running")


@pytest.mark.parametrize("size", [(60, 15), (80, 24), (99, 20), (100, 24), (139, 30), (140, 40), (250, 60)])
async def test_every_screen_fits_every_size(lab: Lab, size: tuple[int, int]):
    app = make_app(lab)
    async with running(app, size) as pilot:
        for keys in (
            ("1",),
            ("enter",),
            ("escape", "2"),
            ("3",),
            ("4",),
            ("6",),
            ("1", "n"),
            ("escape", "question_mark"),
        ):
            await press(pilot, *keys)
            lines = read_text(app).splitlines()
            assert len(lines) <= size[1]
            assert max(map(len, lines)) <= size[0]


async def test_without_unicode_there_is_only_ascii(lab: Lab):
    app = make_app(lab, glyphs=ASCII)
    async with running(app) as pilot:
        for keys in (("j",), ("n",), ("escape", "6"), ("1", "enter")):
            await press(pilot, *keys)
            assert read_text(app).isascii()


HOSTILE = "\x1b]52;c;cHduZWQ=\x07[@click=app.quit]x[/] \u202egnp.exe\x9b31m [/oops] \U0001f468\u200d\U0001f469 ｗｉｄｅ"


async def test_hostile_strings_are_text_on_every_screen(tmp_path: Path):
    lab = Lab(tmp_path)
    vm = lab.add_vm("web", metadata={HOSTILE: {"deep": [HOSTILE]}, "tenant": HOSTILE})
    lab.add("Network", "net", {"description": HOSTILE[:200]})
    lab.add_foreign(HOSTILE)
    lab.add_operation(
        vm, "vm.reboot",
        {"state": "failed", "error": FailedError(HOSTILE, HOSTILE, HOSTILE).problem(),
         "steps": [{"id": "x", "title": HOSTILE, "state": "failed"}]},
    )  # fmt: skip
    app = make_app(lab)
    async with running(app, (140, 40)) as pilot:
        for keys in (
            ("j",),
            ("k", "enter"),
            ("m",),
            ("escape", "3"),
            ("6",),
            ("enter",),
            ("escape", "1", "n", "enter"),
        ):
            await press(pilot, *keys)
            text = read_text(app)
            assert not {"\x1b", "\x9b", "\u202e", "\x07"} & set(text)
        await press(pilot, "escape", "slash", "=[/oops]", "enter")
        assert app.is_running


async def test_ten_thousand_vms_are_a_list_like_any_other(tmp_path: Path):
    lab = Lab(tmp_path)
    template = lab.add_vm("template")
    store = lab.service.store
    for start in range(0, 10_000, 500):
        with store.transaction() as transaction:
            for number in range(start, start + 500):
                body = {key: value for key, value in template.items() if key not in ("version", "status")}
                transaction.put(body | {"name": f"vm-{number}", "uid": uid_of(f"vm-{number}")}, expect=0)
    app = make_app(lab)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.session.inventory.count("VM") > 10_000, "all are known", 60)
        await until(pilot, lambda: app.session.inventory.loaded == set(WATCHED), "the rest is known", 60)
        await settle(pilot)
        await press(pilot, "G")
        assert "vm-9999" in read_text(app)
        await press(pilot, "slash", "=vm-4242", "enter")
        assert "1 of 10,001" in read_text(app)


async def test_a_tour_through_all_screens_leaves_nothing_behind(lab: Lab):
    app = make_app(lab)

    def count() -> int:
        return sum(1 for _ in app.walk_children(Widget)) + sum(len(list(s.walk_children())) for s in app.screen_stack)

    async def tour() -> None:
        for keys in (
            ("2",),
            ("enter", "escape"),
            ("3",),
            ("4",),
            ("6",),
            ("1", "enter", "tab", "escape"),
            ("n", "escape"),
        ):
            await press(pilot, *keys)

    async with running(app) as pilot:
        await tour()
        first = count()
        for _ in range(3):
            await tour()
        assert count() == first


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
async def test_signals_end_it_in_order(lab: Lab, number: int):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "n", "enter", "enter", "enter", "=half")
        os.kill(os.getpid(), number)
        await until(pilot, lambda: app._exit, "it ends")
    assert app.return_code == 128 + number


async def test_a_fault_of_kc_writes_a_report_and_one_line(lab: Lab):
    app = make_app(lab)
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 - it is raised when the app has ended
        async with running(app) as pilot:
            app.call_later(lambda: 1 // 0)
            await asyncio.sleep(0.05)
            await pilot.pause()
    crash = report_crash(app)
    assert crash is not None
    assert "internal error (ZeroDivisionError)" in str(crash)
    assert app.crash_report is not None
    assert "ZeroDivisionError" in app.crash_report.read_text()
    await asyncio.to_thread(app.session.gateway.join)


def test_the_environment_is_scrubbed_of_what_textual_would_obey():
    environment: dict[str, Any] = {
        "TEXTUAL": "debug",
        "TEXTUAL_DRIVER": "evil:Driver",
        "TEXTUALISH": "1",
        "TERM": "xterm",
    }
    scrub_environment(environment)
    assert environment == {"TEXTUALISH": "1", "TERM": "xterm"}


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("", "desk"),
        ("qemu:///system", "desk"),
        ("qemu+ssh://root@lab.example.org/system", "lab.example.org"),
        ("qemu+ssh://lab:2222/system", "lab:2222"),
    ],
)
def test_the_header_names_the_host(uri: str, name: str):
    assert name_host(uri, "desk.example.org") == name
