"""How a command changes what is there: read, change, write, wait, print; and `kc KIND set`."""

from __future__ import annotations

import copy
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from backend.errors import ConflictError, FailedError, KCError, NotFoundError, RefusedError, UsageError
from backend.model.changes import compare_documents, format_path, json_patch, parse_path, remove_path, set_path
from backend.model.documents import Document
from backend.model.kinds import MACHINE_TYPE, VM, Kind
from backend.service import Accepted, Preview
from backend.text import sanitise
from kc_tui.cli.arguments import (
    Parser,
    add_dry_run,
    add_if_version,
    add_message,
    add_metadata,
    add_selector,
    add_timeout,
    parse_value,
)  # fmt: skip
from kc_tui.cli.diff import print_changes, render_changes, stream_width
from kc_tui.cli.following import Follower
from kc_tui.cli.output import print_data, print_names, print_results
from kc_tui.cli.session import Session
from kc_tui.cli.table import is_coloured
from kc_tui.cli.verbs import Verb, choose_names, collect, plural, report_all, select

# Each time that somebody else was first, somebody got on: so many in a row are no accident.
_ATTEMPTS = 50
_ASSIGNMENT = re.compile(r'((?:[^"=]|"(?:[^"\\]|\\.)*")+)=(.*)', re.DOTALL)
_HARDWARE = ("cpus", "memoryMiB", "diskGiB")
_ROOTS = ("metadata", "spec")

Edit = Callable[[Document], None]
"""Changes the metadata and the spec of a document, in place."""


class StaleError(ConflictError):
    """A change was made for another version than the one that is there.

    `current` in its details is the version that is there, `changes` a JSON Patch from the one that was meant; its notes
    show the same to a person.
    """


class Written(NamedTuple):
    """What came of a change: what the service accepted, and the version that was there before."""

    accepted: Accepted
    before: int

    @property
    def is_new(self) -> bool:
        """Whether a version was written."""
        return bool(self.accepted.document["version"] != self.before)


# --- what changing verbs share


def add_change_arguments(parser: Parser, kind: Kind) -> None:
    """Add what every verb takes that writes a version."""
    add_if_version(parser, kind)
    add_message(parser)
    add_dry_run(parser)
    add_timeout(parser)


def change_all(
    session: Session, kind: Kind, names: Sequence[str], edit: Edit, arguments: Namespace, *, several: bool = False
) -> int:
    """Change objects each on its own, wait, print them, and return the exit code; with --dry-run show the changes."""
    if arguments.dry_run:
        return _try_all(session, kind, names, edit, arguments, several=several)
    follower = Follower(session, timeout=arguments.timeout)
    written, errors = collect(lambda name: _write(session, kind, name, edit, arguments, follower), names)
    code = finish(session, kind, follower, [entry.accepted for entry in written], errors, several=several)
    tell_versions(session, kind, written)
    if several and len(names) > 1:
        session.note(f"{sum(entry.is_new for entry in written)} of {plural(kind, len(names))} changed")
    return code


def tell_versions(session: Session, kind: Kind, written: Sequence[Written]) -> None:
    """Say which versions were written; programs read that from the documents."""
    for entry in written if session.output == "table" else ():
        name, version = entry.accepted.document["name"], entry.accepted.document["version"]
        if entry.is_new:
            session.note(f"{kind.title} {name} is at version {version}; kc {kind.command} undo {name} takes it back")
        else:
            session.note(f"{kind.title} {name} is so already, at version {version}")


def finish(
    session: Session,
    kind: Kind,
    follower: Follower,
    accepted: Sequence[Accepted],
    errors: Sequence[KCError] = (),
    *,
    several: bool = False,
) -> int:
    """Wait for what was accepted, print the documents as they are then, report all errors, return the exit code."""
    documents, more = follower.conclude(follower.follow(accepted), "")
    print_results(session, kind, documents, several=several)
    for document in documents:
        pending = document.get("status", {}).get("pendingRestart")
        if pending and session.output == "table":
            name, paths = document["name"], ", ".join(pending)
            session.note(f"{kind.title} {name} needs a restart for {paths}: kc {kind.command} reboot {name}")
    return report_all(session, [*errors, *more])


def _write(session: Session, kind: Kind, name: str, edit: Edit, arguments: Namespace, follower: Follower) -> Written:
    """Change an object as it is now; where somebody else was first, wait for their work and change what they wrote.

    With --if-version only that version is changed; else StaleError.
    """
    for _attempt in range(_ATTEMPTS):
        current = read_current(session, kind, name, arguments.if_version)
        version: int = current["version"]
        try:
            with explaining_conflicts(session, kind, name, version):
                wanted = draft(current, edit)
                return Written(session.service.update(wanted, if_version=version, message=arguments.message), version)
        except StaleError:
            if arguments.if_version is not None:
                raise
        except ConflictError as error:
            operation = error.details.get("operation")
            if not operation or not session.waits:
                raise
            session.service.wait(operation, timeout=follower.remaining(), progress=follower.progress.show)
            follower.progress.clear()
    why = f"somebody else changed it {_ATTEMPTS} times meanwhile"
    raise ConflictError(f"{kind.title} {name}", why, f"see kc {kind.command} history {name}, and try again")


def read_current(session: Session, kind: Kind, name: str, if_version: int | None) -> Document:
    """Return an object as it is; raise ConflictError with the difference where it is not the version that was named."""
    current = session.service.get(kind.name, name, observe=False)
    if if_version not in (None, current["version"]):
        raise _explain_conflict(session, kind, current, if_version)
    return current


def draft(current: Document, edit: Edit) -> Document:
    """Return what is to be written of a document: a changed copy of its metadata and spec."""
    wanted = {key: copy.deepcopy(current[key]) for key in ("kind", "name", "version", *_ROOTS)}
    edit(wanted)
    return wanted


@contextmanager
def explaining_conflicts(session: Session, kind: Kind, name: str, version: int | None) -> Iterator[None]:
    """Turn a conflict inside the block into StaleError where the object is at another version than the one meant."""
    try:
        yield
    except ConflictError as error:
        if version is None:
            raise
        current = session.service.get(kind.name, name, observe=False)
        if current["version"] == version:
            raise
        raise _explain_conflict(session, kind, current, version) from error


def _explain_conflict(session: Session, kind: Kind, current: Document, version: int | None) -> StaleError:
    name = current["name"]
    try:
        old = session.service.get(kind.name, name, version=version)
    except NotFoundError:
        changes = []
    else:
        changes = compare_documents(old, current)
    error = StaleError(
        f"{kind.title} {name}",
        f"it is at version {current['version']}, not {version}",
        f"see kc {kind.command} history {name}, and try again",
        current=current["version"],
        changes=json_patch(changes),
    )
    lines = render_changes(changes, limit=stream_width(sys.stderr), coloured=is_coloured(sys.stderr))
    if lines:
        error.add_note("\n".join([f"what changed from version {version} to {current['version']}:", *lines]))
    return error


def _try_all(
    session: Session, kind: Kind, names: Sequence[str], edit: Edit, arguments: Namespace, *, several: bool
) -> int:
    def preview(name: str) -> Preview:
        return session.service.preview(draft(read_current(session, kind, name, arguments.if_version), edit))

    previews, errors = collect(preview, names)
    if session.output in ("json", "yaml"):
        items = [describe_preview(entry) for entry in previews]
        if several or items:
            print_data(session, {"items": items} if several else items[0])
    elif session.output == "name":
        print_names([entry.after for entry in previews if entry.changes])
    else:
        for entry in previews:
            title = f"{kind.title} {entry.after['name']}"
            session.note(f"{title} would change:" if entry.changes else f"{title} is so already")
            print_changes(entry.changes, entry.effects, stream=sys.stdout)
    return report_all(session, errors)


def describe_preview(preview: Preview) -> Document:
    """Return what would change as a JSON value; `changes` is a JSON Patch (RFC 6902)."""
    return {
        "kind": preview.after["kind"],
        "name": preview.after["name"],
        "version": preview.before["version"] if preview.before else 0,
        "changes": json_patch(preview.changes),
        "effects": preview.effects,
    }


# --- asking


def has_terminal() -> bool:
    """Return whether there is somebody to ask."""
    return bool(sys.stdin and sys.stdin.isatty())


def require_terminal(command: str) -> None:
    """Raise UsageError where a command must ask and nobody is there."""
    if not has_terminal():
        raise UsageError(command, "it asks first, and here is no terminal", "add --yes to mean it")


def ask(command: str, question: str, wanted: Sequence[str], otherwise: str) -> None:
    """Ask on the terminal; raise FailedError, which says `otherwise`, unless the answer is one of those wanted."""
    sys.stdout.flush()
    print(question, end=" ", file=sys.stderr, flush=True)
    try:
        answer = sys.stdin.readline()
    except KeyboardInterrupt:
        print(file=sys.stderr)
        raise
    if not answer.endswith("\n"):
        print(file=sys.stderr)
    if not answer.endswith("\n") or answer.strip().lower() not in wanted:
        raise FailedError(command, "not confirmed", otherwise)


# --- kc KIND set


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
    add_selector(parser)
    add_change_arguments(parser, kind)


def _set(session: Session, kind: Kind, arguments: Namespace) -> int:
    words = [*([] if arguments.name is None else [arguments.name]), *arguments.assignments]
    if arguments.selector is None and words and "=" in words[0]:
        raise UsageError(f"kc {kind.command} set", "give a name, or -l SELECTOR", f"see kc {kind.command} set --help")
    names = choose_names(kind, words[:1] if arguments.selector is None else [], arguments.selector)
    edit = _read_edit(kind, words[len(names) :], arguments)
    names = names or [document["name"] for document in select(session, kind, arguments.selector)]
    return change_all(session, kind, names, edit, arguments, several=arguments.selector is not None)


def _read_edit(kind: Kind, words: Sequence[str], arguments: Namespace) -> Edit:
    """Return the change that a command line asks for; raise UsageError, RefusedError."""
    given = [_split(kind, word) for word in words]
    # A key of the customer's own may hold what a path would take for a sign.
    given += [(("metadata", *path), value) for path, value in arguments.meta]
    unset = [_check_path(kind, text) for text in arguments.unset]
    for path in unset:
        if len(path) == 1:
            raise RefusedError(path[0], "it cannot be taken away", f"name what is in it, or set {path[0]}={{}}")
    if not given and not unset:
        command = f"kc {kind.command} set"
        raise UsageError(command, "there is nothing to set", f"give PATH=JSON, --meta or --unset; see {command} --help")
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
