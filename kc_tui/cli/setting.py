"""`kc KIND set`: values by their paths, metadata, and a VM's machine type."""

from __future__ import annotations

import copy
import re
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from backend.errors import RefusedError, UsageError
from backend.model.changes import format_path, parse_path, remove_path, set_path
from backend.model.documents import Document
from backend.model.kinds import MACHINE_TYPE, VM, Kind
from backend.text import sanitise
from kc_tui.cli.arguments import Parser, add_idempotency_key, add_metadata, add_selector, parse_value
from kc_tui.cli.changing import Edit, add_change_arguments, change_all
from kc_tui.cli.session import Session
from kc_tui.cli.verbs import Verb, choose_names, select

_ASSIGNMENT = re.compile(r'((?:[^"=]|"(?:[^"\\]|\\.)*")+)=(.*)', re.DOTALL)
_HARDWARE = ("cpus", "memoryMiB", "diskGiB")
_ROOTS = ("metadata", "spec")


def _add_arguments(parser: Parser, kind: Kind) -> None:
    parser.add("name", metavar="NAME", nargs="?", complete=kind.command, help=f"which {kind.title}")
    parser.add(
        "assignments", metavar="PATH=JSON", nargs="*", complete=f"{kind.command}:assignments",
        help="a path below spec or metadata, and its new value; positions in lists are numbers",
    )  # fmt: skip
    add_metadata(parser)
    parser.add(
        "--unset", metavar="PATH", action="append", default=[], complete=f"{kind.command}:paths",
        help="take away what is at a path; may be repeated",
    )  # fmt: skip
    if kind is VM:
        parser.add(
            "--type", metavar="T", dest="machine_type", default="", complete="type",
            help="move it to the newest version of a machine type, be it the one that it has",
        )  # fmt: skip
    add_selector(parser)
    add_change_arguments(parser, kind)
    add_idempotency_key(parser)


def _set(session: Session, kind: Kind, arguments: Namespace) -> int:
    words = [*([] if arguments.name is None else [arguments.name]), *arguments.assignments]
    if arguments.selector is None and words and "=" in words[0]:
        raise UsageError(f"kc {kind.command} set", "give a name, or -l SELECTOR", f"see kc {kind.command} set --help")
    names = choose_names(kind, words[:1] if arguments.selector is None else [], arguments.selector)
    edit = _read_edit(session, kind, words[len(names) :], arguments)
    names = names or [document["name"] for document in select(session, kind, arguments.selector)]
    return change_all(session, kind, names, edit, arguments, several=arguments.selector is not None)


def _read_edit(session: Session, kind: Kind, words: Sequence[str], arguments: Namespace) -> Edit:
    """Return the change that a command line asks for; raise UsageError, RefusedError."""
    given = [_split(kind, word) for word in words]
    # A key of the customer's own may hold what a path would take for a sign.
    given += [(("metadata", *path), value) for path, value in arguments.meta]
    unset = [_check_path(kind, text) for text in arguments.unset]
    for path in unset:
        if len(path) == 1:
            raise RefusedError(path[0], "it cannot be taken away", f"name what is in it, or set {path[0]}={{}}")
    machine_type = getattr(arguments, "machine_type", "")
    if not given and not unset and not machine_type:
        command = f"kc {kind.command} set"
        raise UsageError(command, "there is nothing to set", f"give PATH=JSON, --meta or --unset; see {command} --help")
    if machine_type:
        newest = session.service.get(MACHINE_TYPE.name, machine_type, observe=False)
        # With its version: a VM keeps to the version that it has of a type that is only named.
        given.append((("spec", "type"), {key: newest[key] for key in ("name", "uid", "version")}))
    # From the end of each list, so that every position still is what it says.
    unset.sort(key=lambda path: [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in path])

    def edit(document: Document) -> None:
        for path in reversed(unset):
            if has_path(document, path):
                remove_path(document, path)
        for path, value in given:
            set_path(document, path, copy.deepcopy(value))

    return edit


def has_path(document: Document, path: Sequence[str]) -> bool:
    """Return whether there is something at a path."""
    value: Any = document
    for part in path:
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return False
    return True


def _split(kind: Kind, word: str) -> tuple[tuple[str, ...], Any]:
    match = _ASSIGNMENT.fullmatch(word)
    if match is None:
        example = f"kc {kind.command} set NAME metadata.tenant=acme"
        raise UsageError(f"kc {kind.command} set", f"{sanitise(word, 80)!r} is not PATH=JSON", f"such as {example}")
    return _check_path(kind, match[1]), parse_value(match[2])


def _check_path(kind: Kind, text: str) -> tuple[str, ...]:
    """Return the parts of a path into what the customer writes; raise RefusedError for any other."""
    path = parse_path(text)
    if path[0] in _ROOTS:
        return path
    what = f"path {sanitise(text, 80)!r}"
    if path[0] == "status":
        raise RefusedError(what, "status is observed, nobody writes it", "say in spec what is wanted")
    if path[0] in ("name", "uid", "version", "kind", "apiVersion", "createdAt", "updatedAt", "updatedBy", "message"):
        raise RefusedError(what, f"{path[0]} is KC's own", "only metadata and spec can be written")
    raise RefusedError(what, "it begins with neither spec nor metadata", f"did you mean {_guess_path(kind, path)}?")


def _guess_path(kind: Kind, path: tuple[str, ...]) -> str:
    from backend.model.schemas import document_schema  # noqa: PLC0415 - pydantic, for a mistake

    if path[0] in document_schema(kind)["properties"]["spec"]["properties"]:
        return f"spec.{format_path(path)}"
    if path[0] in _HARDWARE and kind in (VM, MACHINE_TYPE):
        return f"spec.{'parameters' if kind is VM else 'hardware'}.{format_path(path)}"
    return f"metadata.{format_path(path)}"


VERBS = {"set": Verb(_add_arguments, _set)}
