"""How a command changes what is there: read, change, write, wait, print; and how it asks first."""

from __future__ import annotations

import copy
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from backend.errors import ConflictError, FailedError, KCError, NotFoundError, UsageError
from backend.model.changes import compare_documents, json_patch
from backend.model.documents import Document
from backend.model.kinds import KEPT_KINDS, NETWORK, OPERATION, Kind, find_kind
from backend.service import Accepted, Preview
from backend.text import sanitise
from kc_tui.cli.arguments import Parser, add_dry_run, add_if_version, add_message, add_timeout, add_yes, key_of
from kc_tui.cli.diff import print_changes, render_changes, stream_width
from kc_tui.cli.following import Follower
from kc_tui.cli.output import print_data, print_names, print_results
from kc_tui.cli.session import Session
from kc_tui.cli.table import is_coloured
from kc_tui.cli.verbs import collect, plural, report_all

# Each time that somebody else was first, somebody got on: so many in a row are no accident.
_ATTEMPTS = 50
_SHOWN_CUTS = 10
_ROOTS = ("metadata", "spec")

Edit = Callable[[Document], None]
"""Changes the metadata and the spec of a document, in place."""


class StaleError(ConflictError):
    """A change was made for another version than the one that is there.

    `current` in its details is the version that is there, `changes` a JSON Patch from the one that was meant; its notes
    show the same to a person.
    """


class DeclinedError(FailedError):
    """Somebody was asked, and did not agree."""


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
    if can_cut(kind):
        add_yes(parser)


def change_all(
    session: Session, kind: Kind, names: Sequence[str], edit: Edit, arguments: Namespace, *, several: bool = False
) -> int:
    """Change objects each on its own, wait, print them, and return the exit code; with --dry-run show the changes."""
    if arguments.dry_run:
        return _try_all(session, kind, names, edit, arguments, several=several)
    follower = Follower(session, timeout=arguments.timeout)
    written, errors = collect(lambda name: _write(session, kind, name, edit, arguments, follower), names)
    tell_warnings(session, [entry.accepted for entry in written])
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
            back = f"; kc {kind.command} undo {name} takes it back" if kind in KEPT_KINDS else ""
            session.note(f"{kind.title} {name} is at version {version}{back}")
        else:
            session.note(f"{kind.title} {name} is so already, at version {version}")


def tell_warnings(session: Session, accepted: Iterable[Accepted]) -> None:
    """Say what the service found odd in what it accepted, each thing once."""
    lines = [line for entry in accepted for line in entry.document.get("status", {}).get("warnings") or ()]
    for line in dict.fromkeys(lines):
        session.note(f"warning: {line}")


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
                key = key_of(arguments, name)
                if key and not compare_documents(current, wanted):
                    # The same command was here before, or there is nothing to remember a key for.
                    return Written(Accepted(current, _find_operation(session, key)), version)
                if can_cut(kind) and not arguments.yes:
                    confirm_cuts(session.service.preview(wanted), f"Change {kind.title} {name}?")
                accepted = session.service.update(wanted, if_version=version, message=arguments.message, key=key)
                return Written(accepted, version)
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


def _find_operation(session: Session, key: str) -> Document | None:
    """Return the operation that an idempotency key was used for, or None."""
    items = session.service.list_documents(OPERATION.name, observe=False).items
    return next((item for item in items if item["spec"].get("idempotencyKey") == key), None)


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
        **({"cuts": list(preview.cuts)} if preview.cuts else {}),
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
        raise DeclinedError(command, "not confirmed", otherwise)


def can_cut(kind: Kind) -> bool:
    """Return whether a change of a kind may leave running VMs without a line: only then is it previewed for that."""
    return kind is NETWORK


def describe_cuts(names: Sequence[str]) -> str:
    """Return whom a change leaves without a line for a moment."""
    from kc_tui.state.formatting import join_words  # noqa: PLC0415 - few changes cut anybody off

    shown = join_words([sanitise(name, 80) for name in names], _SHOWN_CUTS)
    return f"cuts VM{'s' if len(names) > 1 else ''} {shown} off for a moment"


def confirm_cuts(preview: Preview, question: str) -> None:
    """Show a change that leaves running VMs without a line, and ask; raise UsageError where nobody is there.

    A change that cuts nobody off is neither shown nor asked about.
    """
    if not preview.cuts:
        return
    kind, name = find_kind(preview.after["kind"]), preview.after["name"]
    require_agreement(f"{kind.title} {name}", preview.cuts)
    sys.stdout.flush()
    print_changes(preview.changes, preview.effects, stream=sys.stderr)
    ask_about_cuts(f"kc {kind.command}", preview.cuts, question)


def require_agreement(what: str, cuts: Sequence[str]) -> None:
    """Raise UsageError where a change cuts VMs off, and here is nobody to ask."""
    if not has_terminal():
        raise UsageError(what, f"it {describe_cuts(cuts)}, and here is no terminal to ask on", "add --yes to mean it")


def ask_about_cuts(command: str, cuts: Sequence[str], question: str) -> None:
    """Ask about a change that cuts VMs off; raise DeclinedError unless it is meant."""
    ask(command, f"It {describe_cuts(cuts)}. {question} [y/N]", ("y", "yes"), "nothing was changed")
