"""The `kc` command."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backend.settings import Settings
    from kc_tui.visitor import Visitor


def main() -> int:
    """Run `kc` with the process's arguments and return its exit code."""
    arguments = sys.argv[1:]
    if arguments == ["--version"]:
        # Answered before anything else is imported: scripts ask for it all the time.
        from backend import __version__  # noqa: PLC0415

        sys.stdout.write(f"kc {__version__}\n")
        return 0
    from kc_tui.cli.main import run  # noqa: PLC0415 - as above
    from kc_tui.cli.reporting import report_internal_error  # noqa: PLC0415 - as above

    # A bug ends here and nowhere earlier: no command catches what it does not expect.
    sys.excepthook = report_internal_error
    return run(arguments, open_application=_open_application)


def _open_application(settings: Settings, visitor: Visitor | None = None) -> int:
    from kc_tui.app import run  # noqa: PLC0415 - Textual takes 0.24 s and only the application needs it

    return run(settings, visitor)


if __name__ == "__main__":
    sys.exit(main())
