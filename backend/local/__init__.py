"""KC in this process: documents in a store, VMs on a libvirt host."""

from __future__ import annotations

from backend.local.opening import open_service
from backend.local.service import LocalService

__all__ = ["LocalService", "open_service"]
