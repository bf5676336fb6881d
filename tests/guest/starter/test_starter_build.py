"""The builder with real packages: small, the same to the byte each time, and no need of root."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import backend

pytestmark = [pytest.mark.guest, pytest.mark.timeout(300)]

NOBODY = 65534
BUILD = "import sys; from pathlib import Path; from backend.images.starter import build; build(Path(sys.argv[1]))"


def run_as_nobody(*command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "PYTHONPATH": str(Path(backend.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture
def folder_of_nobody() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="kc-test-starter-"))
    os.chown(folder, NOBODY, NOBODY)
    yield folder
    shutil.rmtree(folder)


def test_the_image_is_64_mib_and_sparse(image: Path) -> None:
    assert image.stat().st_size == 64 << 20
    assert image.stat().st_blocks * 512 < 40 << 20


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root to become somebody else")
def test_an_ordinary_user_builds_the_very_same_image_and_leaves_nothing_else(
    image: Path, folder_of_nobody: Path
) -> None:
    # The interpreter of a virtual environment may be where only root can go.
    readable = [
        python
        for python in (sys.executable, "/usr/bin/python3")
        if run_as_nobody("/usr/bin/test", "-x", python, folder=folder_of_nobody).returncode == 0
    ]
    if not readable:
        pytest.skip("no Python that an ordinary user can run")
    built = folder_of_nobody / "starter.raw"
    ended = run_as_nobody(readable[0], "-B", "-c", BUILD, str(built), folder=folder_of_nobody)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert hashlib.sha256(built.read_bytes()).digest() == hashlib.sha256(image.read_bytes()).digest()
    assert [path.name for path in folder_of_nobody.iterdir()] == ["starter.raw"]
