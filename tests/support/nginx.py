"""An nginx of a test's own, on loopback."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.authenticating import running
from support.ssh_daemon import free_port


@contextlib.contextmanager
def run_nginx(folder: Path, server: str, *, listen: str = "", http: str = "", port: int = 0) -> Iterator[int]:
    """Run an nginx with the lines of one `server` block, without `listen`, and yield its port.

    `listen` follows the address (`ssl http2`), `http` are lines beside the block; without a `port` it is any free one.
    What was asked for stands in `access.log`, in the combined format.
    """
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        pytest.fail("no nginx: apt-get install nginx-light")
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    places = "".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""
    config = folder / "nginx.conf"
    config.write_text(
        f"{user} daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{ worker_connections 64; }}\n"
        f"http {{ access_log {folder}/access.log; {places}\n{http}\n"
        f"server {{ listen 127.0.0.1:{port} {listen};\n{server}\n}} }}\n"
    )
    with running([program, "-e", str(folder / "error.log"), "-c", str(config)], port):
        yield port
