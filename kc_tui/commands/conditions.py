"""When commands can run, and the reasons when they cannot: one line each, for the key bar."""

from __future__ import annotations

from collections.abc import Iterable

from kc_tui.commands.command import Condition, Context, Subject

_OFF = frozenset({"stopped", "failed", "crashed"})
_ENDED = frozenset({"succeeded", "failed", "cancelled", "notice"})


def has_rows(context: Context) -> str | None:
    """Need a list with something in it."""
    return None if context.row_count else "there is nothing in this list"


def has_subject(context: Context) -> str | None:
    """Need an object under the cursor."""
    return None if context.subjects else "there is nothing selected"


def _name(subjects: Iterable[Subject], rest: str) -> str:
    names = [subject.name for subject in subjects]
    return f"{names[0]} {rest}" if len(names) == 1 else f"all {len(names)} marked: {rest}"


def _refuse_unmanaged(context: Context) -> str | None:
    if not context.subjects:
        return "there is no VM selected"
    foreign = [subject for subject in context.subjects if subject.is_foreign]
    if foreign:
        return f"{foreign[0].name} is not KC's: it is shown, never touched"
    busy = [subject for subject in context.subjects if subject.busy]
    return f"{busy[0].name} is busy: {busy[0].busy}" if busy else None


def can_start(context: Context) -> str | None:
    """Need a VM that is off."""
    if reason := _refuse_unmanaged(context):
        return reason
    if any(subject.state in _OFF for subject in context.subjects):
        return None
    return _name(context.subjects, f"is {context.subjects[0].state or 'not stopped'} already")


def is_running(verb: str) -> Condition:
    """Need a VM that is on, for a verb such as `stop`."""

    def condition(context: Context) -> str | None:
        if reason := _refuse_unmanaged(context):
            return reason
        if any(subject.state not in _OFF for subject in context.subjects):
            return None
        return _name(context.subjects, f"is {context.subjects[0].state}: there is nothing to {verb}")

    return condition


def is_in_state(state: str, verb: str) -> Condition:
    """Need a VM in a state, for a verb such as `pause`."""

    def condition(context: Context) -> str | None:
        if reason := _refuse_unmanaged(context):
            return reason
        if any(subject.state == state for subject in context.subjects):
            return None
        return _name(context.subjects, f"is {context.subjects[0].state}: there is nothing to {verb}")

    return condition


def is_one(*, on: bool = False, own_disks: bool = False) -> Condition:
    """Need one single VM of ours with no operation on it; one that is `on`, one whose disks are KC's."""

    def condition(context: Context) -> str | None:
        if len(context.subjects) > 1:
            return "this is done to one VM at a time: take the marks away first"
        if reason := _refuse_unmanaged(context):
            return reason
        subject = context.subjects[0]
        if own_disks and subject.is_adopted:
            return f"{subject.name} was adopted: its disks are not KC's"
        return f"{subject.name} is {subject.state}: start it first" if on and subject.state in _OFF else None

    return condition


def has_own_disks(context: Context) -> str | None:
    """Need VMs of ours, whose disks are ours too."""
    if reason := _refuse_unmanaged(context):
        return reason
    adopted = [subject for subject in context.subjects if subject.is_adopted]
    return f"{adopted[0].name} was adopted: its disks are not KC's" if adopted else None


def is_foreign(context: Context) -> str | None:
    """Need one single domain that is not KC's."""
    if not context.subjects:
        return "there is no VM selected"
    if len(context.subjects) > 1:
        return "one domain is adopted at a time: take the marks away first"
    subject = context.subjects[0]
    return None if subject.is_foreign else f"{subject.name} is KC's already"


def has_console(context: Context) -> str | None:
    """Need one single VM that is on."""
    if not context.subjects:
        return "there is no VM selected"
    if len(context.subjects) > 1:
        return "a console shows one VM: take the marks away first"
    subject = context.subjects[0]
    if subject.is_foreign:
        return f"{subject.name} is not KC's: it is shown, never touched"
    return f"{subject.name} is {subject.state}: start it first" if subject.state in _OFF else None


def can_delete(context: Context) -> str | None:
    """Need a VM of ours with no operation on it."""
    return _refuse_unmanaged(context)


def can_change(context: Context) -> str | None:
    """Need objects of ours with no operation on them."""
    return _refuse_unmanaged(context) if context.subjects else "there is nothing selected"


def has_one(word: str) -> Condition:
    """Need one single object of ours, for something that shows one (`word`)."""

    def condition(context: Context) -> str | None:
        if not context.subjects:
            return "there is nothing selected"
        if len(context.subjects) > 1:
            return f"{word} shows one object: take the marks away first"
        subject = context.subjects[0]
        return f"{subject.name} is not KC's: it is shown, never touched" if subject.is_foreign else None

    return condition


def can_undo(context: Context) -> str | None:
    """Need objects of ours with more than one version, and no operation on them."""
    if reason := can_change(context):
        return reason
    if any(subject.version > 1 for subject in context.subjects):
        return None
    return _name(context.subjects, "has one version: there is no change to take back")


def can_edit(context: Context) -> str | None:
    """Need one single object of ours with no operation on it."""
    return has_one("an editor")(context) or can_change(context)


def can_cancel(context: Context) -> str | None:
    """Need an operation that has not ended."""
    if not context.subjects:
        return "there is no operation selected"
    return "it has ended already" if all(subject.state in _ENDED for subject in context.subjects) else None


def is_in_trash(context: Context) -> str | None:
    """Need entries of the trash that nothing is being done to."""
    if not context.subjects:
        return "there is nothing selected"
    busy = [subject for subject in context.subjects if subject.busy]
    return f"{busy[0].name} is busy: {busy[0].busy}" if busy else None
