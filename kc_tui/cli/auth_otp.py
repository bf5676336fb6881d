"""`kc auth otp`: one-time codes as a second factor, for those who log in to this KC."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from backend.errors import RefusedError, UsageError
from backend.text import sanitise
from kc_tui.cli.arguments import Parser
from kc_tui.cli.commands import Command
from kc_tui.cli.output import print_data
from kc_tui.cli.session import Session
from kc_tui.cli.table import Cell, Column, is_coloured, print_table

if TYPE_CHECKING:
    from backend.auth.enrolment import Enrolments, Invitation

_COLUMNS = (Column("SUBJECT"), Column("STATE"), Column("LAST CODE"), Column("RECOVERY CODES", right=True))
_TRIES = 3
# The secret and the question stand below it.
_MOST_LINES = 22
_GROUP = 4
# Whatever colours a terminal has: the dark modules are the background's.
_DARK_ON_LIGHT = "\x1b[0;97;40m{}\x1b[0m"


@contextmanager
def _open(session: Session) -> Iterator[Enrolments]:
    """Open the enrolments of an embedded KC; raise UsageError for a remote one."""
    settings = session.settings
    if settings.url:
        hint = "run the command where that KC has its store"
        raise UsageError(
            f"profile {sanitise(settings.profile)}", "one-time codes of a remote KC are set up there", hint
        )
    from backend.auth.enrolment import open_enrolments  # noqa: PLC0415 - help needs none

    enrolments, store = open_enrolments(settings)
    try:
        yield enrolments
    finally:
        store.close()


def _add_enrol_arguments(parser: Parser) -> None:
    parser.add("subject", metavar="SUBJECT", help="the name that somebody logs in with")
    parser.add("--code", metavar="CODE", help="put the codes in force that an earlier call began with")


def _enrol(session: Session, arguments: Namespace) -> int:
    with _open(session) as enrolments:
        if arguments.code is not None:
            _tell_recovery(session, arguments.subject, enrolments.activate(arguments.subject, arguments.code.strip()))
            return 0
        invitation = enrolments.begin(arguments.subject)
        _tell_invitation(session, invitation)
        codes = _ask_codes(session, enrolments, arguments.subject) if session.output == "table" else None
        if codes is None:
            session.note(
                f"not in force yet: kc auth otp enrol {arguments.subject} --code CODE, with a code from the app"
            )
        else:
            _tell_recovery(session, arguments.subject, codes)
    return 0


def _tell_invitation(session: Session, invitation: Invitation) -> None:
    value = {"subject": invitation.subject, "active": False, "uri": invitation.uri, "secret": invitation.secret}
    if session.output in ("json", "yaml"):
        print_data(session, value)
    elif session.output == "name":
        sys.stdout.write(f"{invitation.secret}\n")
    else:
        lines = _draw(invitation.uri) if sys.stdout.isatty() else [invitation.uri]
        secret = invitation.secret
        groups = " ".join(secret[start : start + _GROUP] for start in range(0, len(secret), _GROUP))
        sys.stdout.write("".join(f"{line}\n" for line in [*lines, f"secret  {groups}"]))
    sys.stdout.flush()


def _draw(uri: str) -> list[str]:
    """Return the lines of a QR code; a line that says so where it would not fit a terminal of 80 by 24."""
    import io  # noqa: PLC0415 - most commands draw none

    import segno  # noqa: PLC0415 - as above

    code = segno.make(uri, error="l", boost_error=False, micro=False)
    # A reader wants light around the code; little of it is better than a code that scrolls away.
    for border in (2, 1):
        drawn = io.StringIO()
        code.terminal(drawn, compact=True, border=border)
        lines = drawn.getvalue().splitlines()
        if len(lines) <= _MOST_LINES:
            break
    try:
        "\u2580\u2584\u2588".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return ["(this terminal shows no QR code; type the secret into the app)"]
    if len(lines) > _MOST_LINES:
        return ["(the name is too long for a QR code on a terminal; type the secret into the app)"]
    return [_DARK_ON_LIGHT.format(line) for line in lines] if is_coloured(sys.stdout) else lines


def _ask_codes(session: Session, enrolments: Enrolments, subject: str) -> list[str] | None:
    """Ask for a good code, put the enrolment in force and return its recovery codes; None where nobody answers."""
    for attempt in range(_TRIES):
        print("code from the app: ", end="", file=sys.stderr, flush=True)
        answer = sys.stdin.readline() if sys.stdin else ""
        if not (sys.stdin and sys.stdin.isatty()):
            print(file=sys.stderr)
        if not answer.strip():
            return None
        try:
            return enrolments.activate(subject, answer.replace(" ", "").strip())
        except RefusedError as error:
            if attempt == _TRIES - 1:
                raise
            session.note(str(error))
    return None


def _tell_recovery(session: Session, subject: str, codes: list[str]) -> None:
    if session.output in ("json", "yaml"):
        print_data(session, {"subject": subject, "active": True, "recoveryCodes": codes})
        return
    sys.stdout.write("".join(f"{code}\n" for code in codes))
    session.note(
        f"one-time codes of {subject} are in force; each recovery code above works once, and is not shown again"
    )


def _nothing(_parser: Parser) -> None:
    """It takes none of its own."""


def _list(session: Session, _arguments: Namespace) -> int:
    with _open(session) as enrolments:
        found = enrolments.list_all()
    if session.output in ("json", "yaml"):
        items: list[dict[str, Any]] = [
            {
                "subject": each.subject, "active": each.active, "createdAt": each.created_at,
                "usedAt": each.used_at or None, "recoveryCodes": each.recovery_codes,
            }
            for each in found
        ]  # fmt: skip
        print_data(session, {"items": items})
    elif session.output == "name":
        sys.stdout.write("".join(f"{sanitise(each.subject)}\n" for each in found))
    else:
        states = {True: Cell("in force", "ok"), False: Cell("begun", "warn")}
        rows = [(each.subject, states[each.active], each.used_at or "-", str(each.recovery_codes)) for each in found]
        print_table(_COLUMNS, rows)
    return 0


def _add_remove_arguments(parser: Parser) -> None:
    from kc_tui.cli.arguments import add_yes  # noqa: PLC0415 - only the chosen parser is built

    parser.add("subject", metavar="SUBJECT", help="whose codes are to count no more")
    add_yes(parser)


def _remove(session: Session, arguments: Namespace) -> int:
    from kc_tui.cli.changing import ask, require_terminal  # noqa: PLC0415 - lists change nothing

    command = "kc auth otp remove"
    if not arguments.yes:
        require_terminal(command)
        question = f"Remove the one-time codes of {sanitise(arguments.subject)}? type yes:"
        ask(command, question, ("yes",), "nothing was removed")
    with _open(session) as enrolments:
        enrolments.remove(arguments.subject)
    if session.output in ("json", "yaml"):
        print_data(session, {"subject": arguments.subject, "removed": True})
    elif session.output == "name":
        sys.stdout.write(f"{sanitise(arguments.subject)}\n")
    else:
        session.note(f"one-time codes of {arguments.subject} are removed")
    return 0


COMMANDS = {
    "enrol": Command(
        "give somebody one-time codes",
        _add_enrol_arguments,
        _enrol,
        "Make a secret for an authenticator app, show it as a QR code and in base32, and ask for one code from the app "
        "(on standard input), before which it counts for nothing. Then recovery codes are printed, once: each works "
        "one time in the place of a code. With -o json the secret is printed and nothing asked; --code does the rest.",
        ("kc auth otp enrol alice", "kc auth otp enrol alice --code 123456"),
        finishes=False,
    ),
    "list": Command(
        "list who has one-time codes", _nothing, _list, "", ("kc auth otp list",), finishes=False
    ),
    "remove": Command(
        "take somebody's one-time codes away",
        _add_remove_arguments,
        _remove,
        "Remove the secret and the recovery codes of somebody, who may then be given new ones. Where the settings ask "
        "for a code, they cannot log in until then.",
        ("kc auth otp remove alice --yes",),
        finishes=False,
    ),
}  # fmt: skip
