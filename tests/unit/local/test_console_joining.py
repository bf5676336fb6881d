"""What a console said, put together from its log and its stream: each byte once, in order."""

from __future__ import annotations

import time
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.local import console
from backend.local.console import ReplayedConsole, find_meeting, find_rest


class Line:
    """A serial line as QEMU has it: all is logged, and streamed only once it has noticed its reader."""

    def __init__(self, said: bytes = b"", *, is_noticed: bool = False) -> None:
        self.log = said
        self.is_noticed = is_noticed
        self.has_ended = False
        self._chunks: deque[bytes] = deque()

    def say(self, data: bytes) -> None:
        self.log += data
        if self.is_noticed:
            self._chunks.append(data)

    def read(self, timeout: float) -> bytes | None:
        if self._chunks:
            return self._chunks.popleft()
        if self.has_ended:
            return b""
        time.sleep(min(timeout, 0.002))
        return None

    def write(self, data: bytes) -> None:
        self.say(data)

    def close(self) -> None:
        self.has_ended = True


def open_line(line: Line, seen: bytes = b"") -> ReplayedConsole:
    return ReplayedConsole(line, lambda: line.log[-console.REPLAY_BYTES :], seen)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(console, "SETTLE_SECONDS", 0.15)


def drain(stream: ReplayedConsole, seconds: float = 0.3) -> bytes:
    ends = time.monotonic() + seconds
    data = b""
    while time.monotonic() < ends:
        chunk = stream.read(0.02)
        if chunk == b"":
            break
        data += chunk or b""
    return data


def test_the_log_comes_at_once() -> None:
    assert open_line(Line(b"boot\r\n# ")).read(0.0) == b"boot\r\n# "


def test_what_is_said_before_qemu_notices_its_reader_is_not_missed() -> None:
    line = Line(b"one ")
    stream = open_line(line)
    assert stream.read(0) == b"one "
    line.say(b"two ")
    line.say(b"three ")
    line.is_noticed = True
    line.say(b"four ")
    assert drain(stream) == b"two three four "
    line.say(b"five")
    assert drain(stream, 0.1) == b"five"


def test_a_stream_that_says_nothing_for_long_is_joined_all_the_same() -> None:
    line = Line(b"quiet")
    stream = open_line(line)
    assert drain(stream) == b"quiet"
    line.is_noticed = True
    line.say(b"!")
    assert drain(stream, 0.1) == b"!"


def test_the_end_comes_after_everything_that_was_said() -> None:
    line = Line(b"bye", is_noticed=True)
    line.say(b" now")
    line.has_ended = True
    stream = open_line(line)
    assert drain(stream) == b"bye now"
    assert stream.read(0.1) == b""


def test_what_was_seen_before_is_not_said_again() -> None:
    line = Line(b"abc" * 500 + b"last words ", is_noticed=True)
    stream = open_line(line, seen=line.log)
    line.say(b"and more")
    assert drain(stream) == b"and more"


def test_more_than_a_replay_between_two_looks_loses_nothing_but_the_middle() -> None:
    line = Line(b"start ")
    stream = open_line(line)
    assert stream.read(0) == b"start "
    flood = b"".join(b"%07d\n" % number for number in range(20_000))
    line.say(flood)
    line.is_noticed = True
    line.say(b"the end")
    data = drain(stream)
    assert data == (flood + b"the end")[-console.REPLAY_BYTES :]


@given(st.binary(max_size=40), st.binary(max_size=40), st.integers(0, 40))
def test_the_rest_of_a_text_completes_what_was_seen(text: bytes, more: bytes, begin: int) -> None:
    whole = text + more
    piece = whole[min(begin, len(text)) :]
    rest = find_rest(text, piece)
    assert piece.endswith(rest)
    # Where text repeats itself the pieces may meet later than they did, never earlier.
    assert len(rest) <= len(more)
    assert find_meeting(text, piece) + len(rest) == len(piece)
    assert (text + rest).endswith(piece)


def test_a_guest_cannot_make_the_joining_slow() -> None:
    began = time.monotonic()
    assert find_meeting(b"a" * 65_535 + b"b", b"a" * 65_536) == 0
    assert find_meeting(b"b" + b"a" * 65_535, b"a" * 40_000 + b"b" * 25_000) == 40_000
    assert time.monotonic() - began < 2
