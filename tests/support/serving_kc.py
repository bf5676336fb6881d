"""`kc serve` in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

KC = (sys.executable, "-m", "kc_tui")
START_SECONDS = 30.0
END_SECONDS = 60.0


class ServingKc:
    """A server on a home, from when it listens; `url` is its first TCP address, `log` its log."""

    def __init__(
        self, home: Path, *arguments: str, program: Sequence[str] = KC, keep: tuple[int, ...] = (), **environment: str
    ) -> None:
        home.parent.mkdir(parents=True, exist_ok=True)
        self.log = home.with_name(f"{home.name}-server.log")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("KC_", "LISTEN_", "NOTIFY_"))}
        self.process = subprocess.Popen(
            [*program, "serve", "--log", str(self.log), *arguments],
            env={**kept, "KC_HOME": str(home), **environment}, stderr=subprocess.PIPE, text=True, pass_fds=keep,
        )  # fmt: skip
        self.said: list[str] = []
        timer = threading.Timer(START_SECONDS, self.process.kill)
        timer.start()
        while not any("listening on" in line for line in self.said):
            self.said.append(self._read_line())
        timer.cancel()
        words = [word.rstrip(",") for line in self.said for word in line.split()]
        self.url = next((word for word in words if word.startswith("http")), "")

    @property
    def port(self) -> int:
        """The port of its first TCP address."""
        return int(self.url.rpartition(":")[2])

    def _read_line(self) -> str:
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        if not line:
            self.process.wait(END_SECONDS)
            self.process.stderr.close()
            message = f"it does not listen: {self.said}"
            raise AssertionError(message)
        return line

    def end(self, number: int = signal.SIGTERM) -> str:
        """End it by a signal, and return what it has said since it listened; nothing where it has ended before."""
        assert self.process.stderr is not None
        if self.process.stderr.closed:
            return ""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.communicate(timeout=END_SECONDS)[1]
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
