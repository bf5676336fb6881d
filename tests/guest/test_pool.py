"""The storage pool: one that is full says so, and nothing is left in it."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.kc import Kc, pool_volumes, virsh

pytestmark = [pytest.mark.libvirt]


@pytest.fixture
def small_pool(libvirt_uri: str, tmp_path: Path) -> Iterator[str]:
    """A pool with room for 8 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root mounts a small file system")
    name = f"kc-small-{uuid.uuid4().hex[:6]}"
    folder = tmp_path / "pool"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], check=True, timeout=30)
    try:
        virsh("pool-define-as", name, "dir", "--target", str(folder))
        yield name
        virsh("pool-destroy", name)
        virsh("pool-undefine", name)
    finally:
        subprocess.run(["umount", str(folder)], check=True, timeout=30)


def test_no_room_is_said_and_leaves_nothing(kc: Kc, small_pool: str, tmp_path: Path) -> None:
    image = tmp_path / "disk.raw"
    with image.open("wb") as file:
        file.write(os.urandom(510) + b"\x55\xaa")
        file.write(os.urandom((32 << 20) - 512))
    done = kc("image", "upload", str(image), "--name", "large", "--format", "raw", KC_POOL=small_pool)
    assert done.status == 1
    assert "no room" in done.stderr.splitlines()[-1]
    assert small_pool in done.stderr or "pool" in done.stderr
    assert pool_volumes("", small_pool) == []
    assert kc("image", "list", "-o", "json").json()["items"] == []
