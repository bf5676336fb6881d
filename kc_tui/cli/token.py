"""`kc token`: what programs and other people show a service instead of a password, and what it lets them do."""

from __future__ import annotations

from argparse import Namespace

from backend.model.kinds import TOKEN
from kc_tui.cli.arguments import Parser
from kc_tui.cli.commands import Command, late_command
from kc_tui.cli.session import Session
from kc_tui.cli.verbs import kept_commands, list_command, show_command

_CREATE_TEXT = """Make a token, and print its secret alone on stdout: this once, for KC keeps nothing that makes it
again. It goes into a request as `Authorization: Bearer TOKEN`. A limited one may do what --allow and --scope say, on
what their selectors match: an ACTION is KIND.VERB such as vm.start, KIND.* for all of a kind, or * for everything;
whoever may do anything to an object may read it. With -o json: the document, with the secret as token."""

_ATTENUATE_TEXT = """Narrow a token, and print the narrower one: offline, with no service asked, as often as one likes.
What it may do is what the old one may and what is said here. Nobody can make it wider again; it ends with the token
that it was made of. TOKEN - is read from stdin, so that no list of processes shows it."""

_INSPECT_TEXT = """Say what can be told of a token without asking a service: its type, its document's uid, what narrows
it. What its document allows, and whether it is genuine, a service knows. TOKEN - is read from stdin."""


def _delete_command() -> Command:
    def add_arguments(parser: Parser) -> None:
        from kc_tui.cli.deleting import add_arguments as add  # noqa: PLC0415 - only the chosen parser is built

        add(parser, TOKEN)

    def run(session: Session, arguments: Namespace) -> int:
        from kc_tui.cli.deleting import delete  # noqa: PLC0415 - lists delete nothing

        return delete(session, TOKEN, arguments)

    return Command(
        "revoke tokens, and end sessions",
        add_arguments,
        run,
        "Delete tokens: from then on they are worth nothing, nor is what was made of them, and nothing brings them "
        "back. It asks first; without a terminal it needs --yes.",
        ("kc token delete ci --yes", "kc token delete -l tenant=acme"),
    )


COMMANDS = {
    "create": late_command(
        "token_create",
        "make a token, and print its secret once",
        _CREATE_TEXT,
        (
            "kc token create ci --allow vm.start,vm.stop -l tenant=acme --expires 30d",
            "kc token create web --scope 'vm.*: tenant=acme' --scope 'image.read,network.read'",
            "kc token create root --god --expires 1d",
        ),
    ),
    "list": list_command(TOKEN, "kc token create NAME --allow ACTION,…"),
    "show": show_command(TOKEN),
    "attenuate": late_command(
        "token_attenuate",
        "narrow a token, offline",
        _ATTENUATE_TEXT,
        (
            "kc token attenuate - --allow vm.read -l name=web --expires 10m < token",
            "kc token attenuate - --read-only --client 192.0.2.0/24 < token",
        ),
        finishes=False,
    ),
    "inspect": late_command(
        "token_inspect", "say what a token says of itself, offline", _INSPECT_TEXT, ("kc token inspect - < token",),
        finishes=False,
    ),
    **{verb: command for verb, command in kept_commands(TOKEN).items() if verb in ("history", "diff", "set", "edit")},
    "delete": _delete_command(),
}  # fmt: skip
