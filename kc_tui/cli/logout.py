"""`kc logout`: see `kc_tui.cli.login`."""

from __future__ import annotations

from kc_tui.cli.login import LOGOUT

COMMANDS = {"": LOGOUT}
