"""KC's terminal application: its sections, and what goes between the gateway and the screens."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, ClassVar, Final

from textual import on, work
from textual.app import SystemCommand
from textual.screen import Screen

from backend.errors import RefusedError
from backend.model.documents import Document
from backend.model.kinds import IMAGE, MACHINE_TYPE, NETWORK, OPERATION, TRASH, VM
from backend.service import Service
from kc_tui.command_app import STYLES, Looks
from kc_tui.commands import Context
from kc_tui.dialogs.choose import Choice
from kc_tui.ending import EndingApp
from kc_tui.gateway import Gateway
from kc_tui.idleness import Idleness
from kc_tui.loading import Loader
from kc_tui.messages import (
    DocumentsChanged,
    ErrorOccurred,
    FeedChanged,
    MastheadWanted,
    OpenConsole,
    OpenHistory,
    OpenObject,
    ShowObject,
)
from kc_tui.screens.parts import Head
from kc_tui.screens.section import SectionScreen
from kc_tui.screens.session_screen import Changed, SessionScreen
from kc_tui.screens.vms import VMsScreen
from kc_tui.session import Session
from kc_tui.state.counting import count_vms
from kc_tui.state.formatting import pluralise
from kc_tui.state.operations import as_sentence, describe_verb, read_error
from kc_tui.state.remembered import Remembered
from kc_tui.style_sheet import LastingStylesheet

STALE_SECONDS: Final = 5.0
"""How often a host that did not answer is asked again."""
EXPIRY_SECONDS: Final = 60.0
"""How often is looked for what has been in the trash for long enough."""
_SECTION_OF: Final = {
    VM.name: "vms",
    IMAGE.name: "images",
    NETWORK.name: "networks",
    MACHINE_TYPE.name: "types",
    OPERATION.name: "activity",
    TRASH.name: "trash",
}


@dataclass(frozen=True)
class Setting:
    """Where KC runs: `host` is what the header calls it, `data` where things are kept, `home` the user's folder.

    `grace_hours` is how long the trash keeps things. Who `is_confined` gets no editor and no files of this machine.
    `idleness` ends it when nobody has pressed a key for long.
    """

    host: str
    data: Path
    home: Path
    grace_hours: float = 24.0
    is_confined: bool = False
    idleness: Idleness | None = None


class KCApp(EndingApp):
    """The application; `factory` opens the service, in a thread of the gateway."""

    TITLE = "KC"
    CSS_PATH: ClassVar[list[str | PurePath]] = [STYLES / "base.tcss", STYLES / "screens.tcss"]
    LATE_STYLES: ClassVar[tuple[PurePath, ...]] = (STYLES / "dialogs.tcss", STYLES / "late.tcss")
    DEFAULT_MODE = "vms"

    def __init__(
        self,
        factory: Callable[[], Service],
        setting: Setting,
        looks: Looks | None = None,
        remembered: Remembered | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(looks, data=setting.data, idleness=setting.idleness)
        self.stylesheet = LastingStylesheet(variables=self.get_css_variables())
        self._factory = factory
        self._clock = clock
        self._setting = setting
        self._remembered = remembered or Remembered()
        self.loader: Loader
        for section in _SECTION_OF.values():
            self.add_mode(section, lambda section=section: self._make_section(section))  # type: ignore[misc]

    # --- begin and end

    def on_load(self) -> None:
        """Make what all screens share."""
        gateway = Gateway(self._factory, self.post_message)
        self.session = Session(
            gateway,
            self._remembered,
            folder=self._setting.data,
            host=self._setting.host,
            glyphs=self.glyphs,
            clock=self._clock,
            grace_hours=self._setting.grace_hours,
        )
        if self._setting.is_confined:
            self.session.confine()
        self.loader = Loader(
            self.session,
            show=self.spread,
            link_changed=self._show_masthead,
            fail=lambda error: self.post_message(ErrorOccurred(error)),
        )
        self.loader.begin()
        self.listen_for_the_end()

    def on_mount(self) -> None:
        """Read what the store has; the host is asked after the first picture."""
        self.run_worker(self._load())
        self.set_interval(STALE_SECONDS, self._ask_again)
        self.set_interval(EXPIRY_SECONDS, lambda: self.run_worker(self.loader.expire()))
        for problem in self.problems:
            self.session.note(RefusedError("settings", problem))
        if self.problems:
            said = f"{pluralise(len(self.problems), 'setting')} could not be used; section 6 has the details"
            self.notify(said, severity="warning", markup=False)

    async def _load(self) -> None:
        await self.loader.load()
        # `run` has switched it off for the start; what is there by now stays to the end.
        gc.freeze()
        gc.enable()

    def on_unmount(self) -> None:
        """Keep what is remembered, and let go of the service."""
        self.session.save()
        self.session.gateway.close()

    def _make_section(self, section: str) -> Screen[None]:
        # Only the first section is needed for the first picture.
        from kc_tui.screens.activity import ActivityScreen  # noqa: PLC0415
        from kc_tui.screens.networks import NetworksScreen  # noqa: PLC0415
        from kc_tui.screens.others import ImagesScreen, TypesScreen  # noqa: PLC0415
        from kc_tui.screens.trash import TrashScreen  # noqa: PLC0415

        made: dict[str, type[SectionScreen[Any]]] = {
            "vms": VMsScreen,
            "images": ImagesScreen,
            "networks": NetworksScreen,
            "types": TypesScreen,
            "activity": ActivityScreen,
            "trash": TrashScreen,
        }
        return made[section](self.session)

    def push_screen(self, *arguments: Any, **options: Any) -> Any:
        """Push a screen, with the styles at hand that the first picture did without."""
        if not self.stylesheet.has_source(str(self.LATE_STYLES[0])):
            self.stylesheet.read_all(list(self.LATE_STYLES))
            self.stylesheet.parse()
        return super().push_screen(*arguments, **options)

    # --- what is known

    def _ask_again(self) -> None:
        if self.loader.is_stale:
            self.run_worker(self.loader.observe())

    def on_documents_changed(self, event: DocumentsChanged) -> None:
        """Show what changed; tell of operations that failed."""
        changed, failed, is_odd = self.loader.take(event)
        for operation in failed:
            self._tell_of_failure(operation)
        if is_odd:
            self.run_worker(self.loader.observe())
        self.spread(changed)

    def on_feed_changed(self, event: FeedChanged) -> None:
        """Say whether what is shown is live; after a break everything is read again."""
        if self.loader.should_reload(event):
            self.run_worker(self.loader.reload(), exclusive=True, group="reload")

    def spread(self, changed: Changed | None) -> None:
        """Tell the screens of the present section what changed; others look when they come to the front."""
        for screen in self.screen_stack:
            tell = getattr(screen, "documents_changed", None)
            if tell is not None:
                tell(changed)
        self._show_masthead()

    def on_masthead_wanted(self, _event: MastheadWanted) -> None:
        """Give a screen that came to the front the lines at its top."""
        self._show_masthead()

    def _show_masthead(self) -> None:
        session = self.session
        state = session.link_state
        masthead = count_vms(
            session.inventory.documents(VM.name) if VM.name in session.inventory.loaded else None,
            {
                str(item.get("spec", {}).get("target", {}).get("uid", ""))
                for item in session.inventory.active_operations
            },
            is_connecting=not session.has_observed,
        )
        shown = replace(
            masthead, host=session.host, section=self.current_mode, link=state.link.value, since=state.since,
            is_filtered=VM.name in session.inventory.filtered,
        )  # fmt: skip
        for screen in self.screen_stack:
            if isinstance(screen, SessionScreen):
                screen.show_masthead(shown)

    # --- what went wrong

    def on_error_occurred(self, event: ErrorOccurred) -> None:
        """Tell of an error, and keep it in the activity list."""
        notice = self.session.note(event.error)
        text = as_sentence(notice.why) + (f"\n{as_sentence(notice.hint)}" if notice.hint else "")
        self.notify(text, title=notice.what, severity="error", timeout=8, markup=False)
        self.spread({Session.ERRORS: {str(notice.number)}})

    def _tell_of_failure(self, operation: Document) -> None:
        spec = operation.get("spec", {})
        why, hint = read_error(operation)
        target = spec.get("target", {})
        title = f"{describe_verb(str(spec.get('type', '')))} {target.get('name', '')} failed"
        text = as_sentence(why) + (f"\n{as_sentence(hint)}" if hint else "")
        if self.session.restore_draft(str(target.get("uid", ""))):
            text += f"\n{self.keymap.label('vm.create')} opens the wizard with everything as it was."
            self.save_soon()
        self.notify(text, title=title, severity="error", timeout=10, markup=False)

    # --- going places

    async def show_section(self, section: str) -> None:
        """Show a section as it was left."""
        if isinstance(self.screen, SessionScreen):
            await self.switch_mode(section)

    async def do_section_vms(self, _context: Context) -> None:
        """Show the VMs."""
        await self.show_section("vms")

    async def do_section_images(self, _context: Context) -> None:
        """Show the images."""
        await self.show_section("images")

    async def do_section_networks(self, _context: Context) -> None:
        """Show the networks."""
        await self.show_section("networks")

    async def do_section_types(self, _context: Context) -> None:
        """Show the machine types."""
        await self.show_section("types")

    async def do_section_activity(self, _context: Context) -> None:
        """Show what KC did and is doing."""
        await self.show_section("activity")

    async def do_section_trash(self, _context: Context) -> None:
        """Show what was deleted."""
        await self.show_section("trash")

    @on(Head.SectionPressed)
    async def _section_pressed(self, event: Head.SectionPressed) -> None:
        await self.show_section(event.section)

    async def do_vm_create(self, _context: Context) -> None:
        """Open the wizard for a new VM, before the next key is read: it may be the wizard's already."""
        from kc_tui.wizards.choices import Choices  # noqa: PLC0415 - not for the first picture
        from kc_tui.wizards.create_vm import CreateVMWizard  # noqa: PLC0415

        if not isinstance(self.screen, CreateVMWizard):
            await self.push_screen(CreateVMWizard(Choices(self.session, self._setting.home)), self._wizard_ended)

    async def _wizard_ended(self, document: Document | None) -> None:
        self.save_soon()
        if document is not None:
            await self._point_at(VM.name, str(document.get("uid", "")))

    async def _point_at(self, kind: str, uid: str) -> None:
        """Show an object's list with the cursor on it."""
        section = _SECTION_OF[kind]
        if self.current_mode != section:
            await self.switch_mode(section)
        while len(self.screen_stack) > 1:
            await self.pop_screen()
        screen = self.screen
        if isinstance(screen, SectionScreen):
            screen.documents_changed(None)
            screen.point_at(uid)

    def on_open_console(self, event: OpenConsole) -> None:
        """Open the console of a VM."""
        from kc_tui.screens.console import ConsoleScreen  # noqa: PLC0415 - not for the first picture

        if not isinstance(self.screen, ConsoleScreen):
            self.push_screen(ConsoleScreen(self.session, event.name))

    def on_open_object(self, event: OpenObject) -> None:
        """Open the screen of an object."""
        from kc_tui.screens.vm import VMScreen  # noqa: PLC0415 - not for the first picture

        if event.kind == VM.name and not isinstance(self.screen, VMScreen):
            self.push_screen(VMScreen(self.session, event.uid, event.page))

    def on_open_history(self, event: OpenHistory) -> None:
        """Open the history of an object."""
        from kc_tui.screens.history import HistoryScreen  # noqa: PLC0415 - not for the first picture

        if not isinstance(self.screen, HistoryScreen):
            self.push_screen(HistoryScreen(self.session, event.kind, event.name, event.uid))

    async def on_show_object(self, event: ShowObject) -> None:
        """Put the cursor on an object in its list."""
        await self._point_at(event.kind, event.uid)

    # --- what the app of commands asks of this one

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Offer none of Textual's own commands: one of them writes pictures of the screen to this machine."""
        del screen
        return ()

    def palette_objects(self) -> Sequence[Choice]:
        """Return everything that has a name."""
        choices = []
        for kind, title in (
            (VM.name, "VM"),
            (IMAGE.name, "image"),
            (NETWORK.name, "network"),
            (MACHINE_TYPE.name, "type"),
        ):
            for document in sorted(self.session.inventory.documents(kind), key=lambda item: str(item.get("name", ""))):
                name = str(document.get("name", ""))
                choices.append(Choice(f"{kind}/{document.get('uid', '')}", name, "", title, f"Show {title} {name}."))
        return choices

    def open_object(self, object_id: str) -> None:
        """Show what was chosen in the palette."""
        kind, _, uid = object_id.partition("/")
        self.post_message(OpenObject(kind, uid) if kind == VM.name else ShowObject(kind, uid))

    def keep_theme(self, name: str) -> None:
        """Remember the theme."""
        self.session.remember(replace(self.session.remembered, theme=name))
        self.save_soon()

    @work(exclusive=True, group="save")
    async def save_soon(self) -> None:
        """Write what is remembered, off this thread."""
        if self.session.needs_saving:
            await self.session.gateway.run(self.session.save)
