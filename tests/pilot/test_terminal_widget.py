"""The console widget, driven as an operator and a guest drive it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from support.waiting import wait_for
from textual import events, on
from textual.app import App, ComposeResult
from textual.content import Content
from textual.geometry import Region
from textual.message import Message
from textual.pilot import Pilot
from textual.strip import Strip

from kc_tui.widgets.terminal import BACKLOG_LIMIT, Terminal

BOOT = b"".join(
    b"[%12.6f] \x1b[0;32msystemd\x1b[0m[1]: Starting service %d of the boot sequence...\r\n" % (number * 0.0013, number)
    for number in range(20_000)
)


class ConsoleApp(App[None]):
    """A terminal between two lines, and what it said."""

    CSS = "Terminal { border-top: solid $accent; }"

    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self.terminal = terminal
        self.said: list[Message] = []

    def compose(self) -> ComposeResult:
        yield self.terminal

    @on(Terminal.Input, "#console")
    @on(Terminal.Leave, "#console")
    @on(Terminal.PasteRequested, "#console")
    @on(Terminal.Resized, "#console")
    @on(Terminal.Drained, "#console")
    def hear(self, message: Message) -> None:
        self.said.append(message)

    def heard(self, kind: type[Message]) -> list[Message]:
        return [message for message in self.said if isinstance(message, kind)]

    @property
    def sent(self) -> list[bytes]:
        """What was to go to the guest."""
        return [message.data for message in self.said if isinstance(message, Terminal.Input)]


@dataclass
class Console:
    """A running app and its pilot."""

    app: ConsoleApp
    pilot: Pilot[None]

    @property
    def terminal(self) -> Terminal:
        return self.app.terminal

    async def wait(self, condition, what: str) -> None:
        await wait_for(self.pilot, condition, what)

    async def shows(self, data: bytes, **options: bool) -> None:
        """Have the guest write `data`, and wait until it is fed and painted."""
        self.terminal.write(data, **options)
        await self.wait(lambda: self.terminal.backlog == 0, "the backlog is drained")
        await self.pilot.pause()

    def strip(self, y: int) -> Strip:
        return self.terminal.render_line(y)


@asynccontextmanager
async def a_console(terminal: Terminal | None = None, size: tuple[int, int] = (80, 25)) -> AsyncIterator[Console]:
    app = ConsoleApp(terminal or Terminal("web-1", id="console"))
    async with app.run_test(size=size) as pilot:
        app.terminal.focus()
        await wait_for(pilot, lambda: app.heard(Terminal.Resized) and app.terminal.has_focus, "laid out and focused")
        yield Console(app, pilot)


def style_at(strip: Strip, column: int):
    return next(iter(strip.crop(column, column + 1))).style


async def test_boot_text_is_shown_in_its_colours():
    async with a_console() as console:
        await console.shows(
            b"[\x1b[32m  OK  \x1b[0m] Started \x1b[1;38;2;1;2;3mssh\x1b[m.\r\n\x1b[38;5;208mlogin:\x1b[m "
        )
        assert console.terminal.text.rstrip("\n") == "[  OK  ] Started ssh.\nlogin:"
        first, second = console.strip(0), console.strip(1)
        assert first.text == "[  OK  ] Started ssh.".ljust(80)
        assert style_at(first, 3).color.number == 2
        assert style_at(first, 0).color != style_at(first, 3).color
        assert style_at(first, 17).color.triplet == (1, 2, 3)
        assert style_at(first, 17).bold
        assert style_at(second, 0).color.number == 208


async def test_named_colours_and_the_background_follow_the_theme():
    async with a_console() as console:
        await console.shows(b"\x1b[31mred\x1b[m plain")
        painted = {}
        for theme in ("textual-light", "textual-dark"):
            console.app.theme = theme
            await console.pilot.pause()
            [strip] = console.terminal.render_lines(Region(0, 1, 80, 1))
            assert strip.text.startswith("red plain")
            painted[theme] = [style_at(strip, 0).color, style_at(strip, 5).color, style_at(strip, 5).bgcolor]
        for light, dark in zip(*painted.values(), strict=True):
            assert light.triplet
            assert light != dark


@pytest.mark.parametrize(
    ("key", "data"),
    [
        ("a", b"a"),
        ("enter", b"\r"),
        ("tab", b"\t"),
        ("shift+tab", b"\x1b[Z"),
        ("escape", b"\x1b"),
        ("ctrl+c", b"\x03"),
        ("ctrl+d", b"\x04"),
        ("space", b" "),
        ("up", b"\x1b[A"),
        ("home", b"\x1b[H"),
        ("pageup", b"\x1b[5~"),
        ("f10", b"\x1b[21~"),
        ("backspace", b"\x7f"),
    ],
)
async def test_keys_go_to_the_guest_and_to_nobody_else(key, data):
    async with a_console() as console:
        await console.pilot.press(key)
        await console.wait(lambda: console.app.sent, "the key is sent")
        assert console.app.sent == [data]
        assert console.terminal.has_focus


async def test_arrows_follow_the_application_mode_that_the_guest_set():
    async with a_console() as console:
        await console.shows(b"\x1b[?1h")
        await console.pilot.press("up", "left")
        await console.shows(b"\x1b[?1l")
        await console.pilot.press("up")
        await console.wait(lambda: len(console.app.sent) == 3, "three keys are sent")
        assert console.app.sent == [b"\x1bOA", b"\x1bOD", b"\x1b[A"]


async def test_the_leader_leaves_and_is_not_sent():
    async with a_console() as console:
        await console.pilot.press("ctrl+right_square_bracket")
        await console.wait(lambda: console.app.heard(Terminal.Leave), "leave is posted")
        assert console.app.sent == []


async def test_the_size_is_that_of_the_content_and_changes_are_told():
    async with a_console(size=(80, 25)) as console:
        await console.pilot.resize_terminal(100, 31)
        await console.wait(lambda: len(console.app.heard(Terminal.Resized)) == 2, "the new size is told")
        assert [(told.columns, told.rows) for told in console.app.heard(Terminal.Resized)] == [(80, 24), (100, 30)]
        assert (console.terminal.emulator.columns, console.terminal.emulator.rows) == (100, 30)
        await console.shows(b"x" * 100 + b"y")
        assert console.terminal.text.splitlines()[1] == "y"


async def test_scrolling_back_stays_with_what_is_read_until_a_key_is_typed():
    async with a_console() as console:
        await console.shows(b"".join(b"line %d\r\n" % number for number in range(100)))
        assert console.terminal.text.splitlines()[-1] == "line 99"
        await console.pilot.press("shift+pageup", "shift+pageup")
        read = console.terminal.text
        assert read.splitlines()[0] == "line 29"
        assert "48 lines back" in console.strip(0).text
        await console.shows(b"more\r\n" * 5)
        assert console.terminal.text == read
        assert "53 lines back" in console.strip(0).text
        await console.pilot.press("x")
        assert console.terminal.text.splitlines()[-1] == "more"
        assert "back" not in console.strip(0).text
        assert console.app.sent == [b"x"]


async def test_what_is_read_stays_in_view_when_old_lines_are_dropped():
    async with a_console() as console:
        await console.shows(b"".join(b"line %d\r\n" % number for number in range(10_100)))
        await console.pilot.press("shift+pageup")
        read = console.terminal.text
        await console.shows(b"more\r\n" * 50)
        assert console.terminal.text == read
        await console.pilot.press("shift+home")
        assert console.terminal.text.splitlines()[0] == "line 127"
        await console.pilot.press("shift+end")
        assert console.terminal.text.splitlines()[-1] == "more"


async def test_the_wheel_scrolls_and_the_bottom_follows_again():
    async with a_console() as console:
        await console.shows(b"".join(b"line %d\r\n" % number for number in range(100)))
        bottom = console.terminal.scroll_offset.y
        console.terminal.post_message(wheel(events.MouseScrollUp, console.terminal))
        await console.wait(lambda: console.terminal.scroll_offset.y < bottom, "the wheel scrolls up")
        console.terminal.post_message(wheel(events.MouseScrollDown, console.terminal))
        await console.wait(lambda: console.terminal.scroll_offset.y == bottom, "the wheel scrolls down")
        await console.shows(b"newest")
        assert console.terminal.text.splitlines()[-1] == "newest"


def wheel(kind, terminal):
    return kind(terminal, 5, 5, 0, 0, 0, shift=False, meta=False, ctrl=False)


async def test_the_cursor_is_drawn_while_focused_and_visible():
    async with a_console() as console:
        await console.shows(b"ab\b")
        assert [bool(style_at(console.strip(0), column).reverse) for column in range(3)] == [False, True, False]
        await console.shows(b"\x1b[?25l")
        assert not style_at(console.strip(0), 1).reverse
        await console.shows(b"\x1b[?25h")
        console.app.set_focus(None)
        await console.wait(lambda: not console.terminal.has_focus, "the focus is gone")
        assert not style_at(console.strip(0), 1).reverse


async def test_a_wide_character_under_the_cursor_is_reversed_whole():
    async with a_console() as console:
        await console.shows("가나\r".encode())
        strip = console.strip(0)
        assert strip.text.startswith("가나")
        assert strip.cell_length == 80
        assert [segment.text for segment in strip if segment.style.reverse] == ["가"]


async def test_one_line_is_pasted_and_several_are_asked_about():
    async with a_console() as console:
        console.app.post_message(events.Paste("echo \x1b[201~hi\x03"))
        await console.wait(lambda: console.app.sent, "one line is sent")
        assert console.app.sent == [b"echo [201~hi"]
        console.app.post_message(events.Paste("one\ntwo\r\n"))
        await console.wait(lambda: console.app.heard(Terminal.PasteRequested), "several lines are asked about")
        assert len(console.app.sent) == 1
        [request] = console.app.heard(Terminal.PasteRequested)
        await console.shows(b"\x1b[?2004h")
        console.terminal.paste(request.text)
        await console.wait(lambda: len(console.app.sent) == 2, "the confirmed lines are sent")
        assert console.app.sent[1] == b"\x1b[200~one\rtwo\r\x1b[201~"


async def test_the_guests_questions_are_answered_unless_they_are_replayed():
    async with a_console() as console:
        await console.shows(b"old \x1b[6n", answer=False)
        assert console.app.sent == []
        await console.shows(b"new \x1b[6n")
        assert console.app.sent == [b"\x1b[1;9R"]


async def test_the_title_is_data():
    async with a_console(Terminal("[@click=app.exit]x[/] [/y]", id="console")) as console:
        assert console.terminal.title == Content("[@click=app.exit]x[/] [/y]")
        console.terminal.title = Content.from_markup("[b]$name[/b]", name="[/z]")
        assert console.terminal._border_title.plain == "[/z]"
        console.terminal.title = ""
        assert console.terminal.border_title is None


async def test_hostile_bytes_leave_nothing_in_what_is_painted():
    hostile = b"\x1b]0;evil\x07\x1b]52;c;ZXZpbA==\x1b\\[@click=app.exit]go[/] \xff\xc2\x9b31m\xe2\x80\xae\x00\x7f\x1b[2"
    async with a_console() as console:
        await console.shows(hostile * 50)
        await console.pilot.resize_terminal(40, 10)
        for y in range(console.terminal.size.height):
            strip = console.strip(y)
            assert strip.text.isprintable()
            assert strip.cell_length == 40
            assert all("@click" not in segment.style.meta for segment in strip if segment.style)
        assert "evil" not in console.terminal.emulator.text(scrollback=True)
        assert "[@click=app.exit]go[/]" in console.terminal.text


async def test_text_written_before_there_is_a_screen_is_shown_on_it():
    terminal = Terminal(id="console")
    terminal.write(b"early")
    async with a_console(terminal) as console:
        await console.wait(lambda: terminal.backlog == 0, "the backlog is drained")
        assert terminal.text.rstrip("\n") == "early"


async def test_the_mouse_selects_what_is_copied():
    async with a_console() as console:
        await console.shows(b"".join(b"line %d\r\n" % number for number in range(100)) + b"address 10.0.0.17 is up")
        assert await console.pilot.mouse_down(console.terminal, offset=(8, 24))
        assert await console.pilot.hover(console.terminal, offset=(16, 24))
        assert await console.pilot.mouse_up(console.terminal, offset=(16, 24))
        assert console.app.screen.get_selected_text() == "10.0.0.17"


class TickingClock:
    """A clock that says 1 ms more each time it is asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self) -> float:
        self.asked += 1
        return self.asked / 1000


async def test_a_frame_feeds_for_twelve_milliseconds_and_no_longer():
    async with a_console(Terminal(id="console", clock=TickingClock())) as console:
        slices: list[int] = []
        feed = console.terminal.emulator.feed

        def recording(data: bytes) -> None:
            slices.append(len(data))
            feed(data)

        console.terminal.emulator.feed = recording
        console.terminal.write(BOOT[:100_000])
        before = console.terminal.backlog
        console.terminal._pump()
        assert 1 < len(slices) <= 12
        assert before - console.terminal.backlog == sum(slices) <= 12 * 256
        await console.wait(lambda: console.terminal.backlog == 0, "the rest follows")


async def test_a_burst_is_fast_forwarded_with_a_badge_and_keys_are_answered_meanwhile():
    async with a_console() as console:
        console.terminal.write(BOOT)
        assert len(BOOT) > 1_700_000
        await console.wait(lambda: console.terminal.is_fast_forwarding, "the backlog is fast-forwarded")
        assert "skipping ahead" in console.strip(0).text
        console.terminal.post_message(events.Key("q", "q"))
        await console.wait(lambda: console.app.sent == [b"q"], "the key is answered")
        assert console.terminal.backlog > BACKLOG_LIMIT, "the burst was over before the key was answered"
        await console.wait(lambda: console.terminal.backlog == 0, "the burst drains")
        await console.pilot.pause()
        assert len(console.app.heard(Terminal.Drained)) == 1
        assert not console.terminal.is_fast_forwarding
        assert "skipping" not in console.strip(0).text
        assert console.terminal.text.splitlines()[-1].endswith("Starting service 19999 of the boot sequence...")


async def test_fast_forward_paints_one_line_and_idleness_none():
    async with a_console() as console:
        await console.shows(b"ready\r\n")
        painted: list[tuple[int, bool]] = []
        record_painting(console.terminal, lambda y: painted.append((y, console.terminal.is_fast_forwarding)))
        await console.shows(BOOT)
        assert {y for y, is_fast_forwarding in painted if is_fast_forwarding} == {0}
        assert {y for y, _ in painted} == set(range(24))
        painted.clear()
        await console.shows(b"\x1b]0;title\x07")
        assert {y for y, _ in painted} <= {23}, "more than the cursor's line is painted for nothing to see"
        painted.clear()
        for _ in range(10):
            await console.pilot.pause()
        assert painted == []
        assert console.terminal._pump_timer is None


async def test_the_badge_goes_even_when_nothing_has_scrolled():
    async with a_console() as console:
        await console.shows(b"top\r\n")
        badges: list[bool] = []
        record_painting(
            console.terminal, lambda y: badges.append(console.terminal.is_fast_forwarding) if not y else None
        )
        await console.shows(b"\x1b[5;1Hworking" * 30_000)
        await console.wait(lambda: badges and not badges[-1], "the first line is painted without the badge")
        assert True in badges
        assert console.terminal.text.rstrip("\n") == "top\n\n\n\nworking"


def record_painting(terminal: Terminal, record: Callable[[int], None]) -> None:
    """Call `record` with the number of each line of the view that is painted from now on."""
    render_line = terminal.render_line

    def recording(y: int) -> Strip:
        record(y)
        return render_line(y)

    terminal.render_line = recording


async def test_only_the_rows_that_changed_are_painted():
    async with a_console() as console:
        await console.shows(b"one\r\ntwo\r\nthree\x1b[10;1H")
        painted: set[int] = set()
        record_painting(console.terminal, painted.add)
        await console.shows(b"\x1b[2;1HTWO\x1b[12;1H")
        await console.wait(lambda: painted, "something is painted")
        assert painted == {1, 9, 11}
