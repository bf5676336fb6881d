"""`kc store`: where the documents are kept, and what keeps them well."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from backend.model.kinds import KINDS
from backend.text import sanitise
from kc_tui.cli.arguments import Parser
from kc_tui.cli.commands import Command
from kc_tui.cli.output import print_data
from kc_tui.cli.session import Session
from kc_tui.cli.table import Cell, Column, print_table

_PAGE = 1000
_FAULTS = (Column("WHERE"), Column("FAULT"), Column("STATE"))
_PLACE = "tinydb:PATH or etcd://HOST:PORT[,HOST:PORT…][/prefix]"


def _nothing(_parser: Parser) -> None:
    """It takes none of its own."""


def _print_pairs(session: Session, value: dict[str, Any], pairs: Sequence[tuple[str, str]]) -> None:
    """Print a JSON object: as itself, or as lines of a label and a text."""
    if session.output in ("json", "yaml"):
        print_data(session, value)
        return
    width = max(len(label) for label, _ in pairs)
    sys.stdout.write("".join(f"{label:<{width}}  {sanitise(text)}\n" for label, text in pairs))


def _show(session: Session, _arguments: Namespace) -> int:
    header = next(iter(session.service.export()))
    value = {
        # Of a KC elsewhere it is not known here where it keeps its documents, but where it is.
        "url": session.settings.url or session.settings.store_url,
        "format": header["format"],
        "identity": header["identity"],
        "revision": header["revision"],
        "documents": {kind.name: _count(session, kind.name) for kind in KINDS},
    }
    if session.output == "name":
        sys.stdout.write(f"{sanitise(value['url'])}\n")
        return 0
    documents = [(kind.title + "s", str(value["documents"][kind.name])) for kind in KINDS]
    pairs = [("store", value["url"]), *((key, str(value[key])) for key in ("format", "identity", "revision"))]
    _print_pairs(session, value, [*pairs, *documents])
    return 0


def _count(session: Session, kind: str) -> int:
    count, after = 0, ""
    while True:
        page = session.service.list_documents(kind, limit=_PAGE, after=after, everything=True, observe=False)
        count += len(page.items)
        after = page.next
        if not after:
            return count


def _add_check_arguments(parser: Parser) -> None:
    parser.add("--repair", action="store_true", help="make again what follows from the versions that are kept")


def _check(session: Session, arguments: Namespace) -> int:
    faults = session.service.check_store(repair=arguments.repair)
    left = [fault for fault in faults if not fault.repaired]
    if session.output in ("json", "yaml"):
        print_data(session, {"items": [fault._asdict() for fault in faults]})
    elif session.output == "name":
        sys.stdout.write("".join(f"{sanitise(fault.where)}\n" for fault in left))
    elif faults:
        states = {True: Cell("repaired", "ok"), False: Cell("faulty", "bad")}
        print_table(_FAULTS, [(fault.where, fault.what, states[fault.repaired]) for fault in faults])
    if not faults:
        session.note("the store is sound")
    elif not left:
        session.note("all of it is repaired")
    else:
        hint = (
            "kc import of an export brings it back" if arguments.repair else "kc store check --repair mends what it can"
        )
        session.note(f"faults remain: {len(left)}; {hint}")
    return 1 if left else 0


def _compact(session: Session, _arguments: Namespace) -> int:
    from kc_tui.state.formatting import format_bytes  # noqa: PLC0415 - compacting alone counts bytes

    done = session.service.compact_store()
    value = {
        "versions": done.versions,
        "documents": done.documents,
        "bytesBefore": done.bytes_before,
        "bytesAfter": done.bytes_after,
    }
    pairs = [("versions dropped", str(done.versions)), ("deleted objects forgotten", str(done.documents))]
    if done.bytes_before or done.bytes_after:
        pairs.append(("on disk", f"{format_bytes(done.bytes_before)} → {format_bytes(done.bytes_after)}"))
    if session.output != "name":
        _print_pairs(session, value, pairs)
    return 0


def _add_copy_arguments(parser: Parser) -> None:
    parser.add("source", metavar="FROM", help=_PLACE)
    parser.add("target", metavar="TO", help=f"an empty one: {_PLACE}")


def _copy(session: Session, arguments: Namespace) -> int:
    count = session.service.copy_store(arguments.source, arguments.target)
    if session.output in ("json", "yaml"):
        print_data(session, {"source": arguments.source, "target": arguments.target, "entries": count})
    elif session.output == "name":
        sys.stdout.write(f"{sanitise(arguments.target)}\n")
    else:
        session.note(f"{count} entries copied; KC_STORE={arguments.target} uses them")
    return 0


COMMANDS = {
    "show": Command(
        "say where the store is and what it holds",
        _nothing,
        _show,
        "Say where the documents are kept, in which format, up to which revision, and how many there are of each kind.",
        ("kc store show -o json",),
        finishes=False,
    ),
    "check": Command(
        "verify the store",
        _add_check_arguments,
        _check,
        "Verify every row, version, head, name and index of the store. Exit code 1 where faults remain.",
        ("kc store check", "kc store check --repair"),
        finishes=False,
    ),
    "compact": Command(
        "drop the history that need not be kept",
        _nothing,
        _compact,
        "Drop the versions that [history] in config.toml asks to keep no longer, and give their room back. What is "
        "there now is never touched.",
        ("kc store compact",),
        finishes=False,
    ),
    "copy": Command(
        "copy all of one store into an empty one",
        _add_copy_arguments,
        _copy,
        "Copy all of one store, history included, into another one, which must be empty. The copy has the identity of "
        "the first: go on with one of the two, not with both.",
        ("kc store copy tinydb:/var/lib/kc/kc.db etcd://10.0.0.1:2379/kc",),
        finishes=False,
    ),
}
