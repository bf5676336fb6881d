"""Viewers of one console that do not read, do not answer, or come in the wrong moment."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from backend.errors import ConflictError, TimedOutError
from backend.hypervisor.memory_guest import MemoryConsole
from backend.local import console_relay, console_sharing
from backend.local.console import GAP
from backend.local.console_sharing import MeetingPoint, SharedConsole
from backend.service import ConsoleStream


class Guest:
    """A machine whose console one stream at a time can have, as libvirt gives it."""

    def __init__(self) -> None:
        self.said = b""
        self.typed = b""
        self.is_on = True
        self.stream: MemoryConsole | None = None
        self.opened = 0

    def open(self, seen: bytes) -> ConsoleStream:
        if not self.is_on:
            raise ConflictError("VM guest", "it is stopped")
        if self.stream is not None:
            self.stream.close()
        self.opened += 1
        assert self.said.startswith(seen) or seen in self.said
        self.stream = MemoryConsole(self.said[len(seen) :], self.hear)
        return self.stream

    def hear(self, keys: bytes) -> None:
        self.typed += keys
        self.say(keys)

    def say(self, data: bytes) -> None:
        self.said += data
        assert self.stream is not None
        self.stream.say(data)


@pytest.fixture
def guest() -> Guest:
    return Guest()


@pytest.fixture
def view(guest: Guest, tmp_path: Path) -> Iterator[Callable[[], SharedConsole]]:
    """Opens the console once more."""
    opened: list[SharedConsole] = []

    def open_one() -> SharedConsole:
        opened.append(SharedConsole("console", MeetingPoint(tmp_path / "run", "uid"), guest.open))
        return opened[-1]

    yield open_one
    for console in opened:
        console.close()


def take(console: SharedConsole, size: int, seconds: float = 10.0) -> bytes:
    ends = time.monotonic() + seconds
    data = b""
    while len(data) < size:
        assert time.monotonic() < ends, (len(data), data[-100:])
        data += console.read(0.2) or b""
    return data


def test_each_sees_what_was_said_and_what_any_of_them_types(guest: Guest, view: Callable[[], SharedConsole]) -> None:
    guest.said = b"# "
    first, second = view(), view()
    assert [take(first, 2), take(second, 2)] == [b"# ", b"# "]
    second.write(b"ls")
    assert [take(first, 2), take(second, 2)] == [b"ls", b"ls"]
    first.write(b"\r")
    assert [take(first, 1), take(second, 1)] == [b"\r", b"\r"]
    assert (guest.typed, guest.opened) == (b"ls\r", 1)


def test_a_viewer_that_does_not_read_is_left_behind_told_and_back_again(
    guest: Guest, view: Callable[[], SharedConsole]
) -> None:
    owner, lazy = view(), view()
    line = b"%06d 0123456789abcdef0123456789abcdef0123456789abcdef\r\n"
    total = 0
    while total < 4 * console_relay.LIMIT_BYTES:
        part = b"".join(line % (total + number) for number in range(1000))
        guest.say(part)
        assert take(owner, len(part)) == part
        total += len(part)
    guest.say(b"the end")
    take(owner, 7)
    seen = b""
    while not seen.endswith(b"the end"):
        seen += take(lazy, 1)
    before, gap, after = seen.partition(GAP)
    assert gap
    assert guest.said.startswith(before)
    assert guest.said.endswith(after)
    assert len(after) >= 1024
    lazy.write(b"!")
    assert [take(owner, 1), take(lazy, 1)] == [b"!", b"!"]


def test_an_owner_that_does_not_read_is_left_behind_too(guest: Guest, view: Callable[[], SharedConsole]) -> None:
    lazy, other = view(), view()
    part = b"x" * 99_998 + b"\r\n"
    for _ in range(20):
        guest.say(part)
        take(other, len(part))
    guest.say(b"the end")
    take(other, 7)
    seen = take(lazy, len(GAP))
    while not seen.endswith(b"the end"):
        seen += take(lazy, 1)
    assert GAP in seen


def test_alone_one_makes_the_guest_wait_and_misses_nothing(guest: Guest, view: Callable[[], SharedConsole]) -> None:
    owner = view()
    part = bytes(range(256)) * 2000
    for _ in range(6):
        guest.say(part)
    assert take(owner, 6 * len(part)) == 6 * part


def test_when_the_owner_leaves_another_goes_on(guest: Guest, view: Callable[[], SharedConsole]) -> None:
    guest.said = b"# "
    first, second, third = view(), view(), view()
    for each in (first, second, third):
        assert take(each, 2) == b"# "
    first.close()
    assert first.read(1.0) == b""
    second.write(b"a")
    assert [take(second, 1), take(third, 1)] == [b"a", b"a"]
    second.close()
    third.write(b"b")
    assert take(third, 1) == b"b"
    assert guest.opened >= 2


def test_the_end_is_the_end_for_all_and_for_who_comes_later(guest: Guest, view: Callable[[], SharedConsole]) -> None:
    first, second = view(), view()
    guest.say(b"bye")
    assert [take(first, 3), take(second, 3)] == [b"bye", b"bye"]
    guest.is_on = False
    assert guest.stream is not None
    guest.stream.close()
    for each in (first, second):
        ends = time.monotonic() + 10
        while each.read(0.2) != b"":
            assert time.monotonic() < ends
        with pytest.raises(ConflictError):
            each.write(b"x")
    with pytest.raises(ConflictError, match="it is stopped"):
        view()


def test_closing_wakes_a_reader(view: Callable[[], SharedConsole]) -> None:
    for console in (view(), view()):
        got: list[bytes | None] = []
        reader = threading.Thread(target=lambda console=console, got=got: got.append(console.read(30.0)))
        reader.start()
        time.sleep(0.05)
        console.close()
        reader.join(10)
        assert got == [b""]


def test_a_socket_that_nobody_answers_at_is_passed_over(
    guest: Guest, view: Callable[[], SharedConsole], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console_sharing, "JOIN_SECONDS", 0.2)
    stuck = MeetingPoint(tmp_path / "run", "uid")
    assert stuck.claim()
    with stuck.listen():
        console = view()
        guest.say(b"here")
        assert take(console, 4) == b"here"
        assert stuck.is_deposed()
        stuck.leave()
        # What is the new owner's stays the new owner's.
        assert take(view(), 4) == b"here"
        assert guest.opened == 1


def test_a_place_that_is_taken_for_long_is_not_waited_for_without_end(
    view: Callable[[], SharedConsole], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console_sharing, "FIND_SECONDS", 0.3)
    other = MeetingPoint(tmp_path / "run", "uid")
    assert other.claim()
    with pytest.raises(TimedOutError):
        view()
    other.leave()
    view()


@pytest.mark.parametrize("words", [b"", b"R\0\0", b"R\xff\xff\xff\xff", b"garbage that is no frame"])
def test_whatever_an_owner_says_a_viewer_finds_its_way(
    guest: Guest, view: Callable[[], SharedConsole], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: bytes
) -> None:
    monkeypatch.setattr(console_sharing, "JOIN_SECONDS", 0.2)
    monkeypatch.setattr(console_sharing, "SILENCE_SECONDS", 0.3)
    stuck = MeetingPoint(tmp_path / "run", "uid")
    assert stuck.claim()
    with stuck.listen() as listener:
        listener.settimeout(5)
        answered: list[socket.socket] = []

        def answer() -> None:
            connection, _ = listener.accept()
            connection.sendall(words)
            answered.append(connection)

        thread = threading.Thread(target=answer)
        thread.start()
        console = view()
        thread.join(5)
        ends = time.monotonic() + 10
        while guest.stream is None:
            assert time.monotonic() < ends
            console.read(0.1)
        guest.say(b"here")
        assert take(console, 4) == b"here"
        for connection in answered:
            connection.close()
    stuck.leave()
