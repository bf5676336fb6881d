"""`kc doctor`: what works here, what does not, and the command that mends it."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence

from backend.service import Finding
from backend.text import sanitise
from kc_tui.cli.arguments import Parser
from kc_tui.cli.commands import Command
from kc_tui.cli.output import print_data
from kc_tui.cli.session import Session
from kc_tui.cli.table import colour, is_coloured

_TONES = {"ok": "ok", "warning": "warn", "failed": "bad"}


def _add_arguments(_parser: Parser) -> None:
    """It takes none of its own."""


def _diagnose(session: Session, _arguments: Namespace) -> int:
    findings = session.service.diagnose()
    if session.output in ("json", "yaml"):
        print_data(session, {"items": [finding._asdict() for finding in findings]})
    elif session.output == "name":
        sys.stdout.write("".join(f"{finding.check}\n" for finding in findings if finding.state != "ok"))
    else:
        _print_findings(findings)
    return 1 if any(finding.state == "failed" for finding in findings) else 0


def _print_findings(findings: Sequence[Finding]) -> None:
    """Print each finding on a line, never cut: the command that mends it stands whole on a line of its own."""
    width = max((len(finding.check) for finding in findings), default=0)
    coloured = is_coloured(sys.stdout)
    for finding in findings:
        state = colour(f"{sanitise(finding.state):<7}", _TONES.get(finding.state, "") if coloured else "")
        print(f"{state}  {sanitise(finding.check):<{width}}  {sanitise(finding.message)}")
        if finding.mend:
            print(f"{'':<7}  {'':<{width}}  mend: {sanitise(finding.mend)}")


COMMANDS = {
    "": Command(
        "say what works here, what does not, and what mends it",
        _add_arguments,
        _diagnose,
        "Look at the store, libvirt, KVM, networks and images, change nothing, and name the command that mends what "
        "does not work. Exit code 1 where something failed.",
        ("kc doctor", "kc doctor -o json"),
        finishes=False,
    )
}
