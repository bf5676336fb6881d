"""The command line in this process, on a service in memory; run as a program, the same on a terminal of its own.

As a program: command_line.py ARGUMENTS…, steered by KC_TEST_BLOCK (operations stay at their first step until they are
cancelled), KC_TEST_VMS (names), KC_TEST_LOG (what consoles have said, as Python bytes).
"""

from __future__ import annotations

import ast
import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from kc_tui.cli.main import run
from support.memory_service import MemoryService

PROGRAM = [sys.executable, str(Path(__file__))]


class Result:
    """What a command left: exit code, stdout and stderr."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def json(self) -> Any:
        return json.loads(self.out)

    def problem(self) -> Any:
        return json.loads(self.err)


class CommandLine:
    """Runs commands on one service in memory; `capsys` is pytest's."""

    def __init__(self, capsys: Any) -> None:
        self.service = MemoryService()
        self.operates: list[bool] = []
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Result:
        def open_service(_settings: object, *, operate: bool = True) -> MemoryService:
            self.operates.append(operate)
            return self.service

        self._capsys.readouterr()
        code = run(arguments, open_service)
        captured = self._capsys.readouterr()
        return Result(code, captured.out, captured.err)


def main() -> int:
    service = MemoryService()
    for name in os.environ.get("KC_TEST_VMS", "").split():
        service.add_vm(name, metadata={"tenant": "acme"})
    service.log = ast.literal_eval(os.environ.get("KC_TEST_LOG", "b''"))
    if os.environ.get("KC_TEST_BLOCK"):
        service.gate.clear()
    code = run(sys.argv[1:], lambda _settings, operate=True: service)
    if os.environ.get("KC_TEST_CALLS"):
        Path(os.environ["KC_TEST_CALLS"]).write_text("\n".join(str(call) for call in service.calls))
    return code


if __name__ == "__main__":
    sys.exit(main())
