"""A host whose words were recorded."""

from __future__ import annotations

from collections.abc import Sequence

from backend.network.shell import Finished


class Recorded:
    """A host that says what was recorded, and keeps what it was asked."""

    where = "a recorded host"

    def __init__(self, output: str) -> None:
        self.output = output
        self.asked: list[Sequence[str]] = []

    def run(self, arguments: Sequence[str], *, stdin: str = "", seconds: float = 10.0) -> Finished:
        self.asked.append(arguments)
        mine = arguments[0] == "sh"
        return Finished(0, self.output, "") if mine else Finished(1, "", "Error: No such file or directory")
