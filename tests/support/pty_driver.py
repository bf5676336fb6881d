"""A program on a pseudo-terminal, watched through an emulator: what it shows, and when."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time

import pyte


class Terminal:
    """A program on a pty of its own; `screen` is what a person would see."""

    def __init__(self, command: list[str], environment: dict[str, str], columns: int = 80, rows: int = 24) -> None:
        self.started = time.perf_counter()
        self.screen = pyte.Screen(columns, rows)
        self._stream = pyte.ByteStream(self.screen)
        self.output = bytearray()
        self.pid, self.descriptor = pty.fork()
        if self.pid == 0:
            # Before the program starts, so that its first look sees the size.
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.execvpe(command[0], command, environment)

    def resize(self, columns: int, rows: int) -> None:
        """Give the terminal another size, as a window would."""
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.resize(rows, columns)

    def send(self, text: str) -> None:
        """Type."""
        os.write(self.descriptor, text.encode())

    def pump(self, seconds: float) -> bool:
        """Take in what the program writes within `seconds`; False once it has ended."""
        # Not `select`, which knows no descriptor beyond 1023.
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return True
        try:
            data = os.read(self.descriptor, 65536)
        except OSError:
            return False
        self.output += data
        self._stream.feed(data)
        return bool(data)

    def text(self) -> str:
        """Return the lines of the screen."""
        return "\n".join(self.screen.display)

    def wait_for(self, words: str, timeout: float = 30.0) -> float:
        """Return the seconds from the start until the screen showed `words`; raise AssertionError with the screen."""
        deadline = time.perf_counter() + timeout
        while time.perf_counter() < deadline:
            if words in self.text():
                return time.perf_counter() - self.started
            if not self.pump(0.05) and words not in self.text():
                break
        message = f"{words!r} did not come:\n{self.text()}"
        raise AssertionError(message)

    def wait_end(self, timeout: float = 15.0) -> int:
        """Return the wait status of the program once it has ended."""
        deadline = time.perf_counter() + timeout
        while time.perf_counter() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return status
            self.pump(0.05)
        message = f"the program did not end:\n{self.text()}"
        raise AssertionError(message)

    def close(self) -> None:
        """End the program, by its process id, and let go of the terminal."""
        os.close(self.descriptor)
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0


def first_paint(command: list[str], environment: dict[str, str], words: str) -> float:
    """Return the seconds from the start of a program until its screen shows `words`."""
    terminal = Terminal(command, environment)
    try:
        return terminal.wait_for(words)
    finally:
        terminal.close()
