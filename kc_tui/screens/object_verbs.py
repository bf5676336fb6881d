"""What can be done to every object that has versions: history, undo, edit, delete."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from textual import work

from backend.model.kinds import VM, find_kind
from backend.service import Accepted, Service
from kc_tui.commands import Context, Subject
from kc_tui.messages import ErrorOccurred, OpenHistory
from kc_tui.screens.changing import ChangingScreen, propose_undo
from kc_tui.state.formatting import format_age, join_words, pluralise

_LEFT = "KC manages it no more. Its domain and its disks stay with libvirt, as they are."


def name_subjects(subjects: Sequence[Subject]) -> str:
    """Return what a question calls its objects: the name of one, the number of several."""
    if len(subjects) == 1:
        return subjects[0].name
    kind = find_kind(subjects[0].kind) if len({subject.kind for subject in subjects}) == 1 else None
    return pluralise(len(subjects), kind.title if kind is not None else "object")


class ObjectVerbs(ChangingScreen):
    """The verbs of objects; `command_context` says upon which."""

    def do_object_history(self, context: Context) -> None:
        """Show the versions of the one object that is selected."""
        subject = context.subjects[0]
        self.post_message(OpenHistory(find_kind(subject.kind).name, subject.name, subject.uid))

    @work
    async def do_object_undo(self, context: Context) -> None:
        """Take the last change of what is selected back, after it was shown."""
        subjects = [subject for subject in context.subjects if subject.version > 1]
        proposals = [propose_undo(find_kind(item.kind).name, item.name, item.version) for item in subjects]
        await self.ask_and_change(f"Take back the last change of {name_subjects(subjects)}?", "undo", proposals)

    @work(exclusive=True, group="edit")
    async def do_object_edit(self, context: Context) -> None:
        """Edit the document of the one object that is selected."""
        from kc_tui.screens.editing import edit_document  # noqa: PLC0415 - when it is needed

        subject = context.subjects[0]
        await edit_document(self, find_kind(subject.kind), subject)

    # --- deletion

    def do_image_delete(self, context: Context) -> None:
        """Delete the selected images."""
        self.ask_and_delete(context.subjects)

    def do_network_delete(self, context: Context) -> None:
        """Delete the selected networks."""
        self.ask_and_delete(context.subjects)

    def do_type_delete(self, context: Context) -> None:
        """Delete the selected machine types."""
        self.ask_and_delete(context.subjects)

    @work
    async def ask_and_delete(self, subjects: Sequence[Subject]) -> None:
        """Ask whether to the trash or for good, then delete each; what is refused is told, the rest goes on."""
        from kc_tui.dialogs.delete import NOW, DeleteDialog, DeleteQuestion  # noqa: PLC0415 - when it is needed

        question = DeleteQuestion(
            f"Delete {name_subjects(subjects)}?",
            self._describe_trash(subjects),
            describe_end(subjects),
            tuple(subject.name for subject in subjects),
        )
        answer = await self.app.push_screen_wait(DeleteDialog(question))
        if answer is None:
            return
        errors = await self.make_all([_bind_delete(subject, now=answer == NOW) for subject in subjects])
        for error in errors:
            if error is not None:
                self.post_message(ErrorOccurred(error))
        self.acted()

    def _describe_trash(self, subjects: Sequence[Subject]) -> str:
        """Return what follows from a deletion to the trash; empty where there is no grace time."""
        session = self.session
        grace = session.grace_hours * 3600
        if not grace:
            return ""
        if all(subject.is_adopted for subject in subjects):
            return f"{_LEFT} Until the trash forgets it, it can be taken up again from there."
        until = time.strftime("%d %b %H:%M", time.localtime(session.clock() + grace))
        is_one, are_vms = len(subjects) == 1, subjects[0].kind == VM.command
        goes, its, they = ("It goes", "its", "it") if is_one else ("They go", "their", "they")
        disks = f" with {its} disks" if are_vms else ""
        text = f"{goes} to the trash{disks}. Until {until} ({format_age(grace)}) {they} can be brought back from there."
        running = [subject.name for subject in subjects if are_vms and subject.state == "running"]
        if not running:
            return text
        return f"The power {'' if is_one else f'of {join_words(running)} '}is cut. {text}"


def describe_end(subjects: Sequence[Subject]) -> str:
    """Return what follows from a deletion for good."""
    its, is_, it = ("its", "is", "it") if len(subjects) == 1 else ("their", "are", "they")
    if all(subject.is_adopted for subject in subjects):
        return _LEFT
    if subjects[0].kind == VM.command:
        return f"The power is cut, and {its} disks are destroyed. This cannot be taken back."
    return f"{it.capitalize()} {is_} removed from the host. This cannot be taken back."


def bind_act(name: str, action: str, parameters: dict[str, Any] | None = None) -> Callable[[Service], Accepted]:
    """Return the call that does something to a VM."""
    return lambda service: service.act(name, action, parameters)


def _bind_delete(subject: Subject, *, now: bool) -> Callable[[Service], Accepted]:
    kind = find_kind(subject.kind).name
    return lambda service: service.delete(kind, subject.name, now=now)
