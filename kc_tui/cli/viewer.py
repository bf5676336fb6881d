"""`kc vm viewer`: a VM's screen in a viewer for VNC that is installed, or at an address for any other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

from backend.errors import FailedError
from kc_tui.cli.arguments import Parser
from kc_tui.cli.following import Interrupted, leaving_on_signals
from kc_tui.cli.output import print_data
from kc_tui.cli.screen_listener import END_SECONDS, HOST, Listener
from kc_tui.cli.session import Session

# Viewers by name, and the form in which each takes an address.
_VIEWERS = {
    "remote-viewer": ("vnc://{host}:{port}",),
    "vncviewer": ("{host}::{port}",),
    "xtigervncviewer": ("{host}::{port}",),
    "xtightvncviewer": ("{host}::{port}",),
    "vinagre": ("vnc://{host}:{port}",),
    "krdc": ("vnc://{host}:{port}",),
    "remmina": ("-c", "vnc://{host}:{port}"),
}


def add_arguments(parser: Parser) -> None:
    """Add what `kc vm viewer` takes."""
    parser.add("name", metavar="NAME", complete="vm", help="which VM")
    parser.add("--print", dest="prints", action="store_true", help="start no viewer; print the address, and serve it")


def run(session: Session, arguments: Namespace) -> int:
    """Serve the VM's screen until its viewer ends, or until ctrl-c, and return the exit code."""
    name: str = arguments.name
    # What stands against it is told before anything is started.
    session.service.display(name).close()
    program = "" if arguments.prints else find_viewer(os.environ)
    with leaving_on_signals(), Listener(session, name) as listener:
        try:
            if program:
                _run_viewer(name, program, listener.port)
            else:
                _print_address(session, name, listener.port, is_asked_for=arguments.prints)
                listener.wait()
        except Interrupted:
            raise
        except KeyboardInterrupt:
            session.note(f"left the screen of VM {name}")
    return 0


def find_viewer(environment: Mapping[str, str]) -> str:
    """Return the path of the first viewer that is installed; empty where there is none, or no display for it."""
    if sys.platform.startswith("linux") and not (environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY")):
        return ""
    found = (shutil.which(name, path=environment.get("PATH")) for name in _VIEWERS)
    return next((path for path in found if path), "")


def _print_address(session: Session, name: str, port: int, *, is_asked_for: bool) -> None:
    if not is_asked_for:
        session.note("no viewer is installed, or there is no display for one; remote-viewer and vncviewer would do")
    session.note(f"the screen of VM {name} is there until ctrl-c")
    address = f"vnc://{HOST}:{port}"
    if session.output in ("json", "yaml"):
        print_data(session, {"name": name, "address": address})
    else:
        sys.stdout.write(f"{address}\n")
    sys.stdout.flush()


def _run_viewer(name: str, program: str, port: int) -> None:
    """Run a viewer until it ends; raise FailedError where it cannot be started, or fails."""
    what, hint = f"viewer {Path(program).name}", f"kc vm viewer {name} --print serves the screen to another one"
    command = [program, *(part.format(host=HOST, port=port) for part in _VIEWERS[Path(program).name])]
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    except OSError as error:
        raise FailedError(what, f"it cannot be started: {str(error.strerror).lower()}", hint) from error
    try:
        status = process.wait()
    finally:
        _end(process)
    if status:
        raise FailedError(what, f"it ended with {status}", hint)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a viewer that still runs; one that does not listen is killed."""
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
