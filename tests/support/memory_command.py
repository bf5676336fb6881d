"""`kc` on a furnished host in memory: memory_command.py ARGUMENTS; a VM's screenshot is a fault that quotes a secret.

The secret is in the file `crash-secret` of KC_HOME.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from backend.hypervisor import host as hosts
from backend.hypervisor.memory import MemoryHypervisor
from backend.local.service import LocalService
from backend.settings import load_settings
from backend.store.opening import open_store
from kc_tui.__main__ import main
from support.memory_kc import furnish


class FaultyHost(MemoryHypervisor):
    """A host whose pictures fail in a way that nobody thought of."""

    def screenshot(self, uid: str) -> NoReturn:
        del uid
        raise ValueError(Path(os.environ["KC_HOME"], "crash-secret").read_text())


if __name__ == "__main__":
    host = FaultyHost()
    settings = load_settings()
    service = LocalService(open_store(settings.store_url), host, settings)
    furnish(service)
    service.close()
    hosts.open_hypervisor = lambda *_: host
    sys.exit(main())
