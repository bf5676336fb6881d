"""KC as sshd starts it, on a host in memory: each session has a lab with one VM to itself."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kc_tui.__main__ import _open_application
from kc_tui.cli import ssh_lines
from kc_tui.cli.main import run
from support.world import Lab


def main() -> int:
    """Run KC."""
    ssh_lines.PROGRAM[:] = [sys.executable, "-I", str(Path(__file__).resolve())]
    with tempfile.TemporaryDirectory() as folder:

        def open_lab(_settings: object, *, operate: bool = True) -> object:
            lab = Lab(Path(folder))
            lab.add_vm("web-1", metadata={"tenant": "acme"})
            return lab.service

        return run(sys.argv[1:], open_lab, _open_application)


if __name__ == "__main__":
    sys.exit(main())
