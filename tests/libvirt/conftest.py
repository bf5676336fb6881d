"""A libvirt host of a test's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts import PrivateHost

from backend.hypervisor.host import open_hypervisor
from backend.hypervisor.protocol import Hypervisor


@pytest.fixture(scope="module")
def private_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateHost]:
    """A host of the module's own."""
    if os.geteuid() != 0:
        pytest.skip("namespaces of its own need root")
    host = PrivateHost(tmp_path_factory.mktemp("h"))
    yield host
    host.close()


@pytest.fixture
def hypervisor(private_host: PrivateHost, tmp_path: Path) -> Iterator[Hypervisor]:
    """KC's driver on the private host."""
    made = open_hypervisor(private_host.uri, "kc", tmp_path)
    made.ensure_pool()
    yield made
    made.close()
