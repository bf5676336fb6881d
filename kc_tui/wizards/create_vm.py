"""The wizard for a new VM: image, networks, machine type, name and size, review."""

from __future__ import annotations

from dataclasses import replace

from textual import on, work

from backend.errors import KCError
from backend.model.documents import Document
from backend.model.parameters import check_parameters
from backend.text import sanitise
from kc_tui.clipboard import CopyRequested
from kc_tui.state.create_vm import STEPS, complain_about_name, locate_error
from kc_tui.state.create_vm_review import KEY_PREFIX, START
from kc_tui.state.create_vm_rows import IMAGE_COLUMNS, TYPE_COLUMNS
from kc_tui.state.draft import Draft
from kc_tui.state.wizard import Wizard
from kc_tui.wizards.choices import Choices
from kc_tui.wizards.fields import FieldsPage
from kc_tui.wizards.networks import NetworkPage
from kc_tui.wizards.pick import ImagePage, TypePage
from kc_tui.wizards.review import ReviewPage, Switches
from kc_tui.wizards.shell import WizardScreen


class CreateVMWizard(WizardScreen):
    """Five pages; its result is the VM's document, or None where it was left.

    It keeps every value: in the session whenever a page is done or left, and there it survives an error too.
    """

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        self.draft = choices.begin()
        glyphs = choices.session.glyphs
        self.image_page = ImagePage(
            IMAGE_COLUMNS, choices.images, choices.describe_image, glyphs, id="page-image"
        )  # fmt: skip
        self.network_page = NetworkPage(choices.networks, choices.describe_network, choices.find_network, glyphs)
        self.type_page = TypePage(
            TYPE_COLUMNS, lambda: choices.types(self.draft.image), choices.describe_type, glyphs, id="page-type"
        )
        self.fields_page = FieldsPage(self._complain_about_name)
        self.review_page = ReviewPage(glyphs)
        pages = {
            "image": self.image_page,
            "network": self.network_page,
            "type": self.type_page,
            "name": self.fields_page,
            "review": self.review_page,
        }
        super().__init__(choices.session, "New VM", Wizard(STEPS, self.draft.step), pages)

    async def on_mount(self) -> None:
        """Show the page where the draft stands."""
        self.network_page.load(self.draft.nics)
        await self.show()
        self._find_keys()

    @work
    async def _find_keys(self) -> None:
        await self.choices.find_keys()
        if self.wizard.step.id == "review":
            self._show_review()

    # --- from page to page

    async def prepare(self) -> None:
        """Make the fields of the machine type."""
        if self.wizard.step.id == "name":
            machine_type = self.choices.find_type(self.draft.type)
            made_for = (self.draft.type, machine_type.get("version") if machine_type else None)
            await self.fields_page.load(
                self.choices.fields(self.draft), self.draft.name, self.draft.values, made_for
            )  # fmt: skip

    def arrive(self) -> None:
        """Put the cursor on what is chosen already; show and check the whole on the last page."""
        step = self.wizard.step.id
        if step == "image":
            self.image_page.choose(self.draft.image)
        elif step == "network" and self.draft.nics:
            self.network_page.choose(self.draft.nics[0].network)
        elif step == "type":
            self.type_page.choose(self.draft.type)
        elif step == "review":
            self._show_review()
            self._check()

    def collect(self) -> None:
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
        self.collect_step()

    def collect_step(self) -> None:
        """Take into the draft where the wizard stands."""
        self.draft = replace(self.draft, step=self.wizard.step.id)

    def keep(self) -> None:
        """Keep the draft for the next time."""
        self.session.remember(replace(self.session.remembered, draft=self.draft))

    async def start_over(self) -> None:
        """Begin with an empty draft."""
        self.session.remember(replace(self.session.remembered, draft=Draft()))
        self.draft = self.choices.begin()
        self.wizard = Wizard(STEPS)
        self.fields_page.forget()
        self.network_page.load(self.draft.nics)
        await self.show()

    def finish(self) -> None:
        """Make the VM."""
        self._create()

    @on(NetworkPage.NewWanted)
    def _make_network(self, event: NetworkPage.NewWanted) -> None:
        """Open the wizard for a new network, and come back with it chosen."""
        from kc_tui.wizards.create_network import CreateNetworkWizard  # noqa: PLC0415 - when it is wanted

        event.stop()
        self.app.push_screen(CreateNetworkWizard(self.session), self._take_network)

    def _take_network(self, network: Document | None) -> None:
        if network is not None:
            self.network_page.take(str(network.get("name", "")))
        self.page.documents_changed()

    # --- checks

    def _complain_about_name(self, name: str) -> str:
        return complain_about_name(name, self.choices.taken_names())

    @on(FieldsPage.Edited)
    def _edited(self, event: FieldsPage.Edited) -> None:
        event.stop()
        self.collect()
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
            self.keep()
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
            await self.show()
            self.page.show_error(field, text)
            if step == "name":
                self.page.enter()
        else:
            self.review_page.show_error("", sanitise(str(error), 400))
