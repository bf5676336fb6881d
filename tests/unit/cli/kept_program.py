"""The command line as a program on the store of KC_HOME and an empty host in memory: kept_program.py ARGUMENTS…"""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from support.memory_kc import make_service

from kc_tui.cli.main import run

if __name__ == "__main__":
    home = Path(os.environ["KC_HOME"])
    sys.exit(run(sys.argv[1:], lambda _settings, operate=True: make_service(home, operate=operate)))
