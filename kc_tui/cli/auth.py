"""`kc auth`: who decides what a request may do, and how a decision comes about."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import Any

from backend.errors import UsageError
from backend.model.actions import list_actions
from backend.model.kinds import KINDS
from backend.text import sanitise
from kc_tui.cli.arguments import Parser
from kc_tui.cli.commands import Command, Noun
from kc_tui.cli.output import print_data
from kc_tui.cli.session import Session
from kc_tui.cli.table import Cell, Column, print_table

_ENTRIES = (Column("NAME"), Column("TYPE"), Column("FROM"), Column("HEALTH"))
_ANSWERS = (Column("AUTHENTICATOR"), Column("TYPE"), Column("ANSWER"), Column("REASON"))
_TONES = {"allow": "ok", "deny": "bad", "challenge": "bad", "error": "bad"}
_LONGEST_CREDENTIAL = 16384
_CHECK_TEXT = """Say what each authenticator answers to a request, what comes of it, and whether the action is
permitted. The credential is the whole value of the header (Bearer kct_…, or Basic …): of KC_AUTH_HEADER, or read
from stdin with --credential -, so that no list of processes shows it. Without one, it is what the own user may over
the unix socket. Against a remote profile its server is asked, which wants auth.check. Exit
code 5 where it is not permitted."""


def _nothing(_parser: Parser) -> None:
    """It takes none of its own."""


def _list(session: Session, _arguments: Namespace) -> int:
    if session.settings.url:
        raise UsageError("kc auth list", "it tells of this machine's own KC", "run it where kc serve runs")
    from kc_tui.cli.auth_local import list_entries  # noqa: PLC0415 - with the authenticators

    entries = list_entries(session)
    if session.output in ("json", "yaml"):
        print_data(session, {"items": entries})
    elif session.output == "name":
        sys.stdout.write("".join(f"{sanitise(entry['name'])}\n" for entry in entries))
    else:
        print_table(_ENTRIES, [_show_entry(entry) for entry in entries])
    return 1 if any(entry["health"] for entry in entries) else 0


def _show_entry(entry: dict[str, str]) -> tuple[Any, ...]:
    origin = f"{entry['distribution']} {entry['version']}".strip()
    return entry["name"], entry["type"], origin, Cell(entry["health"] or "ok", "bad" if entry["health"] else "ok")


def _add_check_arguments(parser: Parser) -> None:
    words = [kind.command for kind in KINDS]
    parser.add(
        "--action", metavar="ACTION", required=True, choices=list_actions(), help="what is to be done: vm.start, say"
    )
    parser.add("object", metavar="OBJECT", nargs="*", help=f"KIND NAME; KIND: {', '.join(words)}")
    parser.add("--vm", metavar="NAME", default="", complete="vm", help="short for: vm NAME")
    parser.add("--credential", metavar="-", default="", choices=["-"], help="read the header's value from stdin")


def _check(session: Session, arguments: Namespace) -> int:
    kind, name = _read_object(arguments)
    credential = session.settings.auth_header
    if arguments.credential:
        credential = sys.stdin.readline(_LONGEST_CREDENTIAL).strip()
    if session.settings.url:
        value = _ask_remote(session, arguments.action, kind, name, credential if arguments.credential else "")
    else:
        from kc_tui.cli.auth_local import explain  # noqa: PLC0415 - with the authenticators

        value = explain(session, arguments.action, kind, name, credential)
    _print_explanation(session, value)
    return 0 if value["permitted"] else 5


def _read_object(arguments: Namespace) -> tuple[str, str]:
    words = ["vm", arguments.vm] if arguments.vm else list(arguments.object)
    if not words:
        return "", ""
    if len(words) != 2 or (arguments.vm and arguments.object):  # noqa: PLR2004 - KIND and NAME
        raise UsageError("usage of kc auth check", "an object is KIND NAME", "see kc auth check --help")
    return words[0], words[1]


def _ask_remote(session: Session, action: str, kind: str, name: str, credential: str) -> dict[str, Any]:
    service: Any = session.service
    body = {"action": action, "kind": kind, "name": name, "credential": credential}
    given = {key: value for key, value in body.items() if value}
    answer: dict[str, Any] = service.transport.call("POST", "/v1/auth/explain", body=given).value
    return answer


def _print_explanation(session: Session, value: dict[str, Any]) -> None:
    if session.output in ("json", "yaml"):
        print_data(session, value)
        return
    if session.output == "name":
        sys.stdout.write("permitted\n" if value["permitted"] else "refused\n")
        return
    answers = value["answers"]
    if answers:
        print_table(
            _ANSWERS,
            [
                (each["name"], each["type"], Cell(each["outcome"], _TONES.get(each["outcome"], "")), each["reason"])
                for each in answers
            ],
        )
        sys.stdout.write("\n")
    groups = f" ({', '.join(value['groups'])})" if value["groups"] else ""
    sys.stdout.write(f"subject   {sanitise(value['subject'] + groups)}\n")
    for scope in value["scopes"]:
        on = f" on {scope['selector']}" if scope["selector"] else ""
        sys.stdout.write(f"may       {sanitise(', '.join(scope['actions']) + on)}\n")
    reason = f": {value['reason']}" if value["reason"] else ""
    sys.stdout.write(f"decision  {sanitise(value['outcome'] + reason)}\n")
    sys.stdout.write(f"permitted {'yes' if value['permitted'] else 'no'}\n")


COMMANDS = {
    "list": Command(
        "the authenticators in their order, where each is from, and whether it answers",
        _nothing,
        _list,
        "List who is asked about a request, in their order. Exit code 1 where one does not answer.",
        ("kc auth list",),
        finishes=False,
    ),
    "check": Command(
        "explain what a credential may do",
        _add_check_arguments,
        _check,
        _CHECK_TEXT,
        (
            "kc auth check --action vm.start --vm web",
            "kc auth check --action network.delete network blue --credential -",
        ),
        finishes=False,
    ),
    "otp": Noun("auth_otp", "one-time codes as a second factor"),
}
