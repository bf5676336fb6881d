from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from backend.images.starter import build


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The starter image, built once from the mirror's packages."""
    return build(tmp_path_factory.mktemp("starter") / "starter.raw")


@pytest.fixture(scope="session")
def ssh_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private key; the public one is beside it with `.pub`."""
    key = tmp_path_factory.mktemp("ssh") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True, timeout=20)
    return key
