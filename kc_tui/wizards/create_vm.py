"""The wizard for a new VM: image, networks, machine type, name and size, review."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from textual import events, on, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import ModalScreen

from backend.errors import KCError
from backend.model.documents import Document
from backend.model.parameters import check_parameters
from backend.text import sanitise
from kc_tui.clipboard import CopyRequested
from kc_tui.screens.parts import LEAST_HEIGHT, LEAST_WIDTH, tell_if_too_small
from kc_tui.state.create_vm import STEPS, complain_about_name, locate_error
from kc_tui.state.create_vm_review import KEY_PREFIX, START
from kc_tui.state.create_vm_rows import IMAGE_COLUMNS, TYPE_COLUMNS
from kc_tui.state.draft import Draft
from kc_tui.state.wizard import Wizard
from kc_tui.widgets.key_bar import KeyBar
from kc_tui.wizards.choices import Choices
from kc_tui.wizards.fields import FieldsPage
from kc_tui.wizards.networks import NetworkPage
from kc_tui.wizards.page import Page, StepLine
from kc_tui.wizards.pick import ImagePage, TypePage
from kc_tui.wizards.review import ReviewPage, Switches

_WIDTHS: Final = [(0, "-too-narrow"), (LEAST_WIDTH, "-narrow")]
_HEIGHTS: Final = [(0, "-too-low"), (LEAST_HEIGHT, "-high")]


class CreateVMWizard(ModalScreen[Document | None], inherit_bindings=False):
    """Five pages; its result is the VM's document, or None where it was left.

    It keeps every value: in the session whenever a page is done or left, and there it survives an error too.
    """

    def __init__(self, choices: Choices) -> None:
        super().__init__()
        self.HORIZONTAL_BREAKPOINTS = _WIDTHS
        self.VERTICAL_BREAKPOINTS = _HEIGHTS
        self.choices = choices
        self.session = choices.session
        self.draft = choices.begin()
        self.wizard = Wizard(STEPS, self.draft.step)
        glyphs = self.session.glyphs
        self.steps = StepLine("New VM", glyphs)
        self.image_page = ImagePage(
            IMAGE_COLUMNS, choices.images, choices.describe_image, glyphs, id="page-image"
        )  # fmt: skip
        self.network_page = NetworkPage(choices.networks, choices.describe_network, choices.find_network, glyphs)
        self.type_page = TypePage(
            TYPE_COLUMNS, lambda: choices.types(self.draft.image), choices.describe_type, glyphs, id="page-type"
        )
        self.fields_page = FieldsPage(self._complain_about_name)
        self.review_page = ReviewPage(glyphs)
        self.pages: dict[str, Page] = {
            "image": self.image_page,
            "network": self.network_page,
            "type": self.type_page,
            "name": self.fields_page,
            "review": self.review_page,
        }
        self.is_creating = False

    def compose(self) -> ComposeResult:
        """Lay out the steps, the pages and the keys."""
        with Vertical(classes="whole"):
            yield self.steps
            yield from self.pages.values()
            yield KeyBar()

    def on_resize(self) -> None:
        """Say so where the terminal is too small."""
        tell_if_too_small(self)

    async def on_mount(self) -> None:
        """Show the page where the draft stands."""
        self.network_page.load(self.draft.nics)
        await self._show()
        self._find_keys()

    @work
    async def _find_keys(self) -> None:
        await self.choices.find_keys()
        if self.wizard.step.id == "review":
            self._show_review()

    @property
    def page(self) -> Page:
        """The page in front."""
        return self.pages[self.wizard.step.id]

    def documents_changed(self, _changed: object) -> None:
        """Show what can be chosen now."""
        if self.children:
            self.page.documents_changed()

    # --- from page to page

    async def _show(self) -> None:
        # The line of steps, the page and the keys change in one picture.
        with self.app.batch_update():
            await self._show_page()

    async def _show_page(self) -> None:
        step = self.wizard.step.id
        if step == "name":
            machine_type = self.choices.find_type(self.draft.type)
            made_for = (self.draft.type, machine_type.get("version") if machine_type else None)
            await self.fields_page.load(
                self.choices.fields(self.draft), self.draft.name, self.draft.values, made_for
            )  # fmt: skip
        for page_id, page in self.pages.items():
            page.display = page_id == step
        self.steps.show(self.wizard.marks)
        self.page.enter()
        if step == "image":
            self.image_page.choose(self.draft.image)
        elif step == "network" and self.draft.nics:
            self.network_page.choose(self.draft.nics[0].network)
        elif step == "type":
            self.type_page.choose(self.draft.type)
        elif step == "review":
            self._show_review()
            self._check()
        self.refresh_keys()

    def refresh_keys(self) -> None:
        """Show the keys of the page."""
        self.query_one(KeyBar).show(self.page.keys())

    def _collect(self) -> None:
        """Take what the page in front says into the draft."""
        match self.wizard.step.id:
            case "image":
                self.draft = replace(self.draft, image=self.image_page.current or self.draft.image)
            case "network":
                self.draft = replace(self.draft, nics=self.network_page.chosen or self.draft.nics)
            case "type":
                self.draft = replace(self.draft, type=self.type_page.current or self.draft.type)
            case "name":
                page = self.fields_page
                self.draft = replace(self.draft, name=page.name_text, values=page.values)
        self.draft = replace(self.draft, step=self.wizard.step.id)

    def keep_draft(self) -> None:
        """Keep what the page in front says too: the application is about to end."""
        self._collect()
        self._keep()

    def _keep(self) -> None:
        self.session.remember(replace(self.session.remembered, draft=self.draft))

    @on(Page.Finished)
    async def _finished(self, event: Page.Finished) -> None:
        event.stop()
        if self.is_creating:
            return
        self._collect()
        if self.wizard.is_last:
            self._create()
            return
        self.wizard.forward()
        self.draft = replace(self.draft, step=self.wizard.step.id)
        self._keep()
        await self._show()

    @on(Page.Refused)
    def _refused(self, event: Page.Refused) -> None:
        event.stop()
        self.query_one(KeyBar).flash(event.reason)

    @on(Page.KeysChanged)
    def _keys_changed(self, event: Page.KeysChanged) -> None:
        event.stop()
        self.refresh_keys()

    async def _back(self) -> None:
        if self.is_creating or self.page.back():
            return
        self._collect()
        if self.wizard.back():
            await self._show()
        else:
            self.query_one(KeyBar).flash("this is the first page; esc leaves")

    def _leave(self) -> None:
        if self.page.leave():
            return
        self._collect()
        self._keep()
        self.dismiss(None)

    async def on_key(self, event: events.Key) -> None:
        """Go back, leave, or start over."""
        if event.key == "shift+tab":
            await self._back()
        elif event.key in ("escape", "ctrl+c"):
            self._leave()
        elif event.key == "ctrl+r":
            await self._start_over()
        else:
            return
        event.stop()
        event.prevent_default()

    async def _start_over(self) -> None:
        self.session.remember(replace(self.session.remembered, draft=Draft()))
        self.draft = self.choices.begin()
        self.wizard = Wizard(STEPS)
        self.fields_page.forget()
        self.network_page.load(self.draft.nics)
        await self._show()

    @on(KeyBar.Pressed)
    async def _pressed(self, event: KeyBar.Pressed) -> None:
        event.stop()
        match event.command_id:
            case "back":
                await self._back()
            case "leave":
                self._leave()
            case "enter":
                self.page.submit()
            case other:
                self.page.press(other)

    # --- checks

    def _complain_about_name(self, name: str) -> str:
        return complain_about_name(name, self.choices.taken_names())

    @on(FieldsPage.Edited)
    def _edited(self, event: FieldsPage.Edited) -> None:
        event.stop()
        self._collect()
        self._check_parameters()

    @work(exclusive=True, group="check")
    async def _check_parameters(self) -> None:
        """Check the values against the whole schema, which takes too long for each key."""
        values = self.choices.values(self.draft)
        machine_type = self.choices.find_type(self.draft.type)
        if values is None or machine_type is None:
            return
        spec, what = machine_type.get("spec", {}), f"VM {self.draft.name}"
        try:
            await self.session.gateway.run(lambda: check_parameters(values, spec, what))
        except KCError as error:
            self.fields_page.show_error(str(error.details.get("parameter", "")), sanitise(error.why, 200))

    @work(exclusive=True, group="check")
    async def _check(self) -> None:
        """Ask the service whether it would accept the VM; nothing is written."""
        document = self.choices.document(self.draft)
        if document is None:
            return
        try:
            await self.session.gateway.call(lambda service: service.check(document), lane="store")
        except KCError as error:
            self.review_page.show_error("", sanitise(str(error), 400))

    # --- the review, and the making

    def _show_review(self) -> None:
        lines, switches, words = self.choices.review(self.draft)
        self.review_page.show(lines, switches, words)

    @on(Switches.Toggled)
    def _toggled(self, event: Switches.Toggled) -> None:
        event.stop()
        if event.switch_id == START:
            self.draft = replace(self.draft, start=not self.draft.start)
        else:
            path = event.switch_id.removeprefix(KEY_PREFIX)
            chosen = [key.path for key in self.choices.chosen_keys(self.draft)]
            kept = [known for known in chosen if known != path] if path in chosen else [*chosen, path]
            self.draft = replace(self.draft, key_paths=tuple(kept))
        self._show_review()

    @on(ReviewPage.CopyAsked)
    def _copy(self, event: ReviewPage.CopyAsked) -> None:
        event.stop()
        self.post_message(CopyRequested(self.review_page.command_text, "the command"))

    @work(exclusive=True, group="create")
    async def _create(self) -> None:
        document = self.choices.document(self.draft)
        if document is None:
            return
        self.is_creating = True
        self.review_page.say("Asking for it…")
        try:
            accepted = await self.session.gateway.change(lambda service: service.create(document))
        except KCError as error:
            self.is_creating = False
            self._keep()
            await self._tell(error)
            return
        self.session.remember(self.session.remembered.choose(self.draft))
        self.session.finished_drafts[str(accepted.document.get("uid", ""))] = self.draft
        self.session.take_accepted(accepted)
        self.dismiss(accepted.document)

    async def _tell(self, error: KCError) -> None:
        """Go to the page where the error belongs, and show it there beside its field."""
        text = sanitise(f"{error.why}. {error.hint}" if error.hint else error.why, 400)
        step, field = locate_error(error, self.choices.fields(self.draft))
        if step and step != "review" and self.wizard.go(step):
            await self._show()
            self.page.show_error(field, text)
            if step == "name":
                self.page.enter()
        else:
            self.review_page.show_error("", sanitise(str(error), 400))
