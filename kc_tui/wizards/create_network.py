"""The wizard for a network: a new one, or another shape of one there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from textual import on, work

from backend.errors import KCError
from backend.model.documents import Document
from backend.model.kinds import NETWORK, VM
from backend.service import Accepted, Preview, Service
from backend.text import sanitise
from kc_tui.cleaning import clean
from kc_tui.clipboard import CopyRequested
from kc_tui.commands import BarEntry
from kc_tui.screens.changing import describe_cuts, describe_notice, is_overtaken
from kc_tui.session import Session
from kc_tui.state.glyphs import Glyphs
from kc_tui.state.lines import BLANK, Line, heading, labelled
from kc_tui.state.network_draft import NetworkDraft
from kc_tui.state.network_facts import describe_facts
from kc_tui.state.network_wishes import (
    STEPS,
    TITLES,
    build_arguments,
    build_changes,
    build_document,
    build_spec,
    describe_error,
    list_fields,
    list_hidden,
    locate_error,
    read_texts,
)
from kc_tui.state.roles import Role
from kc_tui.state.table import Run
from kc_tui.state.wizard import Wizard
from kc_tui.wizards.entry_page import EntryPage, FormPage
from kc_tui.wizards.page import Page
from kc_tui.wizards.review import ReviewPage
from kc_tui.wizards.shell import WizardScreen

_LABEL: Final = 15
_FRAME: Final = 4
_REVIEW: Final = "review"


class NetworkReviewPage(ReviewPage):
    """What would be made or changed, and the equivalent command."""

    def __init__(self, verb: str, leave_word: str, glyphs: Glyphs) -> None:
        super().__init__(glyphs)
        self._verb = verb
        self._leave_word = leave_word

    def keys(self) -> Sequence[BarEntry]:
        """Return what the key bar shows."""
        return (
            BarEntry("enter", "enter", self._verb, 1),
            BarEntry("copy", "y", "copy the command", 3),
            BarEntry("back", "shift-tab", "back", 5),
            BarEntry("leave", "esc", self._leave_word, 2),
        )


class CreateNetworkWizard(WizardScreen):
    """Four pages; the result is the network's document, or None where the wizard was left.

    With `document` it changes that network. The texts of a new one outlive leaving, and an error.
    """

    def __init__(self, session: Session, document: Document | None = None) -> None:
        self.session = session
        self._before = document
        self._preview: Preview | None = None
        self._wished: Document | None = None
        is_new = document is None
        self.draft = session.remembered.network_draft if is_new else NetworkDraft(STEPS[0].id)
        self._texts = read_texts(document["spec"]) if document is not None else {}
        fields = list_fields(self._taken_names, self._vm_names, is_new=is_new)
        self._initials = {field.name: field.initial for step in fields for field in fields[step]}
        self._began_with = {**self._initials, **self._texts}
        leave_word = "leave (draft is kept)" if is_new else "leave"
        self.form_pages = {
            step: FormPage(
                TITLES[step], "review" if step == "more" else "next", fields[step], list_hidden, id=f"page-{step}"
            )
            for step in fields
        }
        for page in self.form_pages.values():
            page.leave_word = leave_word
        self.review_page = NetworkReviewPage("create" if is_new else "change", leave_word, session.glyphs)
        pages: dict[str, Page] = {**self.form_pages, _REVIEW: self.review_page}
        title = "New network" if document is None else f"Change {document.get('name', '')}"
        super().__init__(session, title, Wizard(STEPS, self.draft.step), pages)

    async def on_mount(self) -> None:
        """Show the page where the draft stands."""
        self._fill()
        await self.show()

    def _fill(self) -> None:
        for page in self.form_pages.values():
            page.load({**self._texts, **self.draft.values})

    def _taken_names(self) -> frozenset[str]:
        return frozenset(str(item.get("name", "")) for item in self.session.inventory.documents(NETWORK.name))

    def _vm_names(self) -> frozenset[str]:
        found = self.session.inventory.documents(VM.name)
        return frozenset(str(item.get("name", "")) for item in found if not item.get("status", {}).get("foreign"))

    # --- values

    @property
    def values(self) -> dict[str, str]:
        """What all fields hold, by their names."""
        return {name: text for page in self.form_pages.values() for name, text in page.values.items()}

    @property
    def name_text(self) -> str:
        """The network's name."""
        return str(self._before.get("name", "")) if self._before is not None else self.values["name"]

    def _build(self) -> Document | None:
        """Return the document that is wished for; None where a text does not fit, or there is no name yet."""
        try:
            if self._before is None:
                # A name is wanted first; that is told when the page is left without one.
                return build_document(self.name_text, self.values) if self.name_text else None
            return self._merge(self._before)
        except ValueError:
            return None

    def _merge(self, current: Document) -> Document:
        """Return the wish for a network as it is now: what the user did not touch stays as others have made it."""
        touched = {name: text for name, text in self.values.items() if text != self._began_with[name]}
        texts = {**self._initials, **read_texts(current["spec"]), **touched}
        return {
            **{key: current[key] for key in ("kind", "name", "version")},
            "spec": build_spec(texts, current["spec"]),
        }

    def collect(self) -> None:
        """Take what the pages say into the draft."""
        values = {name: text for name, text in self.values.items() if text != self._initials[name]}
        self.draft = NetworkDraft(self.wizard.step.id, values)

    def collect_step(self) -> None:
        """Take into the draft where the wizard stands."""
        self.draft = replace(self.draft, step=self.wizard.step.id)

    def keep(self) -> None:
        """Keep the draft of a new network for the next time."""
        if self._before is None:
            self._remember(self.draft)

    def _remember(self, draft: NetworkDraft) -> None:
        self.session.remember(replace(self.session.remembered, network_draft=draft))
        self.save_soon()

    async def start_over(self) -> None:
        """Begin with an empty draft, or with the network as it is."""
        self.draft = NetworkDraft(STEPS[0].id)
        self.keep()
        self.wizard = Wizard(STEPS)
        self._fill()
        await self.show()

    # --- checks

    def arrive(self) -> None:
        """Show the whole on the last page, and ask the service what it thinks of it."""
        self._wished = self._preview = None
        if self.wizard.step.id == _REVIEW:
            self._show_review()
        self._check()

    @on(EntryPage.Edited)
    def _edited(self, event: EntryPage.Edited) -> None:
        event.stop()
        self._check()

    @work(exclusive=True, group="check")
    async def _check(self) -> None:
        """Ask the service what it would do; nothing is written."""
        step = self.wizard.step.id
        error = await self._look()
        if step != self.wizard.step.id or self.is_creating:
            return
        if step == _REVIEW:
            self._show_review()
        if error is not None:
            self._show_error(error)

    async def may_go_on(self) -> bool:
        """Return whether the service has nothing against the fields of this page."""
        error = await self._look()
        if error is None or not self._show_error(error):
            return True
        self.page.enter()
        return False

    async def _look(self) -> KCError | None:
        """Have the service preview the wish; return what it has against it."""
        if self._build() is None:
            return None
        try:
            self._wished, self._preview = await self._preview_wish()
        except KCError as error:
            self._wished = self._preview = None
            return error
        return None

    async def _preview_wish(self) -> tuple[Document, Preview]:
        """Return the wish on top of the network as it is at this moment, and what it would do."""
        gateway, name = self.session.gateway, self.name_text
        if self._before is None:
            wish = build_document(name, self.values)
        else:
            wish = self._merge(
                await gateway.call(lambda service: service.get(NETWORK.name, name, observe=False), lane="store")
            )
        return wish, await gateway.preview(lambda service: service.preview(wish))

    def _show_error(self, error: KCError) -> bool:
        """Show an error where it belongs on the page in front; return whether it belongs there."""
        step, field = locate_error(error)
        if self.wizard.step.id == _REVIEW:
            self.review_page.show_error("", sanitise(str(error), 400))
        elif step == self.wizard.step.id:
            self.page.show_error(field, describe_error(error))
            return True
        return False

    # --- the review, and the making

    def _show_review(self) -> None:
        document = self._wished or self._build()
        if document is None:
            self.review_page.show((), (), ())
            return
        if self._before is None:
            lines = self._describe_new(self._preview.after if self._preview is not None else document)
            words = build_arguments(self.name_text, document["spec"])
        else:
            lines = self._describe_change()
            before = (self._preview.before if self._preview is not None else None) or self._before
            words = build_changes(self.name_text, before["spec"], clean(document)["spec"])
        self.review_page.show(lines, (), words)
        if self._preview is not None:
            self.review_page.say("")

    def _describe_new(self, after: Document) -> list[Line]:
        effects = self._preview.effects if self._preview is not None else []
        facts = [
            labelled(label if number == 0 else "", text, width=_LABEL)
            for label, whole in describe_facts({**after, "status": {}})
            for number, text in enumerate(whole.split("\n"))
        ]
        lines: list[Line] = [(Run(self.name_text, Role.STRONG),), *facts, BLANK]
        if effects:
            lines += [heading("Enter makes on the host"), *((Run(f"  {effect}"),) for effect in effects)]
        return lines

    def _describe_change(self) -> list[Line]:
        from kc_tui.dialogs.change import Part, draw_parts  # noqa: PLC0415 - not for a new one

        preview = self._preview
        if preview is None or self._before is None:
            return [(Run("Looking what would change…", Role.MUTED),)]
        notice = describe_notice(preview, int(self._before.get("version", 0)))
        part = Part(self.name_text, preview.changes, preview.effects, notice)
        return draw_parts((part,), self.app.size.width - _FRAME, self.session.glyphs, is_short=True)

    @on(ReviewPage.CopyAsked)
    def _copy(self, event: ReviewPage.CopyAsked) -> None:
        event.stop()
        self.post_message(CopyRequested(self.review_page.command_text, "the command"))

    def finish(self) -> None:
        """Make it."""
        self._make()

    @work(exclusive=True, group="make")
    async def _make(self) -> None:
        if self._build() is None:
            self.refuse("a field is wrong: shift-tab goes back to it")
            return
        self.is_creating = True
        self.review_page.say("Asking for it…")
        try:
            if not await self._is_wanted():
                self.review_page.say("")
                return
            accepted = await self.session.gateway.change(self._bind())
        except KCError as error:
            self.keep()
            await self._tell(error)
            return
        finally:
            self.is_creating = False
        if self._before is None:
            self._remember(NetworkDraft())
        self.session.take_accepted(accepted)
        self.dismiss(accepted.document)

    async def _is_wanted(self) -> bool:
        """Ask about VMs that lose their line for a moment; raise KCError where the service refuses."""
        if self._preview is None and (error := await self._look()) is not None:
            raise error
        preview = self._preview
        if preview is not None and preview.before is not None and not preview.changes:
            self.refuse("nothing would change")
            return False
        if preview is None or not preview.cuts:
            return True
        from kc_tui.dialogs.confirm import ConfirmDialog, Question  # noqa: PLC0415 - most changes cut nobody

        title, text = f"Change {self.name_text} now?", describe_cuts(preview)
        question = Question(title, text, "change", preview.cuts)
        answer: bool | None = await self.app.push_screen_wait(ConfirmDialog(question))
        return answer is True

    def _bind(self) -> Callable[[Service], Accepted]:
        """Return the call that makes what was shown."""
        wish, preview = self._wished or {}, self._preview
        if preview is None or preview.before is None:
            return lambda service: service.create(wish)
        version = int(preview.before["version"])
        body = {key: wish[key] for key in ("kind", "name", "spec")}
        return lambda service: service.update(body, if_version=version)

    async def _tell(self, error: KCError) -> None:
        """Go to the page where the error belongs, and show it there beside its field."""
        if is_overtaken(error):
            # The difference to what it is now is shown before anything is asked again.
            self.arrive()
            return
        step, _ = locate_error(error)
        if step and self.wizard.go(step):
            await self.show()
        self._show_error(error)
        self.page.enter()
