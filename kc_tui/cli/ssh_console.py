"""`kc ssh-console`: an sshd configuration that serves KC and nothing else, and the keys of those whom it serves."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentTypeError, Namespace
from typing import TYPE_CHECKING, Any

from backend.errors import UsageError
from backend.text import sanitise
from kc_tui.cli.arguments import Parser, add_dry_run
from kc_tui.cli.commands import Command
from kc_tui.cli.output import print_data
from kc_tui.cli.session import Session

if TYPE_CHECKING:
    from pathlib import Path

    from backend.auth.ssh_keys import Key, KeyFile

_HOW_TO_LET_IN = '[[auth.chain]] with type = "ssh-keys" in {file} lets their holders in'
_HOW_TO_GRANT = "[[auth.grants]] in {file} say what they may do"


def _parse_user(text: str) -> str:
    from kc_tui.cli.sshd_config import USER_NAME  # noqa: PLC0415 - only the chosen parser needs it

    if not USER_NAME.fullmatch(text):
        message = f"{text!r} is no name of a user"
        raise ArgumentTypeError(message)
    return text


def _add_user(parser: Parser) -> None:
    parser.add(
        "--user", metavar="NAME", default="kc", type=_parse_user, help="the user of the machine that sshd serves KC as"
    )


# --- print


def _add_print_arguments(parser: Parser) -> None:
    _add_user(parser)
    parser.add(
        "--keys-command", metavar="PROGRAM", default="", help="what sshd asks for keys (default: where install puts it)"
    )


def _print(session: Session, arguments: Namespace) -> int:
    from kc_tui.cli.ssh_lines import list_places  # noqa: PLC0415
    from kc_tui.cli.sshd_config import KEYS_PROGRAM, write_config, write_wrapper  # noqa: PLC0415 - for this alone

    program = arguments.keys_command or KEYS_PROGRAM
    config, wrapper = write_config(arguments.user, program), write_wrapper(list_places(os.environ))
    if session.output in ("json", "yaml"):
        print_data(session, {"config": config, "keysCommand": program, "wrapper": wrapper})
        return 0
    sys.stdout.write(config)
    session.note(f"kc ssh-console install writes it, and {program}, which is:")
    if not session.quiet:
        sys.stdout.flush()
        sys.stderr.write("".join(f"    {line}\n" for line in wrapper.splitlines()))
    return 0


# --- install


def _add_install_arguments(parser: Parser) -> None:
    _add_user(parser)
    parser.add("--home", metavar="FOLDER", default="/var/lib/kc", help="where that user's KC is (default: /var/lib/kc)")
    parser.add("--root", metavar="FOLDER", default="/", help="a system that is at another place than /")
    add_dry_run(parser)


def _install(session: Session, arguments: Namespace) -> int:
    from kc_tui.cli.ssh_install import Plan, install  # noqa: PLC0415 - for this alone

    plan = Plan(arguments.user, arguments.home, arguments.root)
    steps = install(plan, dry=arguments.dry_run, report=session.note)
    if session.output in ("json", "yaml"):
        print_data(session, {"dryRun": arguments.dry_run, "steps": steps})
    return 0


# --- keys


def _add_keys_arguments(parser: Parser) -> None:
    parser.add("--add", metavar="FILE|TEXT", default="", complete="file", help="let the holder of this public key in")
    parser.add("--subject", metavar="NAME", default="", help="who that is; the key's comment otherwise")
    parser.add("--group", metavar="NAME", dest="groups", action="append", default=[], help="a group they are in")
    parser.add("--remove", metavar="FINGERPRINT", default="", help="let the holder of this key in no more")


def _keys(session: Session, arguments: Namespace) -> int:
    from backend.auth.ssh_keys import add_key, find_key_file, read_key_file, remove_key, watch_key_file  # noqa: PLC0415

    if arguments.add and arguments.remove:
        raise UsageError("kc ssh-console keys", "--add and --remove exclude each other", "do one after the other")
    if (arguments.subject or arguments.groups) and not arguments.add:
        raise UsageError("kc ssh-console keys", "--subject and --group say whose key --add adds", "add --add FILE")
    settings = session.settings
    path = find_key_file(settings.paths, settings.auth)
    if arguments.add:
        key = _read_key(arguments)
        add_key(path, key)
        session.note(f"{key.fingerprint} is {key.subject}'s from now on")
    elif arguments.remove:
        remove_key(path, arguments.remove)
        session.note(f"{arguments.remove} lets nobody in any more; who is in is out within 30 seconds")
    found = read_key_file(watch_key_file(path))
    _print_keys(session, path, found)
    if found.keys:
        _warn_of_gaps(session)
    return 0


def _warn_of_gaps(session: Session) -> None:
    """Say what the settings still lack before the holder of a key can do anything."""
    auth, file = session.settings.auth, session.settings.paths.config_file
    chain = auth.get("chain")
    if chain and not any(isinstance(entry, dict) and entry.get("type") == "ssh-keys" for entry in chain):
        session.note(f"warning: nobody gets in yet: {_HOW_TO_LET_IN.format(file=file)}")
    if not auth.get("grants"):
        session.note(f"warning: nobody may do anything yet: {_HOW_TO_GRANT.format(file=file)}")


def _read_key(arguments: Namespace) -> Key:
    from backend.auth.ssh_keys import parse_key  # noqa: PLC0415 - for this alone
    from kc_tui.cli.vm_create import read_keys  # noqa: PLC0415

    keys = read_keys(arguments.add)
    if len(keys) != 1:
        raise UsageError("kc ssh-console keys", f"there are {len(keys)} keys in it", "add one at a time")
    return parse_key(keys[0], arguments.subject, arguments.groups)


def _print_keys(session: Session, path: Path, found: KeyFile) -> None:
    if session.output in ("json", "yaml"):
        items = [_describe_key(key) for key in found.keys]
        print_data(session, {"file": str(path), "items": items, "problems": list(found.problems)})
    elif session.output == "name":
        sys.stdout.write("".join(f"{key.fingerprint}\n" for key in found.keys))
    elif found.keys:
        from kc_tui.cli.table import Column, print_table  # noqa: PLC0415 - JSON needs none

        columns = (Column("SUBJECT"), Column("GROUPS"), Column("TYPE"), Column("FINGERPRINT"))
        rows = [(key.subject, ", ".join(key.groups) or "–", key.type, key.fingerprint) for key in found.keys]
        print_table(columns, rows)
    else:
        session.note(f"no keys in {path}; kc ssh-console keys --add FILE --subject NAME adds one")
    for problem in found.problems:
        session.note(f"warning: {sanitise(path, 200)}, {problem}")


def _describe_key(key: Key) -> dict[str, Any]:
    return {"subject": key.subject, "groups": list(key.groups), "type": key.type, "fingerprint": key.fingerprint}


COMMANDS = {
    "install": Command(
        "set sshd up for it",
        _add_install_arguments,
        _install,
        "As root: make the user whom sshd serves KC as, write the part of sshd's configuration for that user alone, "
        "and the program that sshd asks for keys. sshd's own test has to pass first. May be repeated.",
        ("kc ssh-console install --dry-run", "sudo kc ssh-console install"),
        finishes=False,
    ),
    "print": Command(
        "print the sshd configuration",
        _add_print_arguments,
        _print,
        "Print the part of sshd's configuration that serves KC to the holders of known keys and nothing else to them.",
        ("kc ssh-console print > /etc/ssh/sshd_config.d/kc.conf",),
        finishes=False,
    ),
    "keys": Command(
        "list, add and remove the keys of those whom it serves",
        _add_keys_arguments,
        _keys,
        "List the keys that KC knows, each with its subject; add one, or remove one by its fingerprint.",
        (
            "kc ssh-console keys --add ~/.ssh/id_ed25519.pub --subject alice",
            "kc ssh-console keys --remove SHA256:…",
        ),
        finishes=False,
    ),
}
