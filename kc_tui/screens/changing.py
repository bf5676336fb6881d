"""Changes of documents that are shown before they are made, and again where somebody else was faster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from backend.errors import ConflictError, KCError
from backend.model.documents import Document
from backend.service import Accepted, Preview, Service
from backend.text import sanitise
from kc_tui.messages import ErrorOccurred
from kc_tui.screens.session_screen import SessionScreen
from kc_tui.state.formatting import join_words

if TYPE_CHECKING:
    from backend.model.changes import Change
    from kc_tui.dialogs.form import Form
    from kc_tui.state.form_field import FormField
    from kc_tui.widgets.line_view import Layout

Item = TypeVar("Item")
AT_ONCE: Final = 4
"""How many of several objects are asked for at the same time."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A change of one object: `look` previews it, `make` makes it on top of the version that was previewed.

    `seen` is the version that the user saw when the change was asked for, 0 where none is known.
    """

    kind: str
    name: str
    seen: int
    look: Callable[[Service], Preview]
    make: Callable[[Service, int], Accepted]


def propose_undo(kind: str, name: str, seen: int) -> Proposal:
    """Return the proposal to take the newest change of an object back."""

    def look(service: Service) -> Preview:
        current = service.get(kind, name, observe=False)
        versions = service.history(kind, name)
        earlier = [item.document for item in versions if item.document and item.version < current["version"]]
        if not earlier or earlier[-1] is None:
            raise ConflictError(f"{kind} {name}", "it has one version", "there is no change to take back")
        return preview_old(service, current, earlier[-1])

    return Proposal(kind, name, seen, look, lambda service, version: service.undo(kind, name, if_version=version))


def propose_rollback(kind: str, name: str, seen: int, version: int) -> Proposal:
    """Return the proposal to make an object again as it was in a version."""

    def look(service: Service) -> Preview:
        current = service.get(kind, name, observe=False)
        return preview_old(service, current, service.get(kind, name, observe=False, version=version))

    def make(service: Service, current: int) -> Accepted:
        return service.rollback(kind, name, version, if_version=current)

    return Proposal(kind, name, seen, look, make)


def propose_update(kind: str, name: str, seen: int, wish: Callable[[Document], Document]) -> Proposal:
    """Return the proposal to write another spec; `wish` gives it from the one that the object has at that moment."""

    def ask(service: Service) -> Document:
        current = service.get(kind, name, observe=False)
        return {key: current[key] for key in ("kind", "name", "version")} | {"spec": wish(current["spec"])}

    def make(service: Service, version: int) -> Accepted:
        return service.update(ask(service), if_version=version)

    return Proposal(kind, name, seen, lambda service: service.preview(ask(service)), make)


def preview_old(service: Service, current: Document, old: Document) -> Preview:
    """Return what writing an old version's metadata and spec over the current version would do."""
    wish = {key: current[key] for key in ("kind", "name", "version")}
    return service.preview({**wish, "metadata": old["metadata"], "spec": old["spec"]})


def is_overtaken(error: KCError) -> bool:
    """Return whether a change was refused because somebody else has changed the object meanwhile."""
    return isinstance(error, ConflictError) and isinstance(error.details.get("current"), int)


def describe_overtaking(before: Mapping[str, Any] | None, seen: int) -> str:
    """Return what happened to an object since the user saw it at a version; empty where nothing did."""
    version = before.get("version", 0) if before is not None else 0
    if not seen or version == seen or before is None:
        return ""
    who = sanitise(before.get("updatedBy") or "somebody", 60)
    return f"{who} has changed it meanwhile: it is at version {version}, and this is the difference to that."


def describe_cuts(preview: Preview) -> str:
    """Return which running VMs are without a line for a moment; empty where none is."""
    if not preview.cuts:
        return ""
    verb = "is" if len(preview.cuts) == 1 else "are"
    return f"{join_words(preview.cuts)} {verb} without a line for a moment."


def describe_notice(preview: Preview, seen: int) -> str:
    """Return what a person has to know before a change is made."""
    return " ".join(part for part in (describe_overtaking(preview.before, seen), describe_cuts(preview)) if part)


class ChangingScreen(SessionScreen):
    """A screen whose verbs change documents."""

    def acted(self) -> None:
        """Do what is due after a verb was carried out."""

    def refuse(self, reason: str) -> None:
        """Say in the key bar why nothing is done."""
        refuse: Any = getattr(self.app, "refuse")  # noqa: B009 - every app of commands has one
        refuse(reason)

    def take(self, accepted: Accepted) -> None:
        """Show at once what a change made."""
        self.session.take_accepted(accepted)
        document = accepted.document
        self.documents_changed({str(document.get("kind", "")): {str(document.get("uid", ""))}})

    async def make_all(self, works: Sequence[Callable[[Service], Accepted]]) -> list[KCError | None]:
        """Make changes, a few at a time, and show them; return the error of each, none of them told yet."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def make(work: Callable[[Service], Accepted]) -> KCError | None:
            async with gate:
                try:
                    accepted = await self.session.gateway.change(work)
                except KCError as error:
                    return error
            self.take(accepted)
            return None

        return await asyncio.gather(*map(make, works))

    async def make_rest(self, rest: list[Item], bind: Callable[[Item], Callable[[Service], Accepted]]) -> None:
        """Make a change for each; what fails stays in `rest`, and the first error is raised: a KCError."""
        errors = await self.make_all([bind(item) for item in rest])
        rest[:] = [item for item, error in zip(rest, errors, strict=True) if error is not None]
        first = next((error for error in errors if error is not None), None)
        if first is not None:
            raise first

    async def ask_and_change(self, title: str, verb: str, proposals: Sequence[Proposal]) -> None:
        """Show what proposals would do, make them after a yes, and ask again about those that were overtaken."""
        from kc_tui.dialogs.change import YES, ChangeDialog, ChangeQuestion, Part  # noqa: PLC0415 - when it is needed

        while proposals:
            looked = await self._look_at_all(proposals)
            if not looked:
                return
            parts = tuple(Part(*part) for part in _make_parts(looked))
            if not any(part.changes for part in parts):
                self.refuse(f"{parts[0].name} is like that already: nothing would change")
                return
            question = ChangeQuestion(title, verb, parts)
            if await self.app.push_screen_wait(ChangeDialog(question, glyphs=self.session.glyphs)) != YES:
                return
            works = [_bind(item, preview) for item, preview in looked]
            errors = await self.make_all(works)
            overtaken = [error is not None and is_overtaken(error) for error in errors]
            for error, is_again in zip(errors, overtaken, strict=True):
                if error is not None and not is_again:
                    self.post_message(ErrorOccurred(error))
            proposals = [item for (item, _), is_again in zip(looked, overtaken, strict=True) if is_again]
        self.acted()

    async def _look_at_all(self, proposals: Sequence[Proposal]) -> list[tuple[Proposal, Preview]]:
        """Return what proposals would do; those that cannot be done are told of and left out."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def look(proposal: Proposal) -> Preview | KCError:
            async with gate:
                try:
                    return await self.session.gateway.preview(proposal.look)
                except KCError as error:
                    return error

        found = await asyncio.gather(*map(look, proposals))
        looked = []
        for proposal, preview in zip(proposals, found, strict=True):
            if isinstance(preview, KCError):
                self.post_message(ErrorOccurred(preview))
            else:
                looked.append((proposal, preview))
        return looked

    async def ask_in_form(
        self,
        title: str,
        verb: str,
        fields: Sequence[FormField],
        propose: Callable[[Mapping[str, str]], Sequence[Proposal]],
    ) -> None:
        """Let the user fill fields in while what they would do to documents is shown, and make it after a yes.

        Where some of several cannot be changed, the form stays for those.
        """
        from kc_tui.dialogs.change import Part, draw_parts  # noqa: PLC0415 - when it is needed
        from kc_tui.dialogs.form import Form  # noqa: PLC0415

        looked: list[tuple[Proposal, Preview]] = []
        is_first = True

        async def look(values: Mapping[str, str]) -> Layout:
            left = {proposal.name for proposal, _ in looked}
            wanted = [item for item in propose(values) if is_first or item.name in left]
            looked[:] = [(proposal, await self.session.gateway.preview(proposal.look)) for proposal in wanted]
            parts = tuple(Part(*part) for part in _make_parts(looked))
            return lambda width: draw_parts(parts, width, self.session.glyphs, is_short=True)

        async def make(_values: Mapping[str, str]) -> None:
            nonlocal is_first
            is_first = False
            await self.make_rest(looked, lambda item: _bind(*item))

        if await self.fill_in(Form(title, verb, make, tuple(fields), look)):
            self.acted()

    async def fill_in(self, form: Form) -> bool:
        """Show a form; return whether what it asks for was made."""
        from kc_tui.dialogs.form import FormDialog  # noqa: PLC0415 - when it is needed

        done: bool | None = await self.app.push_screen_wait(FormDialog(form, glyphs=self.session.glyphs))
        return done is True


def _make_parts(
    looked: Sequence[tuple[Proposal, Preview]],
) -> list[tuple[str, Sequence[Change], Sequence[str], str]]:
    """Return what a question shows of each proposal: name, differences, effects, and what happened meanwhile."""
    return [
        (item.name, preview.changes, preview.effects, describe_notice(preview, item.seen)) for item, preview in looked
    ]


def _bind(proposal: Proposal, preview: Preview) -> Callable[[Service], Accepted]:
    version = preview.before["version"] if preview.before is not None else 0
    return lambda service: proposal.make(service, version)
