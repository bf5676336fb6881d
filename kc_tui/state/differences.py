"""Differences between documents as lines to be read: `+`, `-` and `~` say what a colour says again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import islice
from typing import Any, Final

from rich.cells import cell_len, chop_cells

from backend.model.changes import Change
from kc_tui.state.glyphs import Glyphs
from kc_tui.state.lines import BLANK, Line
from kc_tui.state.roles import Role
from kc_tui.state.table import Run

ADDED: Final = "+"
REMOVED: Final = "-"
CHANGED: Final = "~"
MOST_LINES: Final = 20_000
_SIGNS: Final = {
    "add": (ADDED, Role.OK),
    "remove": (REMOVED, Role.DANGER),
    "replace": (CHANGED, Role.WARN),
}
_CONTEXT_LINES: Final = 2
_MOST_COMPARED: Final = 2000
"""Lines of a text that are compared one by one; what is longer is shown as replaced."""
_LEAST_WIDTH: Final = 20
_DEEPEST: Final = 100
_WIDEST_LABEL: Final = 36


def shorten_changes(changes: Sequence[Change], most: int = 6) -> str:
    """Return differences in one line: `~parameters.cpus +nics.1`; beyond `most` the rest is counted."""
    names = [f"{_SIGNS[change.operation][0]}{change.where.removeprefix('spec.')}" for change in changes]
    if len(names) > most:
        return f"{' '.join(names[: most - 1])} and {len(names) - most + 1:,} more"
    return " ".join(names)


def count_changes(changes: Sequence[Change], glyphs: Glyphs) -> Line:
    """Return how many differences there are of each sort, as a line."""
    runs: list[Run] = []
    for operation, word in (("add", "added"), ("replace", "changed"), ("remove", "removed")):
        count = sum(change.operation == operation for change in changes)
        if count:
            sign, role = _SIGNS[operation]
            runs += [Run(f" {glyphs.dot} ", Role.MUTED)] if runs else []
            runs += [Run(sign, role), Run(f" {count:,} {word}", Role.MUTED)]
    return tuple(runs) or (Run("no difference", Role.MUTED),)


def draw_changes(changes: Sequence[Change], width: int, glyphs: Glyphs) -> list[Line]:
    """Return differences as lines of at most `width` cells; texts of several lines are compared line by line."""
    width = max(width, _LEAST_WIDTH)
    short = [cell_len(change.where) for change in changes if _is_short(change)]
    label = min(max(short, default=0), _WIDEST_LABEL, width // 2)
    lines: list[Line] = []
    was_long = False
    for number, change in enumerate(changes):
        drawn = list(islice(_draw_change(change, width, label, glyphs), MOST_LINES - len(lines)))
        is_long = len(drawn) > 1
        lines += [BLANK, *drawn] if number and (is_long or was_long) else drawn
        was_long = is_long
        if len(lines) >= MOST_LINES:
            return [*lines[:MOST_LINES], (Run(f"{glyphs.ellipsis} more than {MOST_LINES:,} lines", Role.MUTED),)]
    return lines


def show_json(value: Any) -> str:
    """Return a scalar as it reads best; a text that could be taken for something else stands in quotes."""
    if not isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if value and value == value.strip() and not _reads_as_json(value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _reads_as_json(text: str) -> bool:
    if text[0] not in '-0123456789tfn"[{':
        return False
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _is_container(value: Any) -> bool:
    return isinstance(value, (dict, list)) and bool(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and "\n" in value


def _is_short(change: Change) -> bool:
    return not any(_is_container(value) or _is_text(value) for value in (change.old, change.new))


def _draw_change(change: Change, width: int, label: int, glyphs: Glyphs) -> Iterator[Line]:
    sign, role = _SIGNS[change.operation]
    head = (Run(f"{sign} ", role), Run(change.where, Role.TEXT))
    if _is_short(change):
        gap = Run(" " * max(2, label - cell_len(change.where) + 2))
        line = (*head, gap, *_draw_values(change, glyphs))
        if sum(cell_len(run.text) for run in line) <= width:
            yield line
            return
    yield from wrap(f"{sign} ", role, change.where, Role.TEXT, width)
    if change.operation == "replace" and _is_text(change.old) | _is_text(change.new) and _are_texts(change):
        yield from _compare_texts(change.old, change.new, width, glyphs)
        return
    if change.operation != "add":
        yield from _draw_value(change.old, REMOVED, width, 1)
    if change.operation != "remove":
        yield from _draw_value(change.new, ADDED, width, 1)


def _are_texts(change: Change) -> bool:
    return isinstance(change.old, str) and isinstance(change.new, str)


def _draw_values(change: Change, glyphs: Glyphs) -> tuple[Run, ...]:
    old, new = Run(_show(change.old), Role.DANGER), Run(_show(change.new), Role.OK)
    if change.operation == "add":
        return (new,)
    return (old,) if change.operation == "remove" else (old, Run(f" {glyphs.arrow} ", Role.MUTED), new)


def _show(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return "{}" if isinstance(value, dict) else "[]"
    return show_json(value)


def _draw_value(value: Any, sign: str, width: int, depth: int) -> Iterator[Line]:
    """Yield a value as an indented tree, every line of it with its sign."""
    role = Role.OK if sign == ADDED else Role.DANGER
    lead = f"{sign} {'  ' * min(depth, _DEEPEST)}"
    if isinstance(value, str):
        for part in value.split("\n") if _is_text(value) else [show_json(value)]:
            yield from wrap(lead, role, part, role, width)
    elif not _is_container(value):
        yield from wrap(lead, role, _show(value), role, width)
    elif isinstance(value, dict):
        for key, item in value.items():
            if _is_container(item) or _is_text(item):
                yield from wrap(lead, role, f"{key}:", Role.MUTED, width)
                yield from _draw_value(item, sign, width, depth + 1)
            else:
                yield from wrap(lead, role, f"{key}: {_show(item)}", role, width)
    else:
        for index, item in enumerate(value):
            if _is_container(item) or _is_text(item):
                yield from wrap(lead, role, f"{index}:", Role.MUTED, width)
                yield from _draw_value(item, sign, width, depth + 1)
            else:
                yield from wrap(lead, role, _show(item), role, width)


def _compare_texts(old: str, new: str, width: int, glyphs: Glyphs) -> Iterator[Line]:
    """Yield the lines of two texts that differ, with a little of what stands around them."""
    before, after = old.split("\n"), new.split("\n")
    if max(len(before), len(after)) > _MOST_COMPARED:
        yield from _draw_value(old, REMOVED, width, 1)
        yield from _draw_value(new, ADDED, width, 1)
        return
    matcher = SequenceMatcher(None, before, after, autojunk=False)
    for number, group in enumerate(matcher.get_grouped_opcodes(_CONTEXT_LINES)):
        if number or group[0][1] or group[0][3]:
            yield (Run(f"    {glyphs.ellipsis}", Role.MUTED),)
        for tag, start, end, new_start, new_end in group:
            if tag == "equal":
                for part in before[start:end]:
                    yield from wrap("    ", Role.MUTED, part, Role.MUTED, width)
                continue
            for part in before[start:end]:
                yield from wrap(f"{REMOVED}   ", Role.DANGER, part, Role.DANGER, width)
            for part in after[new_start:new_end]:
                yield from wrap(f"{ADDED}   ", Role.OK, part, Role.OK, width)


def wrap(lead: str, lead_role: Role, text: str, role: Role, width: int) -> Iterator[Line]:
    """Yield a text in as many lines as it needs; those after the first stand a little to the right."""
    room = max(_LEAST_WIDTH // 2, width - cell_len(lead))
    text = text.replace("\t", "    ")
    pieces = [text] if cell_len(text) <= room else _chop(text, room)
    for number, piece in enumerate(pieces):
        if number:
            yield (Run(" " * (cell_len(lead) + 2)), Run(piece, role))
        else:
            yield (Run(lead, lead_role), Run(piece, role))


def _chop(text: str, room: int) -> list[str]:
    """Return a text in pieces of at most `room` cells, the later ones two less, cut behind blanks where there are."""
    pieces: list[str] = []
    at = 0
    while at < len(text):
        piece = chop_cells(text[at : at + room], room)[0]
        blank = piece.rfind(" ") + 1
        if blank > room // 2 and at + len(piece) < len(text):
            piece = piece[:blank]
        at += len(piece)
        room -= 0 if pieces else 2
        pieces.append(piece)
    return pieces
