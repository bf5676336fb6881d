"""The command line as a program on one VM in memory, whose screen says who it is and echoes: screen_program.py ARG…"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from support.memory_service import MemoryService

from kc_tui.cli.main import run

PROGRAM = [sys.executable, str(Path(__file__))]

if __name__ == "__main__":
    service = MemoryService()
    service.add_vm("web")
    code = run(sys.argv[1:], lambda _settings, operate=True: service)
    Path(os.environ["KC_TEST_CALLS"]).write_text("\n".join(str(call) for call in service.calls))
    sys.exit(code)
