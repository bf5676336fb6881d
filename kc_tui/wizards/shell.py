"""What all wizards share: the line of steps, one page at a time, the keys; what was typed outlives leaving."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.screen import ModalScreen

from backend.model.documents import Document
from kc_tui.screens.parts import LEAST_HEIGHT, LEAST_WIDTH, tell_if_too_small
from kc_tui.session import Session
from kc_tui.state.wizard import Wizard
from kc_tui.widgets.key_bar import KeyBar
from kc_tui.wizards.page import Page, StepLine

_WIDTHS: Final = [(0, "-too-narrow"), (LEAST_WIDTH, "-narrow")]
_HEIGHTS: Final = [(0, "-too-low"), (LEAST_HEIGHT, "-high")]


class WizardScreen(ModalScreen[Document | None], inherit_bindings=False):
    """Pages in their order; the result is the document that was made, or None where the wizard was left."""

    def __init__(self, session: Session, title: str, wizard: Wizard, pages: Mapping[str, Page]) -> None:
        super().__init__()
        self.HORIZONTAL_BREAKPOINTS = _WIDTHS
        self.VERTICAL_BREAKPOINTS = _HEIGHTS
        self.session = session
        self.wizard = wizard
        self.steps = StepLine(title, session.glyphs)
        self.pages = dict(pages)
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

    @property
    def page(self) -> Page:
        """The page in front."""
        return self.pages[self.wizard.step.id]

    def documents_changed(self, _changed: object) -> None:
        """Show what can be chosen now."""
        if self.children:
            self.page.documents_changed()

    # --- what each wizard says of itself

    def collect(self) -> None:
        """Take what the page in front says into the draft."""
        raise NotImplementedError

    def keep(self) -> None:
        """Keep the draft for the next time."""
        raise NotImplementedError

    def finish(self) -> None:
        """Do what the wizard is for: the last page is done."""
        raise NotImplementedError

    async def may_go_on(self) -> bool:
        """Return whether the page in front is as it can be; what is not is told."""
        return True

    async def prepare(self) -> None:
        """Make the page in front ready to be shown."""

    def arrive(self) -> None:
        """Do what is due once the page in front is shown."""

    async def start_over(self) -> None:
        """Forget the draft, and show the first page."""

    # --- from page to page

    async def show(self) -> None:
        """Show the page where the wizard stands."""
        # The line of steps, the page and the keys change in one picture.
        with self.app.batch_update():
            await self.prepare()
            for page_id, page in self.pages.items():
                page.display = page_id == self.wizard.step.id
            self.steps.show(self.wizard.marks)
            self.page.enter()
            self.arrive()
            self.refresh_keys()

    def refresh_keys(self) -> None:
        """Show the keys of the page."""
        self.query_one(KeyBar).show(self.page.keys())

    def keep_draft(self) -> None:
        """Keep what the page in front says too: the application is about to end."""
        self.collect()
        self.keep()

    @on(Page.Finished)
    async def _finished(self, event: Page.Finished) -> None:
        event.stop()
        if self.is_creating:
            return
        self.collect()
        if self.wizard.is_last:
            self.finish()
            return
        if not await self.may_go_on():
            return
        self.wizard.forward()
        self.collect_step()
        self.keep()
        await self.show()

    def collect_step(self) -> None:
        """Take into the draft where the wizard stands."""
        raise NotImplementedError

    @on(Page.Refused)
    def _refused(self, event: Page.Refused) -> None:
        event.stop()
        self.refuse(event.reason)

    def refuse(self, reason: str) -> None:
        """Say in the key bar why nothing is done."""
        self.query_one(KeyBar).flash(reason)

    @on(Page.KeysChanged)
    def _keys_changed(self, event: Page.KeysChanged) -> None:
        event.stop()
        self.refresh_keys()

    async def back(self) -> None:
        """Go back by a field, or by a page."""
        if self.is_creating or self.page.back():
            return
        self.collect()
        if self.wizard.back():
            await self.show()
        else:
            self.refuse("this is the first page; esc leaves")

    def leave(self) -> None:
        """Take something of the page back, else leave; the draft is kept."""
        if self.page.leave():
            return
        self.keep_draft()
        self.dismiss(None)

    async def on_key(self, event: events.Key) -> None:
        """Go back, leave, or start over."""
        if event.key == "shift+tab":
            await self.back()
        elif event.key in ("escape", "ctrl+c"):
            self.leave()
        elif event.key == "ctrl+r":
            await self.start_over()
        else:
            return
        event.stop()
        event.prevent_default()

    @on(KeyBar.Pressed)
    async def _pressed(self, event: KeyBar.Pressed) -> None:
        event.stop()
        match event.command_id:
            case "back":
                await self.back()
            case "leave":
                self.leave()
            case "enter":
                self.page.submit()
            case other:
                self.page.press(other)

    def save_soon(self) -> None:
        """Write what is remembered, off this thread."""
        save: Any = getattr(self.app, "save_soon", None)
        if save is not None:
            save()
