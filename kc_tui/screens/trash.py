"""The trash: what was deleted and can be brought back, or removed for good."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

from textual import work

from backend.errors import KCError
from backend.model.documents import Document
from backend.model.kinds import TRASH
from backend.service import Accepted, Service
from kc_tui.commands import Context, Danger, Scope, Subject
from kc_tui.messages import ErrorOccurred, OpenHistory
from kc_tui.screens.changing import ChangingScreen
from kc_tui.screens.item import ItemScreen
from kc_tui.screens.section import SectionScreen
from kc_tui.state import trash
from kc_tui.state.formatting import pluralise
from kc_tui.state.lines import Line
from kc_tui.state.listing import Entry
from kc_tui.state.remembered import Order
from kc_tui.state.table import Column, Empty

_GONE_FOR_GOOD: Final = (
    "What is left of it on the host is destroyed, its disks too. Nothing brings it back.",
    "What is left of them on the host is destroyed, their disks too. Nothing brings them back.",
)


class TrashVerbs(ChangingScreen):
    """The verbs of the trash, upon the entries in `context`."""

    def find_entry(self, subject: Subject) -> Document:
        """Return the entry of the trash that a subject is."""
        return self.session.inventory.get(TRASH.name, subject.uid) or {}

    def do_trash_history(self, context: Context) -> None:
        """Show the versions of a deleted object."""
        target = trash.target_of(self.find_entry(context.subjects[0]))
        self.post_message(OpenHistory(str(target.get("kind", "")), str(target.get("name", "")), ""))

    @work
    async def do_trash_restore(self, context: Context) -> None:
        """Bring deleted objects back; VMs whose disks are gone ask whether to make new ones."""
        targets = [trash.target_of(self.find_entry(subject)) for subject in context.subjects]
        errors = await self.make_all([_bind_restore(target, new_disks=False) for target in targets])
        bare: list[Mapping[str, Any]] = []
        for target, error in zip(targets, errors, strict=True):
            if error is not None and error.details.get("reason") == "disks":
                bare.append(target)
            elif error is not None:
                self.post_message(ErrorOccurred(error))
        if bare and await self._ask_for_new_disks([str(target["name"]) for target in bare]):
            for error in await self.make_all([_bind_restore(target, new_disks=True) for target in bare]):
                if error is not None:
                    self.post_message(ErrorOccurred(error))
        self.acted()

    async def _ask_for_new_disks(self, names: Sequence[str]) -> bool:
        from kc_tui.dialogs.confirm import ConfirmDialog, Question  # noqa: PLC0415 - when it is needed

        is_one = len(names) == 1
        title = f"Restore {names[0] if is_one else pluralise(len(names), 'VM')} with new disks?"
        whose = "Its disks are gone" if is_one else "Their disks are gone"
        text = f"{whose}. New ones can be made from the image; what was on the old ones does not come back."
        question = Question(title, text, "make new disks", tuple(names), keep="leave")
        answer: bool | None = await self.app.push_screen_wait(ConfirmDialog(question))
        return answer is True

    @work
    async def do_trash_delete(self, context: Context) -> None:
        """Remove entries of the trash for good."""
        await self._ask_and_purge("delete for good", list(context.subjects))

    @work
    async def do_trash_empty(self, _context: Context) -> None:
        """Remove everything in the trash for good."""
        entries = self.session.inventory.documents(TRASH.name)
        names = sorted(str(trash.target_of(entry).get("name", "")) for entry in entries)
        if await self._ask("Empty the trash?", "empty it", names):
            await self._purge(None)

    async def _ask_and_purge(self, verb: str, subjects: list[Subject]) -> None:
        whom = subjects[0].name if len(subjects) == 1 else pluralise(len(subjects), "deleted object")
        names = [subject.name for subject in subjects]
        entries = [str(self.find_entry(subject).get("name", "")) for subject in subjects]
        if await self._ask(f"Delete {whom} for good?", verb, names):
            await self._purge([name for name in entries if name])

    async def _ask(self, title: str, verb: str, names: Sequence[str]) -> bool:
        from kc_tui.dialogs.confirm import ConfirmDialog, Question  # noqa: PLC0415 - when it is needed

        text = _GONE_FOR_GOOD[len(names) > 1]
        question = Question(title, text, verb, tuple(names), Danger.TYPE_NAME)
        answer: bool | None = await self.app.push_screen_wait(ConfirmDialog(question))
        return answer is True

    async def _purge(self, names: list[str] | None) -> None:
        try:
            begun = await self.session.gateway.change_all(lambda service: service.empty_trash(names))
        except KCError as error:
            self.post_message(ErrorOccurred(error))
            return
        for accepted in begun:
            self.take(accepted)
        self.acted()


class TrashScreen(SectionScreen[Entry], TrashVerbs):
    """All that was deleted and can still be brought back."""

    SCOPES = frozenset({Scope.LIST, Scope.TRASH})
    SECTION: ClassVar[str] = "trash"
    KIND: ClassVar[str] = TRASH.name
    WORD: ClassVar[str] = "trash"
    COLUMNS: ClassVar[tuple[Column, ...]] = trash.COLUMNS
    EMPTY: ClassVar[Empty] = Empty("The trash is empty", "what you delete stays here until its grace time has passed")

    def default_order(self) -> Order:
        """Return what was deleted last first."""
        return Order("deleted")

    def build(self, document: Document) -> Entry:
        """Return what the list shows of a deleted object."""
        session = self.session
        return trash.build_entry(document, session.operation_on(document), session.clock(), session.glyphs)

    def describe(self, uid: str) -> Sequence[Line]:
        """Return all about a deleted object."""
        document = self.session.inventory.get(TRASH.name, uid)
        return () if document is None else trash.describe(document, self.session.clock(), self.session.glyphs)

    def make_page(self, uid: str) -> TrashPage:
        """Return the page of a deleted object."""
        return TrashPage(self, uid)


class TrashPage(ItemScreen, TrashVerbs):
    """All about one deleted object."""


def _bind_restore(target: Mapping[str, Any], *, new_disks: bool) -> Callable[[Service], Accepted]:
    kind, name, uid = (str(target.get(key, "")) for key in ("kind", "name", "uid"))
    return lambda service: service.restore(kind, name, uid=uid, new_disks=new_disks)
