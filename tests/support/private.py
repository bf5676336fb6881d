"""The libvirtd of a test's own, for tests that do not stand beside it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "libvirt"))

from hosts import GREETING, PrivateHost, wait_until

__all__ = ["GREETING", "PrivateHost", "wait_until"]
