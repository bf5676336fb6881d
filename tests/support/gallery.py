"""A small app that shows KC's widgets with made-up VMs, for the pilot tests and for looking at."""

from __future__ import annotations

from dataclasses import dataclass

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Rule, Static

from kc_tui.command_app import CommandApp, Looks
from kc_tui.commands import Context, Scope, Subject
from kc_tui.dialogs.confirm import ConfirmDialog, ask_about
from kc_tui.screens.base import CommandScreen
from kc_tui.state.formatting import draw_sparkline
from kc_tui.state.glyphs import Glyphs
from kc_tui.state.roles import Role
from kc_tui.state.table import Align, Cell, Column, Empty, Progress, Row, Run
from kc_tui.widgets.filter_bar import FilterBar
from kc_tui.widgets.key_bar import KeyBar
from kc_tui.widgets.virtual_table import VirtualTable

COLUMNS = (
    Column("name", "NAME", 14, weight=3, widest=34, lasting=True),
    Column("state", "STATE", 10, lasting=True),
    Column("cpu", "CPU", 10, align=Align.RIGHT, rank=4),
    Column("memory", "MEMORY", 9, align=Align.RIGHT, rank=3),
    Column("address", "ADDRESS", 17, weight=2, widest=44, rank=1),
    Column("type", "TYPE", 6, weight=1, widest=16, rank=2),
)
EMPTY = Empty("There are no VMs yet", "press n to make the first one")


@dataclass(frozen=True)
class Vm:
    """A made-up VM."""

    name: str
    state: str = "running"
    load: tuple[float, ...] = (0.1, 0.4, 0.6, 0.2)
    memory: str = "1.2/2.0 G"
    address: tuple[str, str] = ("10.0.0.17", "dhcp")
    type: str = "small"
    note: str = ""
    progress: Progress | None = None

    def row(self, glyphs: Glyphs, version: int = 0) -> Row:
        """Its row."""
        sign, role = {
            "running": (glyphs.running, Role.OK),
            "stopped": (glyphs.stopped, Role.MUTED),
        }.get(self.state, (glyphs.changing, Role.ACCENT))
        word = Cell(self.state, role)
        if self.note:
            sign, role = glyphs.attention, Role.WARN
            word = Cell(self.state, Role.OK, (Run(f" {glyphs.restart}", Role.WARN),))
        is_off = self.state == "stopped"
        load = Cell(draw_sparkline(self.load, 4, glyphs), Role.MUTED, (Run(f"{self.load[-1] * 100:3.0f} %"),))
        cells = (
            Cell(self.name),
            word,
            Cell(glyphs.dash, Role.MUTED) if is_off else load,
            Cell(self.memory),
            Cell(glyphs.dash, Role.MUTED)
            if is_off
            else Cell(self.address[0].ljust(11), Role.TEXT, (Run(f" {self.address[1]}", Role.MUTED),)),
            Cell(self.type, Role.MUTED),
        )
        return Row(self.name, version, cells, Cell(sign, role), self.progress, self.note)


VMS = (
    Vm("web-1"),
    Vm("web-2", load=(0.0, 0.02, 0.1, 0.03), memory="0.9/2.0 G", address=("10.0.0.18", "dhcp")),
    Vm("db-1", "starting", progress=Progress("step 4 of 6: defining the domain", 0.7)),
    Vm("build-7", load=(0.9, 0.88, 0.9, 0.97), memory="7.1/8.0 G", address=("fd00:1::27", "slaac"), type="large"),
    Vm("old-mail", "stopped", memory="–/1.0 G", type="tiny"),
    Vm(
        "edge",
        load=(0.0, 0.0, 0.0, 0.01),
        memory="0.2/0.5 G",
        address=("10.0.0.1", "static"),
        type="tiny",
        note="restart needed for: spec.parameters.cpus",
    ),
    *(Vm(f"node-{n}", load=(n / 9, 0.3, 0.2, n / 10), address=(f"10.0.1.{n}", "dhcp")) for n in range(1, 9)),
)


class GalleryScreen(CommandScreen):
    """The list of VMs as the design draws it."""

    SCOPES = frozenset({Scope.LIST, Scope.VM})

    def __init__(self, vms: tuple[Vm, ...]) -> None:
        super().__init__()
        self.vms = vms
        self.done: list[str] = []

    def compose(self) -> ComposeResult:
        """Lay out header, sections, filter, list and keys."""
        glyphs = self.app.glyphs
        head = Content.assemble(
            " ", ("KC", "bold $accent"), (f" {glyphs.dot} ", "$muted"), "lab".ljust(36), ("14", "bold"), " VMs  ",
            ("9 running", "$ok"), "  ", ("2 changing", "$accent"), "   ", (f"{glyphs.live} live", "$ok"),
        )  # fmt: skip
        sections = Content.assemble(
            " ", ("1 VMs", "bold $accent"), ("  2 Images  3 Networks  4 Types  6 Activity", "$muted")
        )
        with Vertical():
            yield Static(head)
            yield Static(sections)
            yield Rule()
            yield FilterBar(glyphs=glyphs)
            yield VirtualTable(COLUMNS, empty=EMPTY, glyphs=glyphs)
            yield Rule(id="foot")
        yield KeyBar()

    @property
    def table(self) -> VirtualTable:
        return self.query_one(VirtualTable)

    @property
    def bar(self) -> KeyBar:
        return self.query_one(KeyBar)

    @property
    def filter(self) -> FilterBar:
        return self.query_one(FilterBar)

    def on_mount(self) -> None:
        self.table.show([vm.row(self.app.glyphs) for vm in self.vms])
        self.table.focus()

    def subjects(self) -> tuple[Subject, ...]:
        keys = self.table.marked or {row.key for row in (self.table.row,) if row is not None}
        busy = {vm.name: vm.progress.text if vm.progress else "" for vm in self.vms}
        return tuple(Subject("vm", vm.name, vm.state, busy[vm.name]) for vm in self.vms if vm.name in keys)

    @on(FilterBar.Changed)
    def narrow(self, event: FilterBar.Changed) -> None:
        if "(" in event.text:
            self.filter.show_error("a value is missing", event.text.index("(") + 1)
            return
        found = [vm for vm in self.vms if event.text in vm.name]
        self.table.show([vm.row(self.app.glyphs) for vm in found])
        self.filter.show_matches(len(found), len(self.vms))

    @on(FilterBar.Closed)
    def focus_list(self) -> None:
        self.table.focus()

    @on(VirtualTable.Selected)
    def opened(self, event: VirtualTable.Selected) -> None:
        self.done.append(f"open {event.row.key}")

    def do_list_filter(self, _context: Context) -> None:
        self.filter.open()

    def do_vm_start(self, context: Context) -> None:
        self.done.append("start " + " ".join(subject.name for subject in context.subjects))

    def do_vm_stop(self, context: Context) -> None:
        question = ask_about(self.app.keymap.registry["vm.stop"], context.subjects, "The guest is asked to shut down.")
        self.app.push_screen(ConfirmDialog(question), lambda yes: self.done.append(f"stop {yes}"))

    def do_vm_delete(self, context: Context) -> None:
        consequence = "The disks are destroyed with it. This cannot be taken back."
        question = ask_about(self.app.keymap.registry["trash.delete"], context.subjects, consequence)
        self.app.push_screen(ConfirmDialog(question), lambda yes: self.done.append(f"delete {yes}"))


class Gallery(CommandApp):
    """The app around the list."""

    def __init__(self, vms: tuple[Vm, ...] = VMS, looks: Looks | None = None) -> None:
        super().__init__(looks)
        self.vms = vms

    def get_default_screen(self) -> GalleryScreen:
        return GalleryScreen(self.vms)

    @property
    def list_screen(self) -> GalleryScreen:
        screen = self.screen_stack[0]
        assert isinstance(screen, GalleryScreen)
        return screen
