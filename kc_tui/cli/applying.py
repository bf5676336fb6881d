"""`kc apply`: documents as they are to be; each is made, changed or left alone."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence

from backend.errors import FailedError, KCError, TimedOutError, UsageError
from backend.model.changes import json_patch
from backend.model.documents import Document
from backend.model.kinds import OPERATION
from backend.service import Accepted
from backend.text import sanitise
from kc_tui.cli.applying_plan import ORDER, Item, plan, preview
from kc_tui.cli.arguments import Parser, add_dry_run, add_message, add_timeout, add_yes
from kc_tui.cli.changing import ask_about_cuts, require_agreement, tell_warnings
from kc_tui.cli.commands import Command
from kc_tui.cli.following import Follower, Outcome, judge
from kc_tui.cli.session import Session
from kc_tui.cli.verbs import report_all

_TEXT = """Make or change objects so that they are as documents say: JSON (a document, a list, or {"items": […]}), JSON
lines or YAML with any number of documents, from files, from all *.json, *.yaml and *.yml in and below a folder, or from
standard input. All are checked first; where one is wrong, nothing is changed. Machine types come before networks,
networks before VMs. A document with a version is applied to that version alone. Metadata or spec that a document leaves
out stays as it is; one that is there is taken as a whole. Where it leaves running VMs without a line for a moment it
asks; without a terminal it needs --yes then. What fails stops only what depends on it; the exit code is
that of the first failure."""


def _add_arguments(parser: Parser) -> None:
    parser.add(
        "-f", "--file", metavar="FILE|DIR|-", dest="files", action="append", required=True, complete="file",
        help="where the documents are; may be repeated",
    )  # fmt: skip
    add_dry_run(parser)
    add_message(parser)
    add_timeout(parser)
    add_yes(parser)


def _apply(session: Session, arguments: Namespace) -> int:
    if arguments.files.count("-") > 1:
        raise UsageError("kc apply", "standard input can be read once", "give -f - once")
    items, errors = plan(session.service, arguments.files, arguments.message)
    if errors:
        session.note("nothing was changed")
        return report_all(session, errors)
    if arguments.dry_run:
        for item in items:
            _show(session, item, dry=True)
    else:
        if not arguments.yes:
            _confirm(items)
        _carry_out(session, items, Follower(session, timeout=arguments.timeout))
    _print_whole(session, items, dry=arguments.dry_run)
    return report_all(session, [item.error for item in items if item.error is not None])


def _confirm(items: Sequence[Item]) -> None:
    """Ask once where something of the set leaves running VMs without a line for a moment."""
    cutting = [(item, item.preview) for item in items if item.error is None and item.preview and item.preview.cuts]
    if not cutting:
        return
    from kc_tui.cli.diff import print_changes  # noqa: PLC0415 - few changes cut anybody off

    cuts = list(dict.fromkeys(name for _item, found in cutting for name in found.cuts))
    require_agreement(", ".join(item.title for item, _found in cutting), cuts)
    sys.stdout.flush()
    for item, found in cutting:
        sys.stderr.write(f"{item.title}:\n")
        print_changes(found.changes, found.effects, stream=sys.stderr)
    ask_about_cuts("kc apply", cuts, "Apply it?")


# --- doing it


def _carry_out(session: Session, items: Sequence[Item], follower: Follower) -> None:
    """Do it kind by kind, so that what depends on a failure can be left; where nobody waits, all at once."""
    stages = [[item for item in items if item.kind is kind] for kind in ORDER] if session.waits else [list(items)]
    out_of_time: TimedOutError | None = None
    for stage in stages:
        begun: list[tuple[Item, Accepted]] = []
        for item in stage:
            if out_of_time is not None:
                item.error = item.error or FailedError(item.what, "not begun: the time was over", "apply it again")
            else:
                begun += [(item, accepted) for accepted in _accept(session, item, items)]
        try:
            outcomes = follower.follow([accepted for _, accepted in begun])
        except TimedOutError as error:
            out_of_time = error
            outcomes = [_look(session, accepted, error) for _, accepted in begun]
        for (item, _), outcome in zip(begun, outcomes, strict=True):
            item.error = outcome.error
        for item in stage:
            _show(session, item, dry=False)


def _accept(session: Session, item: Item, items: Sequence[Item]) -> Iterator[Accepted]:
    """Write one document, where it is to be; yield what was accepted, and keep the error where nothing was."""
    if item.error is not None:
        return
    broken = next((other for other in items if other.error is not None and other.key in item.references), None)
    if broken is not None:
        item.error = FailedError(item.what, f"it needs {broken.title}, which failed", "mend that, and apply it again")
        return
    try:
        if item.preview is None or item.after:
            # What it refers to is there by now.
            item.preview = preview(session.service, item)
        if item.preview.before is None:
            accepted = session.service.create(item.document)
        elif item.preview.changes:
            accepted = session.service.update(item.document, message=item.message)
        else:
            return
        tell_warnings(session, [accepted])
        yield accepted
    except KCError as error:
        item.error = error


def _look(session: Session, accepted: Accepted, otherwise: KCError) -> Outcome:
    """Return what came of a change so far, where the time was over for one of several."""
    if accepted.operation is None:
        return Outcome(accepted.document, None)
    operation = session.service.get(OPERATION.name, accepted.operation["name"])
    has_ended = operation["status"].get("state") in ("succeeded", "failed", "cancelled")
    return Outcome(accepted.document, judge(operation) if has_ended else otherwise)


# --- telling it


def _show(session: Session, item: Item, *, dry: bool) -> None:
    """Print the line of one object, and in a dry run what would change."""
    if session.output == "name" and item.error is None:
        sys.stdout.write(f"{item.title}\n")
    if session.output != "table":
        return
    from kc_tui.cli.diff import print_changes  # noqa: PLC0415 - JSON needs none

    sys.stdout.write(f"{item.title}: {_summarise(item, dry=dry)}\n")
    if item.error is None and item.preview is not None:
        effects = [] if item.after else item.preview.effects
        if dry:
            print_changes(item.preview.changes, effects, stream=sys.stdout)
        elif item.action == "updated":
            for effect in effects:
                session.note(f"{item.title}: {effect}")
    sys.stdout.flush()


def _summarise(item: Item, *, dry: bool) -> str:
    if item.error is not None:
        return f"{'would fail' if dry else 'failed'}: {sanitise(item.error.why)}"
    if item.action == "unchanged" or item.preview is None:
        return item.action
    if dry:
        return f"would be {item.action}" + (f", after {', '.join(item.after)}" if item.after else "")
    if item.action == "created":
        return item.action
    from kc_tui.cli.diff import summarise_changes  # noqa: PLC0415 - as above

    return f"{item.action} ({summarise_changes(item.preview.changes)})"


def _print_whole(session: Session, items: Sequence[Item], *, dry: bool) -> None:
    if session.output in ("json", "yaml"):
        from kc_tui.cli.output import print_data  # noqa: PLC0415 - lines need none

        whole: Document = {"items": [_describe(item, dry=dry) for item in items]}
        print_data(session, whole | {"dryRun": True} if dry else whole)


def _describe(item: Item, *, dry: bool) -> Document:
    described: Document = {
        "kind": item.kind.name,
        "name": item.name,
        "action": item.action,
        "patch": json_patch(item.preview.changes) if item.preview is not None else [],
    }
    if dry and item.preview is not None and item.preview.effects:
        described["effects"] = item.preview.effects
    if dry and item.preview is not None and item.preview.cuts:
        described["cuts"] = list(item.preview.cuts)
    if dry and item.after:
        described["after"] = item.after
    if item.error is not None:
        described["error"] = item.error.problem()
    return described


COMMANDS = {
    "": Command(
        "make or change objects from files of documents",
        _add_arguments,
        _apply,
        _TEXT,
        (
            "kc apply -f lab/ --dry-run",
            "kc apply -f lab.yaml --message 'more memory'",
            "kc vm show web -o json | kc apply -f -",
        ),
    )
}
