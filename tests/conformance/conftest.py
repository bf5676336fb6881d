"""The hypervisors that the conformance suite holds to one protocol."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hypervisor_rig import Rig, open_rig


@pytest.fixture(params=["memory", pytest.param("libvirt", marks=pytest.mark.libvirt)])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    """Each hypervisor."""
    if request.param == "libvirt":
        request.getfixturevalue("libvirt_uri")
    with open_rig(request.param, tmp_path) as made:
        yield made
