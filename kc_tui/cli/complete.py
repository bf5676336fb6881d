"""`kc __complete`: the names of a kind, or what one of its objects has, one a line; fast, and silent on any error."""

from __future__ import annotations

import re
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from typing import Any

from backend.errors import KCError
from backend.model.documents import Document
from backend.model.kinds import TRASH, Kind, find_kind
from backend.service import Service
from kc_tui.cli.arguments import Parser
from kc_tui.cli.commands import Command
from kc_tui.cli.session import Session

MAXIMUM_NAMES = 1000
# Names of KC's objects are DNS labels; nothing else may reach a shell that pastes it into a command line.
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*=?")


def _add_arguments(parser: Parser) -> None:
    parser.add("what", metavar="KIND|KIND:PART")
    parser.add("given", metavar="WORD", nargs="*")


def _complete(session: Session, arguments: Namespace) -> int:
    word, _, part = arguments.what.partition(":")
    try:
        if word == "profile":
            names = ["local", *session.settings.profiles]
        elif part:
            names = _PARTS[part](session.service, find_kind(word), arguments.given)
        else:
            page = session.service.list_documents(word, limit=MAXIMUM_NAMES, everything=True, observe=False)
            names = [document["name"] for document in page.items]
    except KCError:
        return 0
    sys.stdout.write("".join(f"{name}\n" for name in dict.fromkeys(names) if _PLAIN.fullmatch(name)))
    return 0


def _list_versions(service: Service, kind: Kind, given: list[str]) -> list[str]:
    return [str(entry.version) for entry in reversed(service.history(kind.name, _named(given)))]


def _list_paths(service: Service, kind: Kind, given: list[str]) -> list[str]:
    from backend.model.changes import format_path  # noqa: PLC0415 - names need none

    document = service.get(kind.name, _named(given), observe=False)
    return [format_path(path) for root in ("spec", "metadata") for path in _walk(document[root], (root,))]


def _list_assignments(service: Service, kind: Kind, given: list[str]) -> list[str]:
    return [f"{path}=" for path in _list_paths(service, kind, given)]


def _list_deleted(service: Service, kind: Kind, _given: list[str]) -> list[str]:
    items = service.list_documents(TRASH.name, limit=MAXIMUM_NAMES).items
    targets = [document["spec"]["target"] for document in items if not document["spec"].get("disk")]
    return [target["name"] for target in targets if target["kind"] == kind.name]


def _list_nics(service: Service, kind: Kind, given: list[str]) -> list[str]:
    document: Document = service.get(kind.name, _named(given), observe=False)
    return [nic["id"] for nic in document["spec"].get("nics", [])]


def _list_disks(service: Service, kind: Kind, given: list[str]) -> list[str]:
    spec = service.get(kind.name, _named(given), observe=False)["spec"]
    return [*([] if spec.get("adopted") else ["root"]), *(disk["id"] for disk in spec.get("disks", []))]


def _list_snapshots(service: Service, kind: Kind, given: list[str]) -> list[str]:
    status = service.get(kind.name, _named(given)).get("status", {})
    return [str(snapshot.get("name", "")) for snapshot in status.get("snapshots") or []]


def _list_foreign(service: Service, kind: Kind, _given: list[str]) -> list[str]:
    items = service.list_documents(kind.name, limit=MAXIMUM_NAMES).items
    return [document["name"] for document in items if document.get("status", {}).get("foreign")]


def _named(given: list[str]) -> str:
    return given[0] if given else ""


def _walk(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    """Yield the paths of the values in a value that hold no others."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    inner = [entry for key, part in parts for entry in _walk(part, (*path, key))]
    yield from inner or [path]


_PARTS: dict[str, Callable[[Service, Kind, list[str]], list[str]]] = {
    "versions": _list_versions,
    "paths": _list_paths,
    "assignments": _list_assignments,
    "deleted": _list_deleted,
    "nics": _list_nics,
    "disks": _list_disks,
    "snapshots": _list_snapshots,
    "foreign": _list_foreign,
}

COMMANDS = {"": Command("", _add_arguments, _complete, finishes=False)}
