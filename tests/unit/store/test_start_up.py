"""Start-up is a budget: what listing may import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from conformance.test_store import make

from backend.store.opening import open_store

HEAVY = ("tinydb", "msgspec", "pydantic", "asyncio", "jsonschema", "httpx", "uuid", "libvirt")


def test_listing_imports_nothing_heavy(tmp_path: Path):
    url = f"tinydb:{tmp_path}/kc.db"
    store = open_store(url)
    with store.transaction() as transaction:
        for number in range(200):
            transaction.put(make(f"vm-{number}"))
    store.close()
    program = f"""
import sys
from backend.model.selectors import parse
from backend.store.opening import open_store
store = open_store({url!r}, create=False)
assert len(store.list_documents("VM").items) == 200
assert len(store.list_documents("VM", where=parse("tenant=acme"), limit=50).items) == 50
assert store.find("VM", "vm-1") and store.changes(150)
store.close()
print([name for name in {HEAVY!r} if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout == "[]\n"
