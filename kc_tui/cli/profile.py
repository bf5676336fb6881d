"""`kc profile`: which KCs there are to speak to."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import Any

from backend.errors import DeniedError, RefusedError, UsageError
from backend.paths import find_paths
from backend.profiles import LOCAL, ConfigFile
from backend.text import sanitise
from kc_tui.cli.arguments import Parser
from kc_tui.cli.commands import Command
from kc_tui.cli.output import print_data
from kc_tui.cli.session import Session
from kc_tui.cli.table import Cell, Column, print_table

_COLUMNS = (Column("NAME"), Column("WHERE"), Column("IS USED"))
_ADD_TEXT = """Write a profile into config.toml; what else stands there stays as it is. A server whose certificate the
system cannot verify is shown by its SHA-256, and asked about: it is the one certificate that is trusted from then on.
No credential is written; kc login keeps one."""


def _nothing(_parser: Parser) -> None:
    """It takes none of its own."""


def _list(session: Session, _arguments: Namespace) -> int:
    config = ConfigFile(find_paths())
    names = sorted({LOCAL, *config.profiles})
    items = [{"name": name, **config.profiles.get(name, {}), "isUsed": name == config.chosen} for name in names]
    if session.output in ("json", "yaml"):
        print_data(session, {"items": items})
    elif session.output == "name":
        sys.stdout.write("".join(f"{sanitise(name)}\n" for name in names))
    else:
        print_table(
            _COLUMNS, [(item["name"], _describe(item), Cell("yes", "ok") if item["isUsed"] else "") for item in items]
        )
    return 0


def _describe(item: dict[str, Any]) -> str:
    return str(item.get("url") or item.get("libvirt") or "libvirt of this machine")


def _add_arguments(parser: Parser) -> None:
    parser.add("name", metavar="NAME", help="what it is to be called here")
    parser.add("--url", metavar="URL", help="where kc serve listens: https://HOST[:PORT], or unix:/PATH")
    parser.add("--libvirt", metavar="URI", help="or a libvirt that this KC is to manage, such as qemu+ssh://lab/system")
    parser.add("--ca", metavar="FILE", complete="file", help="certificates to trust instead of the system's, in PEM")
    parser.add("--fingerprint", metavar="SHA256:…", help="trust this one certificate, without asking")
    parser.add("--header", metavar="NAME", help="the header that carries the credential (default: Authorization)")
    parser.add(
        "--insecure", action="store_true", help="allow plain HTTP to another machine: anybody on the way reads it"
    )


def _add(session: Session, arguments: Namespace) -> int:
    if bool(arguments.url) == bool(arguments.libvirt):
        raise UsageError("kc profile add", "it takes --url or --libvirt", "give one of them")
    if arguments.libvirt:
        if arguments.ca or arguments.fingerprint or arguments.header or arguments.insecure:
            raise UsageError("kc profile add", "a libvirt has no certificate and no header here", "leave them out")
        table: dict[str, str | bool] = {"libvirt": arguments.libvirt}
    else:
        table = _describe_remote(session, arguments)
    config = ConfigFile(find_paths())
    config.add(arguments.name, table)
    session.note(f"profile {arguments.name} added; kc --profile {arguments.name} uses it, kc profile use "
                 f"{arguments.name} makes it the usual one")  # fmt: skip
    if "url" in table:
        session.note(f"kc login {arguments.name} keeps a credential for it")
    return 0


def _describe_remote(session: Session, arguments: Namespace) -> dict[str, str | bool]:
    from pathlib import Path  # noqa: PLC0415 - a certificate's file alone

    from backend.remote.address import parse_address  # noqa: PLC0415 - lists look at nothing

    address = parse_address(arguments.url)
    table: dict[str, str | bool] = {"url": arguments.url}
    if not (address.is_secure or address.is_own_machine):
        if not arguments.insecure:
            raise RefusedError(
                f"URL {sanitise(arguments.url, 200)}",
                "plain HTTP would show credentials and consoles to whoever is on the way",
                "use https; or, on a wire that is trusted, add --insecure",
            )
        table["insecure"] = True
    if arguments.header:
        _check_header(arguments.header)
        table["header"] = arguments.header
    if arguments.ca:
        table["ca"] = str(Path(arguments.ca).expanduser().absolute())
    if address.is_secure:
        pinned = _choose_fingerprint(session, arguments, str(table.get("ca", "")))
        table |= {"fingerprint": pinned} if pinned else {}
    elif arguments.fingerprint or arguments.ca:
        raise UsageError("kc profile add", "there is no certificate without https", "leave --ca and --fingerprint out")
    return table


def _check_header(name: str) -> None:
    if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
        raise RefusedError(f"header {sanitise(name, 80)}", "it is no name of a header", "such as Authorization")


def _choose_fingerprint(session: Session, arguments: Namespace, ca: str) -> str:
    """Return the certificate to pin; empty where authorities vouch for it."""
    from backend.remote.address import parse_address  # noqa: PLC0415 - as above
    from backend.remote.tls import look_at, parse_fingerprint  # noqa: PLC0415 - as above

    address = parse_address(arguments.url)
    if arguments.fingerprint:
        # It may be added before the server runs; each connection is held to it.
        return parse_fingerprint(arguments.fingerprint)
    found = look_at(address, ca)
    if not found.doubt:
        return ""
    session.note(f"the certificate of {address.label} cannot be verified: {found.doubt}")
    sys.stderr.write(f"{found.fingerprint}\n")
    if not (sys.stdin and sys.stdin.isatty()):
        raise UsageError(
            f"profile {sanitise(arguments.name, 80)}", "nobody can be asked whether that is the right certificate",
            f"compare it with the server's, then add --fingerprint {found.fingerprint}",
        )  # fmt: skip
    sys.stderr.write("Is this the server's own? Whoever runs it can tell. Trust it from now on [y/N]: ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise DeniedError(
            f"profile {sanitise(arguments.name, 80)}", "the certificate is not trusted", "nothing was added"
        )
    return found.fingerprint


def _add_name(parser: Parser) -> None:
    parser.add("name", metavar="NAME", complete="profile", help="which profile")


def _use(session: Session, arguments: Namespace) -> int:
    ConfigFile(find_paths()).use(arguments.name)
    session.note(f"profile {arguments.name} is used from now on")
    return 0


def _remove(session: Session, arguments: Namespace) -> int:
    from backend.credentials import Credentials  # noqa: PLC0415 - as above

    paths = find_paths()
    config = ConfigFile(paths)
    was_used = config.chosen == arguments.name
    config.remove(arguments.name)
    if Credentials(paths).remove(arguments.name):
        session.note(f"the credential of {arguments.name} is forgotten; a session that it opened goes on to its end")
    session.note(f"profile {arguments.name} removed" + (f"; profile {LOCAL} is used from now on" if was_used else ""))
    return 0


COMMANDS = {
    "list": Command(
        "list the profiles",
        _nothing,
        _list,
        f"List the profiles of config.toml, and {LOCAL}, which is always there.",
        ("kc profile list -o json",),
        finishes=False,
    ),
    "add": Command(
        "add a profile",
        _add_arguments,
        _add,
        _ADD_TEXT,
        (
            "kc profile add lab --url https://lab.example.org:8470",
            "kc profile add rack --libvirt qemu+ssh://rack/system",
        ),
        finishes=False,
    ),
    "use": Command(
        "have a profile used where none is named",
        _add_name,
        _use,
        f"Have a profile used where neither --profile nor KC_PROFILE names one; {LOCAL} goes back to this machine.",
        ("kc profile use lab",),
        finishes=False,
    ),
    "remove": Command(
        "remove a profile",
        _add_name,
        _remove,
        "Take a profile out of config.toml, and forget its credential.",
        ("kc profile remove lab",),
        finishes=False,
    ),
}
