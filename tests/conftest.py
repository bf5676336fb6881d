"""Fixtures for every level: homes of their own, the `kc` command, and the libvirt that the machine has."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.kc import URI, Kc, Result, run_kc


@pytest.fixture(autouse=True)
def close_services() -> Iterator[None]:
    """Let go of the services that a test made: thousands of tests share one process and its descriptors."""
    yield
    module = sys.modules.get("support.memory_kc")
    if module is not None:
        module.close_services()


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
