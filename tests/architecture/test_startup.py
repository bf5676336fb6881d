"""Starting is a budget: no command imports what it does not need."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from backend.store.opening import open_store

HEAVY = {
    "asyncio", "textual", "rich", "pydantic", "pydantic_core", "httpx", "jsonschema", "keyring", "oslo_utils",
    "pycdlib", "yaml", "fastapi", "uvicorn", "cryptography", "email",
}  # fmt: skip


def imported_by(home: Path, *command: str) -> set[str]:
    """Return the modules that a `kc` command imports, or tries to, in a home of its own on libvirt's test driver."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "kc_tui", *command],
        env={**os.environ, "KC_HOME": str(home), "KC_LIBVIRT_URI": "test:///default"},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
    )  # fmt: skip
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


def test_the_version_is_told_before_anything_is_imported(tmp_path: Path) -> None:
    modules = imported_by(tmp_path, "--version")
    assert {name for name in modules if name.startswith(("kc_tui", "backend"))} <= {
        "kc_tui",
        "kc_tui.__main__",
        "backend",
    }
    assert modules.isdisjoint({"argparse", "json", "pathlib", "libvirt", *HEAVY})


@pytest.mark.parametrize(
    "command",
    [
        "--help",
        "vm --help",
        "vm list",
        "vm list -o json",
        "vm list -l tenant=acme",
        "vm show web",
        "image list",
        "network list",
        "type list",
        "op list -o json",
    ],
)
def test_a_command_that_only_reads_imports_nothing_heavy(tmp_path: Path, command: str) -> None:
    modules = imported_by(tmp_path, *command.split())
    assert "kc_tui.cli.main" in modules
    assert {name.partition(".")[0] for name in modules} & HEAVY == set()


@pytest.mark.parametrize(
    ("until", "is_over"), [("2999-01-01T00:00:00.000Z", False), ("2001-01-01T00:00:00.000Z", True)]
)
def test_a_full_trash_costs_a_list_nothing_until_something_in_it_is_over(
    tmp_path: Path, until: str, is_over: bool
) -> None:
    store = open_store(f"tinydb:{tmp_path}/data/kc.db")
    target = {"kind": "MachineType", "name": "old", "uid": str(uuid.uuid4()), "version": 1}
    with store.transaction() as transaction:
        transaction.put({
            "apiVersion": "kc/v1", "kind": "Trash", "name": "type-old-1234", "uid": str(uuid.uuid4()), "metadata": {},
            "spec": {"target": target, "document": {}, "until": until}, "createdAt": until, "updatedAt": until,
            "updatedBy": "test",
        })  # fmt: skip
    store.close()
    modules = imported_by(tmp_path, "type", "list")
    assert ("pydantic" in modules) is is_over


@pytest.mark.parametrize("module", ["kc_tui.__main__", "kc_tui.cli.main", "backend.service", "backend.local.opening"])
def test_a_module_on_the_way_of_every_command_imports_nothing_heavy(module: str) -> None:
    script = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert set(done.stdout.split()) & (HEAVY | {"libvirt", "sqlite3"}) == set()
