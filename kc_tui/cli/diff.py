"""Differences as an operator reads them: a sign, a path and the values on a line; and `kc KIND diff`."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from backend.errors import NotFoundError
from backend.model.changes import Change, compare_documents, format_path, json_patch
from backend.model.documents import Document
from backend.model.kinds import Kind
from backend.service import Service
from backend.text import sanitise
from kc_tui.cli.arguments import Parser, parse_count, terminal_width
from kc_tui.cli.output import format_json, print_data
from kc_tui.cli.session import Session
from kc_tui.cli.table import clip, colour, is_coloured, measure
from kc_tui.cli.verbs import Verb

_SIGNS = {"add": "+", "remove": "-", "replace": "~"}
_TONES = {"+": "ok", "-": "bad", "~": "warn", "!": "warn"}
_ARROW = " → "
_PLAIN_WIDTH = 120
_CONTEXT = 1
_SHOWN_LINES = 40
_SHOWN_PATHS = 3
# How much of what two long values begin with alike stays before the first difference.
_SHARED = 12

Line = tuple[str, str]
"""The sign that gives a line its colour (empty: none), and its text."""


def print_changes(changes: Sequence[Change], effects: Sequence[str] = (), *, stream: TextIO) -> None:
    """Print differences, and what becomes of the object on the host, to a stream in its width and with its colours."""
    lines = render_changes(changes, effects, limit=stream_width(stream), coloured=is_coloured(stream))
    stream.write("".join(f"{line}\n" for line in lines))


def stream_width(stream: TextIO) -> int:
    """Return how many cells a line of a stream may have."""
    return terminal_width(stream.fileno()) if stream.isatty() else _PLAIN_WIDTH


def render_changes(
    changes: Sequence[Change], effects: Sequence[str] = (), *, limit: int = _PLAIN_WIDTH, coloured: bool = False
) -> list[str]:
    """Return the lines that tell of differences: `+` added, `-` removed, `~` changed, `!` an effect on the host."""
    lines = [line for change in changes for line in _render(change, limit)]
    lines += [("!", f"! {sanitise(effect)}") for effect in effects]
    return [
        colour(clip(text, limit), _TONES.get(sign, "") if coloured else "") if sign else clip(text, limit)
        for sign, text in lines
    ]


def summarise_changes(changes: Sequence[Change]) -> str:
    """Return differences in a few words: the values too where it is one, else the paths."""
    if len(changes) == 1:
        ((_sign, text), *more) = _render(changes[0], _PLAIN_WIDTH)
        if not more:
            return text
    from kc_tui.state.formatting import join_words  # noqa: PLC0415 - one change needs none

    return sanitise(join_words([change.where for change in changes], _SHOWN_PATHS))


def _show(value: Any) -> str:
    return format_json(value, indent=None)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and "\n" in value.strip("\n")


def _render(change: Change, limit: int) -> Iterator[Line]:
    sign, where = _SIGNS[change.operation], sanitise(change.where)
    if change.operation != "replace":
        yield from _render_value(sign, change.path, change.new if sign == "+" else change.old, limit)
    elif _is_text(change.old) or _is_text(change.new):
        yield sign, f"{sign} {where}:"
        yield from _compare_texts(_show_lines(change.old), _show_lines(change.new))
    else:
        old, new = _show(change.old), _show(change.new)
        line = f"{sign} {where}: {old}{_ARROW}{new}"
        if measure(line) <= limit:
            yield sign, line
        else:
            yield sign, f"{sign} {where}:"
            old, new = _abridge(old, new)
            yield "-", f"    - {old}"
            yield "+", f"    + {new}"


def _render_value(sign: str, path: tuple[str | int, ...], value: Any, limit: int) -> Iterator[Line]:
    """Yield what was added or removed: on a line where it fits, else part by part."""
    where = sanitise(format_path(path))
    line = f"{sign} {where}: {_show(value)}"
    if _is_text(value):
        yield sign, f"{sign} {where}:"
        yield from _cut([(sign, f"    {sign} {text}") for text in _show_lines(value)])
    elif measure(line) <= limit or not value or not isinstance(value, (dict, list)):
        yield sign, line
    else:
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        for key, part in parts:
            yield from _render_value(sign, (*path, key), part, limit)


def _show_lines(value: Any) -> list[str]:
    """Return the lines of a text, fit for a terminal; another value is one line of JSON."""
    if not isinstance(value, str):
        return [_show(value)]
    return [sanitise(line.expandtabs()) for line in value.split("\n")]


def _compare_texts(old: list[str], new: list[str]) -> Iterator[Line]:
    """Yield the lines that differ, with a line of what stands around them."""
    from difflib import unified_diff  # noqa: PLC0415 - few values are texts

    lines: list[Line] = []
    for line in list(unified_diff(old, new, lineterm="", n=_CONTEXT))[2:]:
        sign = line[0] if line[0] in "+-" else ""
        if line.startswith("@@"):
            if lines:
                lines.append(("", "      …"))
        else:
            lines.append((sign, f"    {line[0]} {line[1:]}"))
    return _cut(lines)


def _cut(lines: list[Line]) -> Iterator[Line]:
    yield from lines[:_SHOWN_LINES]
    if len(lines) > _SHOWN_LINES:
        yield "", f"      … and {len(lines) - _SHOWN_LINES} lines more"


def _abridge(old: str, new: str) -> tuple[str, str]:
    """Return two long values without most of what they begin with alike, so that a cut leaves what differs."""
    shared = 0
    for first, second in zip(old, new, strict=False):
        if first != second:
            break
        shared += 1
    skipped = shared - _SHARED
    return (f"…{old[skipped:]}", f"…{new[skipped:]}") if skipped > _SHARED else (old, new)


# --- kc KIND diff


def _add_arguments(parser: Parser, kind: Kind) -> None:
    versions = f"{kind.command}:versions"
    parser.add("name", metavar="NAME", complete=kind.command, help=f"which {kind.title}")
    parser.add("old", metavar="A", nargs="?", type=parse_count, complete=versions, help="from which version")
    parser.add("new", metavar="B", nargs="?", type=parse_count, complete=versions, help="to which (default: as it is)")


def _diff(session: Session, kind: Kind, arguments: Namespace) -> int:
    name: str = arguments.name
    if arguments.old is None:
        old, new = find_last_change(session.service, kind, name)
        if old is None:
            session.note(f"{kind.title} {name}: version {new['version']} is the only one that is kept")
            old = new
    else:
        old = session.service.get(kind.name, name, version=arguments.old)
        new = find_newest(session.service, kind, name, arguments.new)
    changes = compare_documents(old, new)
    if session.output in ("json", "yaml"):
        print_data(session, json_patch(changes))
    elif session.output == "name":
        sys.stdout.write("".join(f"{sanitise(change.where)}\n" for change in changes))
    else:
        if changes:
            session.note(f"{kind.title} {name}, version {old['version']} to {new['version']}:")
        print_changes(changes, stream=sys.stdout)
    if not changes and old is not new:
        session.note(f"{kind.title} {name}: no difference from version {old['version']} to {new['version']}")
    return 0


def find_newest(service: Service, kind: Kind, name: str, version: int | None = None) -> Document:
    """Return a version of an object; by default the one that it has, or had when it was deleted."""
    if version is not None:
        return service.get(kind.name, name, version=version)
    try:
        return service.get(kind.name, name, observe=False)
    except NotFoundError:
        return find_last_change(service, kind, name)[1]


def find_last_change(service: Service, kind: Kind, name: str) -> tuple[Document | None, Document]:
    """Return an object before and after its last change; None where nothing before it is kept. Deletions are none."""
    documents = [entry.document for entry in service.history(kind.name, name) if entry.document is not None]
    if not documents:
        raise NotFoundError(f"{kind.title} {name}", "no version is kept", f"see kc {kind.command} list")
    return documents[-2] if len(documents) > 1 else None, documents[-1]


VERBS = {"diff": Verb(_add_arguments, _diff)}
