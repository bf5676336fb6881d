"""The `kc` command and virsh, as tests run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

URI = os.environ.get("KC_LIBVIRT_URI", "qemu:///system")


@dataclass
class Result:
    """What a `kc` command left: exit status, stdout and stderr as text."""

    status: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        """Return stdout as the JSON value that it is to be."""
        return json.loads(self.stdout)


Kc = Callable[..., Result]


def run_kc(home: Path, *arguments: str, timeout: float = 240, **environment: str) -> Result:
    """Run `kc` with a home of its own and no terminal."""
    variables = {
        **{key: value for key, value in os.environ.items() if not key.startswith("KC_")},
        "KC_HOME": str(home),
        "KC_LIBVIRT_URI": URI,
        "COLUMNS": "100",
        **environment,
    }
    done = subprocess.run(
        [sys.executable, "-m", "kc_tui", *arguments],
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def virsh(*arguments: str) -> str:
    """Return what a virsh command prints; raise CalledProcessError where it fails."""
    return subprocess.run(
        ["virsh", "-q", "-c", URI, *arguments], capture_output=True, text=True, timeout=60, check=True
    ).stdout  # fmt: skip


def pool_volumes(prefix: str, pool: str = "kc") -> list[str]:
    """Return the names of a pool's volumes that begin with `prefix`."""
    virsh("pool-refresh", pool)
    names = [line.split()[0] for line in virsh("vol-list", pool).splitlines() if line.strip()]
    return sorted(name for name in names if name.startswith(prefix))
