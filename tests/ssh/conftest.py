"""One sshd for the tests of this folder; who changes its keys or settings puts them back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.console_rig import Rig, console_rig
from support.pty_driver import Terminal


@pytest.fixture(scope="session")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with console_rig(tmp_path_factory.mktemp("ssh") / "rig") as running:
        yield running


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()
