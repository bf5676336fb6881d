"""Errors on stderr: one line `kc: WHAT: WHY. HINT`, or a problem object with -o json."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType

from backend.errors import KCError
from backend.text import hide_secrets, sanitise

_INDENT = "    "


def wants_json(arguments: Sequence[str]) -> bool:
    """Return whether a command line, right or wrong, asks for JSON."""
    wanted = False
    for index, argument in enumerate(arguments):
        if argument == "--":
            break
        if argument in ("-o", "--output"):
            wanted = arguments[index + 1 : index + 2] == ["json"]
        elif argument.startswith("--output="):
            wanted = argument == "--output=json"
        elif argument.startswith("-o") and not argument.startswith("--"):
            wanted = argument in ("-ojson", "-o=json")
    return wanted


def report_error(error: KCError, *, as_json: bool) -> int:
    """Print an error to stderr and return its exit code."""
    with suppress(OSError):  # whoever prints next to stdout will be told
        sys.stdout.flush()
    if as_json:
        from kc_tui.cli.output import format_json  # noqa: PLC0415 - most commands go well

        print(format_json(error.problem(), indent=None), file=sys.stderr)
    else:
        caret = _draw_caret(str(error.details.get("caret", "")))
        # Who sees the place needs no words for it.
        text = f"{error.what}: {error.why}" if caret else str(error)
        # Notes are made here, of what was sanitised where it was rendered.
        print("\n".join([f"kc: {sanitise(text)}", *caret, *getattr(error, "__notes__", ())]), file=sys.stderr)
    return error.exit_code


def _draw_caret(drawing: str) -> list[str]:
    """Return the lines of a text with a caret below its fault, as much as the terminal has room for."""
    text, sign, pointer = drawing.partition("\n")
    if not sign or not pointer.endswith("^"):
        return []
    from kc_tui.cli.arguments import terminal_width  # noqa: PLC0415 - most commands go well
    from kc_tui.cli.table import clip, measure  # noqa: PLC0415

    width = terminal_width(2) - len(_INDENT)
    before, after = sanitise(text[: len(pointer) - 1]), sanitise(text[len(pointer) - 1 :])
    if measure(before) > width // 2:
        while measure(before) >= width // 2:
            before = before[1:]
        before = f"…{before}"
    return [_INDENT + clip(before + after, width), _INDENT + " " * measure(before) + "^"]


def _write_trace(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> str:
    """Keep the traceback of an internal error in the cache folder and return its path; empty where that fails."""
    import traceback  # noqa: PLC0415 - only for a bug

    from backend.paths import find_paths, write_atomically  # noqa: PLC0415

    text = hide_secrets("".join(traceback.format_exception(kind, error, trace)))
    path = find_paths().cache / "last-error.txt"
    try:
        write_atomically(path, text.encode("utf-8", "backslashreplace"))
    except (OSError, KCError):
        return ""
    return str(path)


def report_internal_error(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say on one line that KC has a bug, and where its traceback is; set as `sys.excepthook`."""
    import os  # noqa: PLC0415 - only for a bug

    if os.environ.get("KC_DEBUG") == "1":
        sys.__excepthook__(kind, error, trace)
        return
    path = _write_trace(kind, error, trace)
    where = f"its traceback is in {path}" if path else "KC_DEBUG=1 shows its traceback"
    why = f"{kind.__name__}: {sanitise(hide_secrets(str(error)), 300)}"
    if wants_json(sys.argv[1:]):
        from kc_tui.cli.output import format_json  # noqa: PLC0415 - only for a bug

        problem = {"type": "urn:kc:error:internal", "title": "internal error", "status": 500,
                   "detail": why, "hint": where, "code": "internal"}  # fmt: skip
        print(format_json(problem, indent=None), file=sys.stderr)
    else:
        print(f"kc: internal error: {why}. {where}", file=sys.stderr)
