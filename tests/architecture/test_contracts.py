"""Imports go one way, and each outside library has one importer."""

import subprocess
import sys
from pathlib import Path

import pytest
from sources import ROOT, sources

# Library -> the only folder that may import it.
SOLE_IMPORTERS = {
    "libvirt": "backend/hypervisor/",
    "libvirt_qemu": "backend/hypervisor/",
    "tinydb": "backend/store/",
    "sqlite3": "backend/store/",
    "oslo_utils": "backend/images/",
    "pycdlib": "backend/images/",
    "textual": "kc_tui/",
    "rich": "kc_tui/",
    "fastapi": "backend/api/",
}
# What a pure module has no use for.
INPUT_AND_OUTPUT = ("os", "pathlib", "socket", "subprocess", "sqlite3", "shutil", "tempfile", "threading", "asyncio")


def test_import_linter_keeps_every_contract() -> None:
    linter = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("library", SOLE_IMPORTERS)
def test_a_library_is_imported_in_its_own_folder_alone(library: str) -> None:
    home = SOLE_IMPORTERS[library]
    others = [source.name for source in sources() if source.imports_any(library) and not source.name.startswith(home)]
    assert others == []


def test_the_screens_reach_the_backend_through_its_front_doors_alone() -> None:
    doors = ("backend.__version__", "backend.service", "backend.model", "backend.errors", "backend.text")
    # A service has to be opened, and with the settings, before there is a protocol to speak.
    doors += ("backend.local.open_service", "backend.settings", "backend.paths")
    # So have profiles and their credentials, and what is known of a KC elsewhere.
    doors += ("backend.profiles", "backend.credentials", "backend.remote", "backend.local.opening")
    # Who serves others asks who they are, and acts in their name.
    doors += ("backend.auth", "backend.actor", "backend.api")
    past_them = {
        f"{source.name}: {name}"
        for source in sources()
        if source.name.startswith("kc_tui/")
        for name in source.imports_any("backend") - {"backend", "backend.local"}
        if not f"{name}.".startswith(tuple(f"{door}." for door in doors))
    }
    assert past_them == set()


@pytest.mark.parametrize("folder", ["backend/model/", "kc_tui/state/", "kc_tui/terminal/"])
def test_a_pure_folder_does_no_input_or_output(folder: str) -> None:
    impure = {
        f"{source.name}: {name}"
        for source in sources()
        if source.name.startswith(folder)
        for name in source.imports_any(*INPUT_AND_OUTPUT)
    }
    assert impure == set()
