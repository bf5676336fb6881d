"""The command line on a whole KC in memory: real documents, store and operations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.command_line import Result
from support.memory_kc import furnish, make_service, settle, vm_document

from backend.hypervisor.memory import MemoryHypervisor
from backend.local import LocalService
from kc_tui.cli.main import run


class Kept:
    """Runs commands on one store and one host in memory; each opens a service of its own, as a process would."""

    def __init__(self, home: Path, capsys: Any) -> None:
        self.home = home
        self.hypervisor = MemoryHypervisor()
        self.service = make_service(home, self.hypervisor)
        furnish(self.service)
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Result:
        def open_service(_settings: object, *, operate: bool = True) -> LocalService:
            return make_service(self.home, self.hypervisor, operate=operate)

        self._capsys.readouterr()
        code = run(arguments, open_service)
        captured = self._capsys.readouterr()
        return Result(code, captured.out, captured.err)

    def add_vm(self, name: str, **spec: Any) -> dict[str, Any]:
        """Make a VM and return its document once it runs."""
        assert settle(self.service, self.service.create(vm_document(name, **spec)))["status"]["state"] == "succeeded"
        return self.service.get("VM", name)

    def set_memory(self, name: str, mebibytes: int, message: str = "") -> None:
        """Write another version of a VM, as somebody else would."""
        document = self.service.get("VM", name, observe=False)
        spec = {**document["spec"], "parameters": {"memoryMiB": mebibytes}}
        accepted = self.service.update({"kind": "VM", "name": name, "spec": spec}, message=message)
        settle(self.service, accepted)


@pytest.fixture
def kept(tmp_path: Path, capsys: Any, monkeypatch: Any) -> Kept:
    """A KC with machine types, a network and an image, and nobody at a terminal."""
    monkeypatch.setenv("KC_HOME", str(tmp_path))
    monkeypatch.setenv("KC_USER", "ann")
    monkeypatch.setattr("sys.stdin", None)
    return Kept(tmp_path, capsys)
