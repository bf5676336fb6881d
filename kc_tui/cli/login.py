"""`kc login` and `kc logout`: the credential of a remote profile, tried before it is kept."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from typing import TYPE_CHECKING

from backend.errors import DeniedError, KCError, NotFoundError, UsageError
from backend.service import Access
from backend.text import sanitise
from kc_tui.cli.arguments import Parser
from kc_tui.cli.commands import Command
from kc_tui.cli.output import print_data
from kc_tui.cli.session import Session

if TYPE_CHECKING:
    from backend.remote.options import RemoteOptions

_TEXT = """Keep the credential for a remote profile in the system's keyring, once the server has taken it. A secret is
asked for on the terminal or read from standard input, never given as an option, where others could see it: a token; or,
with --user, a password, changed for a session's token at once where --otp or --session is given. KC_AUTH_HEADER, where
it is set, is kept as it is."""
_LOGOUT_TEXT = "Forget the credential of a remote profile; a session that it opened is ended on the server, too."


def _add_arguments(parser: Parser) -> None:
    parser.add("profile_name", metavar="PROFILE", complete="profile", help="which remote profile")
    parser.add("--user", metavar="NAME", help="who, with a password; without it a token is asked for")
    parser.add("--otp", action="store_true", help="ask for a one-time code besides, and keep a session")
    parser.add("--session", action="store_true", help="keep a session of some hours instead of the secret itself")
    parser.add("--stdin", action="store_true", help="read the secret from standard input, a code from its second line")
    parser.add("--file", action="store_true", help="keep it in a file that only you can read, not in a keyring")


def _login(session: Session, arguments: Namespace) -> int:
    from backend.credentials import Credentials  # noqa: PLC0415 - help needs none
    from backend.remote.sessions import look_at_session, open_session  # noqa: PLC0415 - as above

    options = _find_remote(arguments.profile_name)
    if arguments.otp and not arguments.user:
        raise UsageError("kc login", "a one-time code comes with a password", "add --user NAME")
    value = _read_credential(arguments)
    credentials = Credentials(session.settings.paths)
    if not arguments.file:
        # A one-time code is not to be spent before it is known that what it buys can be kept.
        credentials.check_keyring(arguments.profile_name)
    if arguments.otp or arguments.session:
        value = open_session(options, value).value
    access = look_at_session(options, value)
    place = credentials.keep(arguments.profile_name, options.address.origin, value, in_file=arguments.file)
    _print_access(session, access, place)
    return 0


def _find_remote(name: str) -> RemoteOptions:
    """Return what is known of a remote profile; raise UsageError for one of this machine."""
    from backend.local.opening import describe_remote  # noqa: PLC0415 - as above
    from backend.settings import load_settings  # noqa: PLC0415 - as above

    # What the environment says is for other commands: here it is the profile that is spoken of.
    environment = {key: value for key, value in os.environ.items() if key != "KC_URL"}
    settings = load_settings(name, environment)
    if not settings.url:
        raise UsageError(f"profile {name}", "it is of this machine, and asks for no credential", "see kc profile list")
    return describe_remote(settings)


def _read_credential(arguments: Namespace) -> str:
    from backend.remote.sessions import make_basic, make_bearer  # noqa: PLC0415 - as above

    given = os.environ.get("KC_AUTH_HEADER", "")
    if given:
        return given
    if not arguments.user:
        return make_bearer(_ask(arguments, "token"))
    password = _ask(arguments, f"password of {sanitise(arguments.user, 80)}")
    # A second factor stands behind the password, as the authenticator for both takes it.
    code = _ask(arguments, "one-time code") if arguments.otp else ""
    return make_basic(arguments.user, password + code)


def _ask(arguments: Namespace, what: str) -> str:
    """Return a secret that somebody types, or that stands on the next line of standard input."""
    if arguments.stdin:
        secret = sys.stdin.readline().rstrip("\r\n") if sys.stdin else ""
    elif sys.stdin and sys.stdin.isatty():
        from getpass import getpass  # noqa: PLC0415 - as above

        secret = getpass(f"{what}: ", stream=sys.stderr)
    else:
        raise UsageError("kc login", f"nobody can be asked for the {what}", "--stdin reads it, or set KC_AUTH_HEADER")
    if not secret:
        raise UsageError("kc login", f"no {what} was given", "nothing was kept")
    return secret


def _print_access(session: Session, access: Access, place: str) -> None:
    scopes = [{"actions": list(actions), "selector": selector} for actions, selector in access.scopes]
    if session.output in ("json", "yaml"):
        value = {"subject": access.subject, "groups": list(access.groups), "scopes": scopes}
        print_data(session, {**value, "expiresAt": access.expires_at or None, "keptIn": place})
        return
    if session.output == "name":
        sys.stdout.write(f"{sanitise(access.subject)}\n")
        return
    lines = [("subject", access.subject), ("groups", ", ".join(access.groups) or "none")]
    for actions, selector in access.scopes:
        lines.append(("may", ", ".join(actions) + (f" where {selector}" if selector else "")))
    lines += [("until", access.expires_at or "it is taken away"), ("kept in", place)]
    sys.stdout.write("".join(f"{label:<8}  {sanitise(text)}\n" for label, text in lines))


def _add_logout_arguments(parser: Parser) -> None:
    parser.add("profile_name", metavar="PROFILE", complete="profile", help="which remote profile")


def _logout(session: Session, arguments: Namespace) -> int:
    from backend.credentials import Credentials  # noqa: PLC0415 - as above
    from backend.remote.sessions import SESSION_PREFIX, end_session  # noqa: PLC0415 - as above

    name: str = arguments.profile_name
    options = _find_remote(name)
    credentials = Credentials(session.settings.paths)
    try:
        value = credentials.find(name, options.address.origin)
    except KCError as error:
        session.note(f"warning: {error}")
        value = ""
    if value.startswith(SESSION_PREFIX):
        try:
            end_session(options, value)
        except DeniedError:
            session.note("the session had ended already")
        except KCError as error:
            # It is forgotten here all the same: that is what was asked for first.
            session.note(f"warning: the session goes on to its end on the server: {error}")
    if not credentials.remove(name):
        raise NotFoundError(f"credential of {sanitise(name, 80)}", "none is kept", f"kc login {sanitise(name, 80)}")
    session.note(f"logged out of {name}")
    return 0


LOGIN = Command(
    "keep a credential for a remote profile",
    _add_arguments,
    _login,
    _TEXT,
    ("kc login lab", "kc login lab --user alice --otp"),
    finishes=False,
)
LOGOUT = Command(
    "forget the credential of a remote profile", _add_logout_arguments, _logout, _LOGOUT_TEXT, ("kc logout lab",),
    finishes=False,
)  # fmt: skip
COMMANDS = {"": LOGIN}
