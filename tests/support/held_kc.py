"""`python held_kc.py HOLD …`: kc, whose operations stand still before a step for as long as HOLD exists.

`HOLD.reached` is there once one does. Whoever goes on with an operation later is a plain kc. It serves HTTP, and SSH
where sshd has it instead of kc.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import backend.api.server
import kc_tui.app
from backend.local.opening import open_service
from kc_tui.cli import ssh_lines
from kc_tui.cli.main import run


def main() -> int:
    """Run kc."""
    hold = Path(sys.argv[1])
    ssh_lines.PROGRAM[:] = [sys.executable, "-I", str(Path(__file__).resolve()), str(hold)]

    def stand_still(point: str, _step: str) -> None:
        if point != "begun" or not hold.exists():
            return
        hold.with_suffix(".reached").touch()
        while hold.exists():
            time.sleep(0.02)

    def open_held(settings: Any, *, operate: bool = True) -> Any:
        service: Any = open_service(settings, operate=operate)
        service.runner.trace = stand_still
        return service

    setattr(backend.api.server, "open_service", open_held)  # noqa: B010 - it has the name from elsewhere
    return run(sys.argv[2:], open_held, kc_tui.app.run)


if __name__ == "__main__":
    sys.exit(main())
