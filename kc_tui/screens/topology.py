"""What is joined to what, as a drawing: networks, the VMs on them, who routes for them, what leads outside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Vertical

from backend.errors import KCError
from backend.model.kinds import NETWORK, VM
from kc_tui.clipboard import CopyRequested
from kc_tui.commands import BarEntry, Context, Scope, Subject
from kc_tui.messages import ErrorOccurred, OpenObject
from kc_tui.screens.close_look import look_at_all
from kc_tui.screens.parts import Head, TitleLine
from kc_tui.screens.session_screen import Changed, SessionScreen
from kc_tui.session import Session
from kc_tui.state.formatting import pluralise
from kc_tui.state.masthead import Masthead
from kc_tui.state.roles import Role
from kc_tui.state.table import Run
from kc_tui.state.topology import build_topology
from kc_tui.state.topology_drawing import Line, Piece, draw_topology, to_text
from kc_tui.widgets.key_bar import KeyBar
from kc_tui.widgets.link_view import LinkView

LOOK_SECONDS: Final = 10.0
"""How often the host is asked how the networks are."""
_COPY_WIDTH: Final = 120
_KINDS: Final = {"network": NETWORK.name, "vm": VM.name}
_NO_LIST: Final = "this is a drawing: there is nothing to choose in it but its nodes"
_EMPTY: Final[tuple[Line, ...]] = (
    (Piece(" There is no network yet", Role.STRONG),),
    (Piece(" n in section 3 makes one", Role.MUTED),),
)
_LOADING: Final[tuple[Line, ...]] = ((Piece(" Reading what there is…", Role.MUTED),),)
_REFUSED: Final = ("filter", "sort", "reverse", "mark", "mark-range", "invert-marks")


class TopologyScreen(SessionScreen):
    """The drawing; it follows what changes, and its nodes open."""

    SCOPES: ClassVar[frozenset[Scope]] = frozenset({Scope.LIST})

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.head = Head(session.glyphs)
        self.title_line = TitleLine()
        self.view = LinkView(lambda node: node.partition(":")[0] in _KINDS, glyphs=session.glyphs)
        self._is_drawing = False
        self._is_due = False
        self._is_asking = False

    def compose(self) -> ComposeResult:
        """Lay out the lines at the top, the drawing and the keys."""
        with Vertical(classes="whole"):
            yield self.head
            yield self.title_line
            yield self.view
            yield KeyBar()

    def on_mount(self) -> None:
        """Draw it, and begin to ask the host how the networks are."""
        self.view.focus()
        self.set_interval(LOOK_SECONDS, self.look_at_all)

    def on_screen_resume(self) -> None:
        """Show what changed while another screen was in front."""
        self.redraw()
        self.look_at_all()

    def on_resize(self) -> None:
        """Draw it for the width."""
        self.redraw()

    def show_masthead(self, masthead: Masthead) -> None:
        """Show the lines at the top."""
        self.head.show(masthead)

    def documents_changed(self, changed: Changed | None) -> None:
        """Draw it anew, where it may look different."""
        if self.is_composed and (changed is None or changed.keys() & {NETWORK.name, VM.name}):
            self.redraw()

    @work(group="draw")
    async def redraw(self) -> None:
        """Draw what is known, off this thread: thousands of VMs take a moment. One drawing at a time is under way."""
        self._is_due = True
        if self._is_drawing:
            return
        self._is_drawing = True
        try:
            while self._is_due:
                self._is_due = False
                await self._draw()
        except KCError as error:
            self.post_message(ErrorOccurred(error))
        finally:
            self._is_drawing = False

    async def _draw(self) -> None:
        inventory, glyphs = self.session.inventory, self.session.glyphs
        networks, vms = inventory.documents(NETWORK.name), inventory.documents(VM.name)
        width = self.size.width - 1

        def draw() -> list[Line]:
            return draw_topology(build_topology(networks, vms), width=width, glyphs=glyphs)

        lines = await self.session.gateway.run(draw)
        if not self.is_attached:
            return
        is_known = NETWORK.name in inventory.loaded
        self.view.draw(lines or (_EMPTY if is_known else _LOADING))
        # Of foreign domains nobody knows where they are.
        own = sum(not vm.get("status", {}).get("foreign") for vm in vms)
        count = f"{pluralise(len(networks), 'network')}, {pluralise(own, 'VM')}"
        self.title_line.show((Run(" Topology", Role.STRONG), Run(f"  {count}", Role.MUTED)))

    @work(group="look")
    async def look_at_all(self) -> None:
        """Ask the host how the networks are."""
        if self._is_asking or self.app.screen is not self:
            return
        self._is_asking = True
        try:
            changed = await look_at_all(self.session, NETWORK.name)
        finally:
            self._is_asking = False
        if changed:
            self.redraw()

    # --- commands

    def _find(self, node: str) -> tuple[str, str, str]:
        """Return kind, name and uid of what a node shows; the uid is empty where it is gone."""
        prefix, _, name = node.partition(":")
        kind = _KINDS[prefix]
        document = self.session.inventory.find(kind, name)
        return kind, name, str(document.get("uid", "")) if document is not None else ""

    @on(LinkView.Chosen)
    def _open(self, event: LinkView.Chosen) -> None:
        event.stop()
        kind, name, uid = self._find(event.node)
        if not uid:
            refuse: Any = getattr(self.app, "refuse")  # noqa: B009 - every app of commands has one
            refuse(f"{name} is gone")
        elif kind == VM.name:
            self.post_message(OpenObject(kind, uid))
        else:
            from kc_tui.screens.networks import NetworkPage  # noqa: PLC0415 - when it is wanted

            self.app.push_screen(NetworkPage(self.session, uid))

    @on(LinkView.Moved)
    def _moved(self, event: LinkView.Moved) -> None:
        event.stop()
        self.refresh_keys()

    def refusals(self) -> Mapping[str, str]:
        """Return what of a list's commands a drawing has no use for."""
        return {**super().refusals(), **{f"list.{name}": _NO_LIST for name in _REFUSED}}

    def command_context(self) -> Context:
        """Return what commands are judged by here: the node under the cursor; the drawing can be copied."""
        context = super().command_context()
        spot = self.view.spot
        subject = Subject("", self._find(spot.node)[1] if spot is not None else "the drawing")
        return Context(context.scopes, (subject,), len(self.view.spots), context.refusals)

    def refresh_keys(self) -> None:
        """Show the keys."""
        keymap: Any = getattr(self.app, "keymap", None)
        if keymap is None or not self.is_composed:
            return
        hidden = set(self.refusals())
        entries = [entry for entry in keymap.bar(self.command_context()) if entry.command_id not in hidden]
        move = BarEntry("", f"{keymap.label('move.down')} {keymap.label('move.up')}", "next node", 2)
        back = BarEntry("app.back", keymap.label("app.back"), "back", 3)
        self.query_one(KeyBar).show((*entries, move, back))

    def do_list_copy(self, _context: Context) -> None:
        """Copy the drawing as text."""
        inventory = self.session.inventory
        graph = build_topology(inventory.documents(NETWORK.name), inventory.documents(VM.name))
        lines = draw_topology(graph, width=_COPY_WIDTH, glyphs=self.session.glyphs)
        self.post_message(CopyRequested("\n".join(to_text(lines)), "the drawing"))
