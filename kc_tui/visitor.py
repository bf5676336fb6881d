"""Somebody who uses KC on a machine without being a user of it, as over SSH.

A visitor has KC's documents, as far as they are allowed, and nothing of the machine: no files, no programs, no ports.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backend.service import Service
    from kc_tui.idleness import Idleness


@dataclass(frozen=True, slots=True)
class Visitor:
    """Who it is; `open_service` opens what is held to their rights, `idleness` says when they have been away too long.

    `idle_seconds` is that time; 0 is for ever.
    """

    subject: str
    open_service: Callable[[], Service]
    idleness: Idleness

    def find_folder(self, data: Path) -> Path:
        """Return the folder below KC's data where what this visitor leaves is kept: drafts, choices, a log."""
        # A digest, for a subject is any text.
        return data / "visitors" / hashlib.sha256(self.subject.encode()).hexdigest()[:32]
