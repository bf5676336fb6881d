"""The application as a whole: every size, every sign, hostile strings, many VMs, signals and faults."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from snapshots.picture import read_text
from snapshots.scenes import fill
from support.app import make_app, press, running, see, settle, until
from support.world import Lab, uid_of
from textual.widget import Widget

from backend.errors import FailedError
from kc_tui.app import name_host, scrub_environment
from kc_tui.ending import report_crash
from kc_tui.state.glyphs import ASCII
from kc_tui.state.inventory import WATCHED


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path)
    fill(lab)
    return lab


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
