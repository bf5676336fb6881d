"""KC in this process: documents in a store, VMs on a libvirt host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backend.local.opening import open_service

if TYPE_CHECKING:
    from backend.local.service import LocalService

__all__ = ["LocalService", "open_service"]


def __getattr__(name: str) -> object:
    """Return `LocalService`, imported when it is asked for: whoever speaks to a remote KC has no use for it."""
    if name == "LocalService":
        from backend.local.service import LocalService  # noqa: PLC0415 - see above

        return LocalService
    raise AttributeError(name)
