"""`kc KIND edit`: metadata and spec as YAML in the user's editor; nothing that was typed is lost."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

from backend.errors import FailedError, KCError, NotFoundError, RefusedError
from backend.model.changes import compare
from backend.model.documents import Document
from backend.model.kinds import Kind
from backend.paths import make_private
from backend.text import sanitise
from kc_tui.cli.arguments import Parser, add_message, add_timeout, add_yes
from kc_tui.cli.changing import (
    DeclinedError,
    StaleError,
    Written,
    can_cut,
    confirm_cuts,
    explaining_conflicts,
    finish,
    has_terminal,
    tell_versions,
)  # fmt: skip
from kc_tui.cli.following import Follower
from kc_tui.cli.session import Session
from kc_tui.cli.verbs import Verb
from kc_tui.editor import find_editor, run_editor
from kc_tui.yaml_text import TextError, check_value, format_yaml, parse_yaml

_ROOTS = ("metadata", "spec")
# The two lines of help give way to two lines about a fault, so that the lines of the text keep their numbers.
_TITLE = "# {title} {name}, version {version}; kc schema {kind} says what can stand here.\n"
_HELP = """\
# Save and leave the editor to write a new version; change nothing, or empty the file, to leave all as it is.
# What KC fills in (uids, ids, MACs) may be left out of what is new.
"""
_HELP_AGAIN = """\
# This is the text that was kept. Save and leave the editor to write it; empty the file to leave all as it is.
#
"""
_FAULT = """\
# ERROR: {error}
# Mend it; or leave it as it is to give up: the text is kept then.
"""


def _add_arguments(parser: Parser, kind: Kind) -> None:
    parser.add("name", metavar="NAME", complete=kind.command, help=f"which {kind.title}")
    parser.add("--from", dest="source", metavar="FILE", complete="file", help="go on with a text that was kept")
    add_message(parser)
    add_timeout(parser)
    if can_cut(kind):
        add_yes(parser)


def _edit(session: Session, kind: Kind, arguments: Namespace) -> int:
    current = session.service.get(kind.name, arguments.name, observe=False)
    if arguments.source:
        text = _HELP_AGAIN + _strip_comments(_read(Path(arguments.source)))
    else:
        text = _HELP + format_yaml({key: current[key] for key in _ROOTS})
    path = _make_file(session, f"{kind.command}-{current['name']}-")
    written = _edit_until_written(session, kind, current, path, text, arguments)
    path.unlink(missing_ok=True)
    if written is None:
        session.note(f"{kind.title} {current['name']}: nothing was changed")
        return 0
    follower = Follower(session, timeout=arguments.timeout)
    code = finish(session, kind, follower, [written.accepted])
    tell_versions(session, kind, [written])
    return code


def _edit_until_written(
    session: Session, kind: Kind, current: Document, path: Path, text: str, arguments: Namespace
) -> Written | None:
    """Open the editor until what it leaves is accepted, and return that; None where nothing is to change.

    Raises KCError once the user, or a run without a terminal, gives up; the file stays then.
    """
    title = _TITLE.format(title=kind.title, name=current["name"], version=current["version"], kind=kind.command)
    is_fault = False
    while True:
        text = title + text
        _write_file(path, text)
        try:
            _run_editor(path)
        except FailedError as error:
            if not is_fault and _read(path) == text:
                path.unlink()
                raise
            raise _keep(error, kind, current, path) from error
        edited = _read(path)
        given_up = is_fault and edited == text
        try:
            wanted = _parse(edited, kind, current)
            if not wanted or _is_same(wanted, current):
                return None
            return _write(session, kind, current, wanted, arguments)
        except KCError as error:
            if isinstance(error, (StaleError, DeclinedError)) or given_up or not has_terminal():
                raise _keep(error, kind, current, path) from error
            text = _FAULT.format(error=sanitise(error, 2000)) + _strip_comments(edited)
            is_fault = True


def _write(session: Session, kind: Kind, current: Document, wanted: Document, arguments: Namespace) -> Written:
    document = {**wanted, "kind": kind.name, "name": current["name"]}
    with explaining_conflicts(session, kind, current["name"], current["version"]):
        if can_cut(kind) and not arguments.yes:
            preview = session.service.preview({**document, "version": current["version"]})
            confirm_cuts(preview, f"Change {kind.title} {current['name']}?")
        accepted = session.service.update(document, if_version=current["version"], message=arguments.message)
    return Written(accepted, current["version"])


def _keep(error: KCError, kind: Kind, current: Document, path: Path) -> KCError:
    """Return an error that says where the text is kept and how to go on with it."""
    again = f"your text is kept: kc {kind.command} edit {current['name']} --from {shlex.quote(str(path))}"
    error.hint = f"{error.hint}; {again}" if error.hint else again
    error.details["file"] = str(path)
    return error


def _make_file(session: Session, prefix: str) -> Path:
    """Return an empty file of the user's alone."""
    folder = make_private(session.settings.paths.cache / "edit")
    try:
        descriptor, name = tempfile.mkstemp(suffix=".yaml", prefix=prefix, dir=folder)
    except OSError as error:
        raise FailedError(f"folder {folder}", str(error.strerror).lower(), "name another one with KC_HOME") from error
    os.close(descriptor)
    return Path(name)


def _write_file(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise FailedError(f"file {path}", str(error.strerror).lower(), "name another folder with KC_HOME") from error


def _read(path: Path) -> str:
    what = f"file {path}"
    try:
        return path.expanduser().read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFoundError(what, "no such file") from error
    except UnicodeDecodeError as error:
        raise RefusedError(what, "it is no text", "it must be UTF-8") from error
    except OSError as error:
        raise FailedError(what, str(error.strerror).lower()) from error


def _run_editor(path: Path) -> None:
    """Let the user's editor change a file; raise FailedError where it cannot be started, or fails."""
    command = find_editor(os.environ)
    sys.stdout.flush()
    status = run_editor(command, path)
    if status:
        raise FailedError(f"editor {shlex.join(command)}", f"it ended with {status}", "nothing was written")


def _strip_comments(text: str) -> str:
    """Return a text without the comments at its top, which are KC's."""
    lines = text.splitlines(keepends=True)
    first = next((index for index, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "".join(lines[first:])


def _parse(text: str, kind: Kind, current: Document) -> Document:
    """Return the metadata and the spec that a text says, nothing where it is empty; raise RefusedError."""
    what = f"{kind.title} {current['name']}"
    try:
        values = parse_yaml(text)
        check_value(values)
    except TextError as error:
        raise RefusedError(what, sanitise(error, 300), "mend the text") from error
    if not values:
        return {}
    value = values[0] if len(values) == 1 else None
    if not isinstance(value, dict) or not set(value) <= set(_ROOTS):
        extra = sorted(set(value) - set(_ROOTS)) if isinstance(value, dict) else []
        why = f"{sanitise(extra[0], 80)}: nobody writes that" if extra else "it is no document"
        raise RefusedError(what, why, "metadata and spec are what stands here")
    return {key: {} if part is None else part for key, part in value.items()}


def _is_same(wanted: dict[str, Any], current: Document) -> bool:
    return not compare({key: current[key] for key in wanted}, wanted)


VERBS = {"edit": Verb(_add_arguments, _edit)}
