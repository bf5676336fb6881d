"""A Caddy of a test's own, on loopback."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.authenticating import running
from support.ssh_daemon import free_port


@contextlib.contextmanager
def run_caddy(folder: Path, site: str, *, scheme: str = "http") -> Iterator[int]:
    """Run a Caddy with the lines of one site block, and yield its port; `access.log` has what was asked for."""
    program = shutil.which("caddy")
    if program is None:
        pytest.fail("no caddy: apt-get install caddy")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    config = folder / "Caddyfile"
    config.write_text(
        f"{{\n admin off\n auto_https off\n log {{\n output file {folder}/caddy.log\n }}\n}}\n"
        f"{scheme}://127.0.0.1:{port} {{\n bind 127.0.0.1\n log {{\n output file {folder}/access.log\n }}\n{site}\n}}\n"
    )
    # Whatever it would keep goes with the folder.
    places = [f"{name}={folder}" for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")]
    with running(["env", *places, program, "run", "--adapter", "caddyfile", "--config", str(config)], port):
        yield port
