"""What is true of the service is true in each of its homes."""

from __future__ import annotations

import pytest
from support.homes import HOMES


@pytest.fixture(params=HOMES)
def place(request: pytest.FixtureRequest) -> str:
    """Which home a test speaks to; `support.homes.ONLY_LOCAL` marks one that looks inside."""
    home: str = request.param
    return home
