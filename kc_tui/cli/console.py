"""`kc vm console`: a VM's serial console on the user's terminal."""

from __future__ import annotations

import os
import select
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from backend.errors import KCError, TimedOutError, UsageError
from backend.service import ConsoleStream
from backend.text import sanitise
from kc_tui.cli.console_filter import StringFilter, clean_log
from kc_tui.cli.following import leaving_on_signals
from kc_tui.cli.output import print_data
from kc_tui.cli.session import Session
from kc_tui.cli.table import is_coloured
from kc_tui.idleness import Idleness, Presence

LEAVE = b"\x1d"  # ctrl-]
_READ_SECONDS = 0.5
_PIECE_BYTES = 4096
# A guest may leave modes behind that make the user's shell unusable: mouse reports, bracketed paste, the alternate
# screen, a hidden cursor, application keys, a scroll region, colours.
_MEND = (
    b"\x1b[?9l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?1005l\x1b[?1006l\x1b[?2004l"
    b"\x1b[?1049l\x1b[?1l\x1b>\x1b[?25h\x1b[?7h\x1b[4l\x1b[r\x1b(B\x0f\x1b[0m"
)


def print_log(session: Session, name: str) -> int:
    """Print what a VM's console has said so far: plain lines, on a terminal with their colours."""
    data = session.service.console_log(name)
    if session.output in ("json", "yaml"):
        print_data(session, {"name": name, "log": clean_log(data, coloured=False)})
        return 0
    text = clean_log(data, coloured=is_coloured(sys.stdout))
    sys.stdout.write(text)
    if not text:
        session.note(f"the console of VM {name} has said nothing yet")
    return 0


def open_console(session: Session, name: str) -> int:
    """Connect the terminal with a VM's console until ctrl-], the end of the console or of the terminal."""
    if not (sys.stdin and sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError(
            "kc vm console", "it needs a terminal", f"kc vm console {sanitise(name)} --log prints what it said"
        )
    stream = session.service.console(name)
    sys.stdout.flush()
    with leaving_on_signals(), raw_terminal(sys.stdin.fileno(), sys.stdout.fileno()):
        # Not before every key goes to the guest, or the first ones would go nowhere.
        session.note(f"console of VM {name}; ctrl-] leaves", end="\r\n")
        link = Link(stream, sys.stdin.fileno(), sys.stdout.fileno())
        if session.visitor is not None:
            link.idleness = session.visitor.idleness
            link.warn = lambda text: session.note(text, end="\r\n")
        link.run()
    if link.error is not None:
        raise link.error
    session.note(link.reason)
    return 0


@contextmanager
def raw_terminal(keys: int, screen: int) -> Iterator[None]:
    """Have the terminal hand on every key as it is inside the block, and put it back as it was after it."""
    before = termios.tcgetattr(keys)
    tty.setraw(keys)
    try:
        yield
    finally:
        # After a hang-up there is no terminal left to put back.
        with suppress(OSError, termios.error):
            os.write(screen, _MEND + b"\r\n")
        with suppress(OSError, termios.error):
            termios.tcsetattr(keys, termios.TCSAFLUSH, before)


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte to a file descriptor."""
    while data:
        data = data[os.write(descriptor, data) :]


class Link:
    """Carries bytes between a console and a terminal; one thread reads the console, the caller's reads the keys.

    With `idleness` it ends where no key is pressed for long; `warn` tells of it before.
    """

    idleness: Idleness | None = None
    warn: Callable[[str], object] = staticmethod(lambda _text: None)

    def __init__(self, stream: ConsoleStream, keys: int, screen: int) -> None:
        """Take the stream, which is closed at the end, and the terminal's file descriptors."""
        self._stream = stream
        self._keys = keys
        self._screen = screen
        self._filter = StringFilter()
        self._closing = threading.Event()
        self.reason = "left the console"
        self.error: KCError | None = None

    def run(self) -> None:
        """Carry until one side ends; `reason`, or `error`, then says why."""
        ended, ending = os.pipe()
        reader = threading.Thread(target=self._carry_output, args=(ending,), name="console", daemon=True)
        reader.start()
        try:
            self._carry_keys(ended)
        finally:
            self._closing.set()
            self._stream.close()
            reader.join(2 * _READ_SECONDS)
            if not reader.is_alive():
                os.close(ended)
                os.close(ending)

    def _carry_output(self, ending: int) -> None:
        try:
            while not self._closing.is_set():
                data = self._stream.read(_READ_SECONDS)
                if data == b"":
                    # The end that the person caused by leaving has its reason already.
                    self.reason = self.reason if self._closing.is_set() else "the console ended"
                    break
                if data:
                    write_all(self._screen, self._filter.feed(data))
        except KCError as error:
            self.error = error
        except OSError:
            self.reason = "the terminal is gone"
        os.write(ending, b"!")

    def _carry_keys(self, ended: int) -> None:
        while self._wait_for_keys(ended):
            try:
                typed = os.read(self._keys, _PIECE_BYTES)
            except OSError:
                typed = b""
            if not typed:
                self.reason = "the terminal is gone"
                return
            if self.idleness is not None:
                self.idleness.touch()
            before, leave, _after = typed.partition(LEAVE)
            if before:
                try:
                    self._stream.write(before)
                except KCError as error:
                    self.error = error
                    return
            if leave:
                return

    def _wait_for_keys(self, ended: int) -> bool:
        """Return once a key was pressed; False where the console has ended, or nobody is there."""
        while True:
            ready, _, _ = select.select([self._keys, ended], [], [], self._find_pause())
            if ready:
                return ended not in ready
            if self._is_away():
                return False

    def _find_pause(self) -> float | None:
        pause = self.idleness.until_next() if self.idleness is not None else 0.0
        # A little later, so that the time is over by then.
        return pause + 0.01 if pause else None

    def _is_away(self) -> bool:
        """Return whether it ends because nobody is there; tell of that before."""
        if self.idleness is None:
            return False
        presence = self.idleness.look()
        if presence is Presence.AWAY:
            self.error = TimedOutError("console", self.idleness.describe_end(), "open it again")
            return True
        if presence is Presence.WARNED:
            self.warn(self.idleness.describe_warning())
        return False
