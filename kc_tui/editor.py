"""The user's own editor on a file, while KC's screen is out of the way."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Final

from backend.errors import FailedError

_USUAL: Final = ("sensible-editor", "nano", "vi")


def find_editor(environment: Mapping[str, str]) -> list[str]:
    """Return the command of the user's editor (VISUAL, EDITOR, or what there is); raise FailedError without one."""
    for name in ("VISUAL", "EDITOR"):
        try:
            command = shlex.split(environment.get(name, ""))
        except ValueError as error:
            raise FailedError(name, f"it is no command: {error}", f"set {name} to the name of an editor") from error
        if command:
            return command
    usual = next((name for name in _USUAL if shutil.which(name)), None)
    if usual is None:
        raise FailedError("editor", "there is none", "set EDITOR to the name of one")
    return [usual]


def run_editor(command: list[str], path: Path) -> int:
    """Run an editor on a file until it ends, and return its status; raise FailedError where it cannot be started.

    It blocks on purpose: nothing may draw meanwhile. Keys that interrupt are the editor's, not KC's.
    """
    before = {number: signal.signal(number, _ignore) for number in (signal.SIGINT, signal.SIGQUIT)}
    try:
        return subprocess.run([*command, str(path)], check=False).returncode
    except OSError as error:
        why = f"it cannot be started: {os.strerror(error.errno or 0).lower()}"
        raise FailedError(f"editor {command[0]}", why, "set EDITOR to the name of one") from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing; unlike SIG_IGN this is not inherited by the editor."""
