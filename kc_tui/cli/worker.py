"""The detached process that goes on with operations when the command that began them does not wait."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from argparse import Namespace

from kc_tui.cli.arguments import Parser
from kc_tui.cli.commands import Command
from kc_tui.cli.session import Session

_PATIENCE_SECONDS = 30.0
# Kept, so that Python does not complain of a child that is meant to outlive it, nor close the pipe too early.
_started: list[tuple[subprocess.Popen[bytes], int]] = []


def start_worker(profile: str = "") -> None:
    """Start `kc __resume` in a session of its own; it takes up unfinished operations and ends when all have ended.

    It holds one end of a pipe, whose other end closes when this process is gone: only then are its leases free.
    """
    reading, writing = os.pipe()
    # -P: a folder named kc_tui where the user happens to stand is none of ours.
    command = [sys.executable, "-P", "-m", "kc_tui", "__resume", "--after", str(reading), "--profile", profile]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=(reading,),
    )
    os.close(reading)
    _started.append((process, writing))


def _add_arguments(parser: Parser) -> None:
    parser.add("--after", metavar="FD", type=int, default=-1, help="begin when this pipe is closed at its other end")


def _resume(session: Session, arguments: Namespace) -> int:
    if arguments.after >= 0:
        select.select([arguments.after], [], [], _PATIENCE_SECONDS)
        os.close(arguments.after)
    session.service.resume(wait=True)
    return 0


COMMANDS = {"": Command("", _add_arguments, _resume, finishes=False)}
