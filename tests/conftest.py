"""Fixtures for every level: homes of their own, the `kc` command, and the libvirt that the machine has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

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


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty KC_HOME."""
    return tmp_path / "home"


@pytest.fixture
def kc(home: Path) -> Kc:
    """The `kc` command in an empty home."""

    def run(*arguments: str, timeout: float = 240, **environment: str) -> Result:
        return run_kc(home, *arguments, timeout=timeout, **environment)

    return run


@pytest.fixture(scope="session")
def libvirt_uri() -> str:
    """A libvirt that answers; the tests that ask for it fail, and do not skip, where there is none."""
    done = subprocess.run(
        ["virsh", "-c", URI, "version"], capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    if done.returncode != 0:
        pytest.fail(f"no libvirt at {URI}: {done.stderr.strip()}; `make services` starts one")
    return URI


@pytest.fixture(scope="session")
def ready_home(libvirt_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A KC_HOME in which `kc init` has run; its VMs are deleted in the end."""
    home = tmp_path_factory.mktemp("kc") / "home"
    done = run_kc(home, "init")
    assert done.status == 0, done.stderr
    yield home
    run_kc(home, "vm", "delete", "-l", "name~*", "--yes", "--now")


@pytest.fixture
def ready_kc(ready_home: Path) -> Kc:
    """The `kc` command in the session's ready home."""

    def run(*arguments: str, timeout: float = 240, **environment: str) -> Result:
        return run_kc(ready_home, *arguments, timeout=timeout, **environment)

    return run


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
