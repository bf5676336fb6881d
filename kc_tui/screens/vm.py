"""All about one VM: overview, metadata and activity, a page each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Final

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widget import Widget

from backend.model.documents import Document, name_of
from backend.model.kinds import NETWORK, OPERATION, VM
from kc_tui.clipboard import CopyRequested
from kc_tui.commands import BarEntry, Context, Scope, Subject
from kc_tui.screens.close_look import CloseLook
from kc_tui.screens.drawing import draw_runs
from kc_tui.screens.history import NOT_HERE, HistoryVerbs, HistoryView
from kc_tui.screens.parts import Head, Pane
from kc_tui.screens.session_screen import WIDE, Changed
from kc_tui.screens.vm_verbs import VMVerbs
from kc_tui.session import Session
from kc_tui.state import vm_details
from kc_tui.state.glyphs import Glyphs
from kc_tui.state.lines import BLANK, Line
from kc_tui.state.masthead import Masthead
from kc_tui.state.operations import build_entry, describe_operation
from kc_tui.state.roles import Role
from kc_tui.state.table import Run, measure
from kc_tui.state.vm_wiring import describe_wiring
from kc_tui.state.vms import addresses_of, is_on, judge
from kc_tui.widgets.key_bar import KeyBar
from kc_tui.widgets.thumbnail import Thumbnail

PAGES: Final = ("overview", "metadata", "history", "activity")
SAMPLE_SECONDS: Final = 2.0
LOOK_SECONDS: Final = 5.0
_WIDEST_PICTURE: Final = 48
_HIGHEST_PICTURE: Final = 14
"""Cells."""
_MOST_OPERATIONS: Final = 50
_LESS_IN_HISTORY: Final = {
    *NOT_HERE, "vm.create", "vm.console", "vm.start", "vm.stop", "vm.reboot", "vm.pause", "vm.resume", "vm.delete",
    "vm.add-nic",
}  # fmt: skip

"""What the key bar leaves out on the page of versions, for those of versions."""


class Title(Widget):
    """The VM in one line: name, state, address, type; the pages in another."""

    class PagePressed(Message):
        """A page was clicked."""

        def __init__(self, page: str) -> None:
            super().__init__()
            self.page = page

    def __init__(self, glyphs: Glyphs) -> None:
        super().__init__()
        self._glyphs = glyphs
        self._summary: Line = ()
        self._page = PAGES[0]

    def show(self, summary: Line, page: str) -> None:
        """Show another VM's line, or another page."""
        if (summary, page) != (self._summary, self._page):
            self._summary, self._page = summary, page
            self.refresh()

    def render(self) -> Content:
        """Draw both lines."""
        pages: list[Run] = [Run(" ")]
        for page in PAGES:
            pages += [Run(page, Role.ACCENT if page == self._page else Role.MUTED), Run("  ")]
        return Content("\n").join([draw_runs(self._summary), draw_runs(pages)])

    def on_click(self, event: events.Click) -> None:
        """Show the page that was clicked."""
        event.stop()
        at = 1
        for page in PAGES:
            if event.y == 1 and at <= event.x < at + len(page):
                self.post_message(self.PagePressed(page))
            at += len(page) + 2


class VMScreen(VMVerbs, HistoryVerbs):
    """One VM; it follows the VM live, and says so when the VM is gone."""

    SCOPES = frozenset({Scope.VM, Scope.OBJECT})
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab,right", "turn(1)", show=False),
        Binding("shift+tab,left", "turn(-1)", show=False),
        Binding("down,j", "scroll_page(1)", show=False),
        Binding("up,k", "scroll_page(-1)", show=False),
        Binding("pagedown,ctrl+d", "scroll_page(10)", show=False),
        Binding("pageup,ctrl+u", "scroll_page(-10)", show=False),
    ]

    def __init__(self, session: Session, uid: str, page: str = "") -> None:
        super().__init__(session)
        self.uid = uid
        self.page = page or PAGES[0]
        self.head = Head(session.glyphs)
        self.summary = Title(session.glyphs)
        self.left = Pane(id="left")
        self.right = Pane(id="right")
        self.side = Vertical(id="side")
        self.thumbnail = Thumbnail(glyphs=session.glyphs)
        self.look = CloseLook(session)
        self._looked_at: object = None

    def compose(self) -> ComposeResult:
        """Lay out the lines at the top, the page and the keys."""
        with Vertical(classes="whole"):
            yield self.head
            yield self.summary
            with Horizontal(classes="body"):
                yield self.left
                with self.side:
                    yield self.thumbnail
                    yield self.right
            yield KeyBar()

    def on_mount(self) -> None:
        """Show the VM, and begin to look at it closely."""
        self.documents_changed(None)
        self.set_interval(SAMPLE_SECONDS, self.look_at_figures)
        self.set_interval(LOOK_SECONDS, self.look_closely)

    @property
    def document(self) -> Document | None:
        """The VM, unless it is gone."""
        return self.session.inventory.get(VM.name, self.uid)

    def subjects(self) -> tuple[Subject, ...]:
        """Return the VM."""
        document = self.document
        if document is None:
            return ()
        condition = judge(document, self.session.operation_on(document), self.session.glyphs)
        state = "stopped" if condition.word == "missing" else condition.word
        name = str(document.get("name", ""))
        version = int(document.get("version", 0))
        is_adopted = bool(document.get("spec", {}).get("adopted"))
        return (
            Subject("vm", name, state, condition.busy, condition.group == "foreign", self.uid, version, is_adopted),
        )

    def refusals(self) -> Mapping[str, str]:
        """Return why commands cannot run on the page that is shown."""
        more = self.refuse_in_history() if self.page == "history" else {}
        return {**super().refusals(), **more}

    def command_context(self) -> Context:
        """Return what commands are judged by: on the page of its history those of versions too."""
        context = super().command_context()
        more = {Scope.LIST, Scope.HISTORY} if self.page == "history" else set()
        return Context(context.scopes | more, context.subjects, context.row_count, context.refusals)

    def refresh_keys(self) -> None:
        """Show the verbs, the way to the other pages, and the way back."""
        keymap = getattr(self.app, "keymap", None)
        if keymap is not None:
            ways = (BarEntry("page", "tab", "page", 4), BarEntry("app.back", keymap.label("app.back"), "back", 4))
            entries = keymap.bar(self.command_context())
            hidden = _LESS_IN_HISTORY if self.page == "history" else set()
            shown = [entry for entry in entries if entry.command_id not in hidden]
            self.query_one(KeyBar).show((*shown, *ways))

    @on(KeyBar.Pressed)
    def _press(self, event: KeyBar.Pressed) -> None:
        if event.command_id == "page":
            event.stop()
            self.action_turn(1)

    def show_masthead(self, masthead: Masthead) -> None:
        """Show the lines at the top."""
        self.head.show(masthead)

    def documents_changed(self, _changed: Changed | None) -> None:
        """Show the VM as it is now."""
        if not self.is_composed:
            return
        document = self.document
        if document is None:
            gone: list[Line] = [BLANK, (Run(" This VM is gone.", Role.STRONG),), (Run(" esc goes back", Role.MUTED),)]
            self.left.show(gone)
            self.side.display = False
            self.refresh_keys()
            return
        self.summary.show(self._summarise(document), self.page)
        if self._show_history(document):
            self.refresh_keys()
            return
        left, right = self._build_page(self.look.complete(document))
        if self.size.width < WIDE:
            left, right = [*left, *([BLANK, *right] if right else [])], []
        self.side.display = bool(right)
        self.thumbnail.show(self.look.picture if self.page == "overview" else None)
        self.left.show(left)
        self.right.show(right)
        self.refresh_keys()
        state = (
            document.get("version"),
            document.get("status", {}).get("power"),
            (self.session.operation_on(document) or {}).get("name"),
        )
        if state != self._looked_at:
            self._looked_at = state
            self.look_closely()

    # --- the close look, while the page that shows it is in front

    @property
    def _watched(self) -> Document | None:
        """The VM, where somebody looks at its overview; a foreign one tells nothing more."""
        document = self.document
        is_shown = self.page == "overview" and self.app.screen is self
        return document if is_shown and document is not None and document.get("version") else None

    @work(group="look")
    async def look_closely(self) -> None:
        """Ask the host about this one VM, and for a picture of its screen where there is room for one."""
        document = self._watched
        if document is None:
            return
        if await self.look.ask(document):
            self.documents_changed(None)
        width = min(_WIDEST_PICTURE, self.size.width // 2 - 4)
        height = 2 * min(_HIGHEST_PICTURE, self.left.size.height // 2)
        if self.size.width >= WIDE and height > 0:
            await self.look.draw(document, width, height)
            self.documents_changed(None)

    @work(group="figures")
    async def look_at_figures(self) -> None:
        """Ask what the VM uses, while it runs."""
        document = self._watched
        if document is not None and is_on(document) and await self.look.sample():
            self.documents_changed(None)

    def _show_history(self, document: Document) -> bool:
        """Put the history in the place of the page, or take it away; return whether it is shown."""
        is_wanted = self.page == "history" and not document.get("status", {}).get("foreign")
        history = self.history
        if history is None and is_wanted:
            history = HistoryView(self.session, VM.name, str(document.get("name", "")), self.uid)
            self.query_one(".body").mount(history)
        if history is not None:
            history.display = is_wanted
            history.follow()
        self.left.display = not is_wanted
        if is_wanted:
            self.side.display = False
            self.call_after_refresh(self._focus_history)
        return is_wanted

    def _focus_history(self) -> None:
        history = self.history
        if self.page == "history" and history is not None and self.app.screen is self:
            self.set_focus(history.table)

    def _summarise(self, document: Document) -> Line:
        session = self.session
        condition = judge(document, session.operation_on(document), session.glyphs)
        addresses = addresses_of(document)
        runs = [Run(f" {document.get('name', '')}", Role.STRONG), Run("  ")]
        runs += vm_details.describe_state(condition, session.glyphs)
        for text in (
            str(addresses[0].get("address", "")) if addresses else "",
            name_of(document.get("spec", {}).get("type")),
        ):
            if text and measure(runs) + len(text) + 3 <= self.size.width:
                runs.append(Run(f"  {text}", Role.MUTED))
        return tuple(runs)

    def _build_page(self, document: Document) -> tuple[Sequence[Line], Sequence[Line]]:
        session = self.session
        if self.page == "metadata":
            return vm_details.describe_metadata(document, session.glyphs), ()
        if self.page == "activity":
            return self._build_activity()
        if self.page == "history":
            return [(Run("A foreign domain has no history here.", Role.MUTED),)], ()
        operation = session.operation_on(document)
        usage = session.usages.get(self.uid)
        left = vm_details.describe(document, operation, usage, session.clock(), session.glyphs, is_alone=False)
        networks = {str(item.get("name", "")): item for item in session.inventory.documents(NETWORK.name)}
        is_foreign = document.get("status", {}).get("foreign")
        # The name and the state stand at the top already.
        return left[2:] if left[2:3] != [BLANK] else left[3:], () if is_foreign else describe_wiring(
            document, networks, session.glyphs
        )

    def _build_activity(self) -> tuple[Sequence[Line], Sequence[Line]]:
        session = self.session
        found = [
            operation
            for operation in session.inventory.documents(OPERATION.name)
            if operation.get("spec", {}).get("target", {}).get("uid") == self.uid
        ]
        found.sort(key=lambda operation: str(operation.get("createdAt", "")), reverse=True)
        if not found:
            return [(Run("Nothing is known of what was done to it.", Role.MUTED),)], ()
        lines: list[Line] = []
        for operation in found[:_MOST_OPERATIONS]:
            entry = build_entry(operation, session.clock(), session.glyphs)
            cells = entry.row.cells
            lines.append(
                (
                    Run(f"{entry.row.glyph.text} ", entry.row.glyph.role),
                    Run(f"{cells[1].text:<12}"),
                    Run(f"{cells[3].text:<10}", cells[3].role),
                    Run(f"{cells[0].text:>6}  {cells[4].text:>8}", Role.MUTED),
                )
            )
        return lines, describe_operation(found[0], session.glyphs)

    def on_resize(self) -> None:
        """Lay the page out for the width."""
        self.documents_changed(None)

    def on_screen_resume(self) -> None:
        """Show what changed while another screen was in front."""
        self.documents_changed(None)
        self.look_closely()

    def on_title_page_pressed(self, event: Title.PagePressed) -> None:
        """Show the page that was clicked."""
        self._turn_to(event.page)

    def action_turn(self, by: int) -> None:
        """Show the next page, round and round."""
        self._turn_to(PAGES[(PAGES.index(self.page) + by) % len(PAGES)])

    def _turn_to(self, page: str) -> None:
        self.page = page
        if page != "history":
            self.set_focus(None)
        self.documents_changed(None)
        self.left.scroll_home(animate=False)
        self.look_closely()

    def action_scroll_page(self, lines: int) -> None:
        """Scroll the page."""
        self.left.scroll_relative(y=lines, animate=False)

    def do_object_history(self, _context: Context) -> None:
        """Show the history."""
        self._turn_to("history")

    def do_vm_metadata(self, _context: Context) -> None:
        """Show the metadata."""
        self._turn_to("metadata")

    def do_list_copy(self, _context: Context) -> None:
        """Copy the address, or the name where there is none."""
        document = self.document
        addresses = addresses_of(document) if document is not None else []
        subject = next(iter(self.subjects()), None)
        if subject is None:
            return
        if addresses:
            self.post_message(CopyRequested(str(addresses[0].get("address", "")), f"the address of {subject.name}"))
        else:
            self.post_message(CopyRequested(subject.name, f"the name {subject.name}"))
