"""The page of networks: one or several, each with its way of addressing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, Static

from backend.model.addressing import Family
from backend.model.documents import Document
from kc_tui.commands import BarEntry
from kc_tui.screens.drawing import draw_runs
from kc_tui.state.addressing import KEEPING, MODES, TITLES, complain_about_address, join_choice, split_choice
from kc_tui.state.create_vm_rows import NETWORK_COLUMNS, Option
from kc_tui.state.draft import Nic
from kc_tui.state.form_field import ADVANCED
from kc_tui.state.glyphs import Glyphs
from kc_tui.state.lines import Line
from kc_tui.state.nic_options import list_advanced, take_values
from kc_tui.state.roles import Role
from kc_tui.state.table import Run
from kc_tui.widgets.choice_field import ChoiceField
from kc_tui.widgets.field_line import FieldLine
from kc_tui.widgets.line_input import LineInput
from kc_tui.wizards.pick import PickPage

_EMPTY_ADDRESS = {"static": "empty: KC chooses", "dhcp": "empty: any of the range", "dhcpv6": "empty: any of the range"}


class FamilyLine(Horizontal):
    """How one family gets its address: a mode, and with some of them the address."""

    def __init__(self, family: Family) -> None:
        super().__init__(classes="family")
        self.family = family
        self.mode = ChoiceField(MODES[family], "network")
        self.address = LineInput(placeholder="10.0.0.5/24" if family == "ipv4" else "fd00::5/64")
        self.message = Static(markup=False, classes="family-message")

    def compose(self) -> ComposeResult:
        """Lay out title, mode, address and what is wrong with it."""
        yield Static(TITLES[self.family], markup=False, classes="family-title")
        yield self.mode
        yield self.address
        yield self.message

    def load(self, choice: str, told: str) -> None:
        """Show a choice; `told` is what the network does by itself."""
        self.mode.relabel({"network": f"as the network: {told}"})
        self.mode.value, self.address.value = split_choice(choice)
        self.settle()

    def settle(self) -> None:
        """Show the address only where there may be one."""
        mode = self.mode.value
        self.address.display = mode in KEEPING
        hint = "" if self.address.value else _EMPTY_ADDRESS.get(mode, "")
        complaint = self.complaint
        self.message.update(Content.styled(complaint, "$danger") if complaint else Content.styled(hint, "$muted"))
        self.mode.refresh()

    @property
    def complaint(self) -> str:
        """What is wrong with the address; empty where nothing is."""
        text = self.address.value.strip()
        return complain_about_address(text, self.family) if text and self.mode.value in KEEPING else ""

    @property
    def choice(self) -> str:
        """What was chosen, see `kc_tui.state.addressing`."""
        return join_choice(self.mode.value, self.address.value.strip())


class AddressEditor(Vertical):
    """The addressing of one NIC, in place below the list, and folded away its guards and rates; Esc keeps nothing."""

    class Closed(Message):
        """The editor is done; `nic` is what was chosen, None where nothing was changed."""

        def __init__(self, nic: Nic | None) -> None:
            super().__init__()
            self.nic = nic

    def __init__(self) -> None:
        super().__init__(classes="address-editor")
        self.top = Static(markup=False)
        self.lines = (FamilyLine("ipv4"), FamilyLine("ipv6"))
        self.more = [FieldLine(field) for field in list_advanced(Nic(""))]
        self._nic = Nic("")

    def compose(self) -> ComposeResult:
        """Lay out a line for each family, then the rest."""
        yield self.top
        yield from self.lines
        yield from self.more

    def on_mount(self) -> None:
        """Stay hidden until it is needed."""
        self.display = False

    def open(self, nic: Nic, network: Document | None) -> None:
        """Edit the addressing of a NIC."""
        self._nic = nic
        spec = network.get("spec", {}) if network is not None else {}
        self.top.update(draw_runs((Run(f"Addresses on {nic.network}", Role.ACCENT),)))
        for line in self.lines:
            line.load(getattr(nic, line.family), str(spec.get(line.family, {}).get("mode", "none")))
        for more, field in zip(self.more, list_advanced(nic), strict=True):
            more.control.value = field.initial
            more.control.refresh()
        self._fold()
        self.display = True
        self.screen.set_focus(self.lines[0].mode)

    def _fold(self) -> None:
        is_open = next(line.text for line in self.more if line.field.name == ADVANCED) == "yes"
        for line in self.more:
            line.display = is_open or not line.field.advanced

    def close(self, nic: Nic | None) -> None:
        """End, with the NIC as it was edited or None."""
        self.display = False
        self.post_message(self.Closed(nic))

    @on(ChoiceField.Changed)
    @on(Input.Changed)
    def _settle(self, event: ChoiceField.Changed | Input.Changed) -> None:
        event.stop()
        for line in self.lines:
            line.settle()
        for more in self.more:
            more.check()
        self._fold()

    @on(ChoiceField.Submitted)
    @on(Input.Submitted)
    def _submit(self, event: ChoiceField.Submitted | Input.Submitted) -> None:
        event.stop()
        for line in self.lines:
            if line.complaint:
                self.screen.set_focus(line.address)
                return
        for more in self.more:
            if not more.check():
                more.display = True
                self.screen.set_focus(more.control)
                return
        values = {line.family: line.choice for line in self.lines} | {more.field.name: more.text for more in self.more}
        self.close(take_values(self._nic, values))

    def on_key(self, event: events.Key) -> None:
        """Go from line to line; Esc leaves it as it was."""
        if event.key == "escape":
            self.close(None)
        elif event.key in ("down", "tab"):
            self.screen.focus_next(".address-editor *")
        elif event.key in ("up", "shift+tab"):
            self.screen.focus_previous(".address-editor *")
        else:
            return
        event.stop()
        event.prevent_default()


class NetworkPage(PickPage):
    """The networks; space marks several, in the order of their NICs."""

    TITLE: ClassVar[str] = "Networks"
    NOUN: ClassVar[str] = "network"
    OWN_LETTERS: ClassVar[frozenset[str]] = frozenset("a")

    class NewWanted(Message):
        """The line of a new network was chosen."""

    def __init__(
        self,
        options: Callable[[Sequence[Nic], Mapping[str, Nic]], list[Option] | None],
        describe: Callable[[str], Sequence[Line]],
        find: Callable[[str], Document | None],
        glyphs: Glyphs,
    ) -> None:
        super().__init__(
            NETWORK_COLUMNS, lambda: options(self.nics, self._addressed), describe, glyphs, id="page-network"
        )
        self.nics: tuple[Nic, ...] = ()
        self._addressed: dict[str, Nic] = {}
        self._find = find
        self.editor = AddressEditor()

    def compose(self) -> ComposeResult:
        """Lay out the list, and the editor below it."""
        yield from super().compose()
        yield self.editor

    def load(self, nics: Sequence[Nic]) -> None:
        """Take the chosen NICs of a draft; a single one is the cursor's place and no mark."""
        self._addressed = {nic.network: nic for nic in nics}
        self.nics = tuple(nics) if len(nics) > 1 else ()

    @property
    def chosen(self) -> tuple[Nic, ...]:
        """The marked NICs, else the one under the cursor."""
        if self.nics:
            return self.nics
        return (self._nic(self.current),) if self.current else ()

    def keys(self) -> Sequence[BarEntry]:
        """Return what the key bar shows."""
        if self.editor.display:
            return (
                BarEntry("", "left/right", "change", 1),
                BarEntry("", "tab", "next", 3),
                BarEntry("enter", "enter", "keep", 2),
                BarEntry("leave", "esc", "as it was", 4),
            )
        return (
            BarEntry("enter", "enter", "choose", 1),
            BarEntry("mark", "space", "mark several", 2),
            BarEntry("address", "a", "addresses", 3),
            BarEntry("back", "shift-tab", "back", 5),
            BarEntry("leave", "esc", "leave (draft is kept)", 4),
        )

    def press(self, key: str) -> None:
        """Mark the network under the cursor, or edit its addressing."""
        if not self.current:
            return
        if key in (" ", "mark"):
            self.toggle()
        elif key in ("a", "address"):
            self.editor.open(self._nic(self.current), self._find(self.current))
            self.post_message(self.KeysChanged())

    def toggle(self) -> None:
        """Mark the network under the cursor as the next NIC, or take its mark away."""
        name = self.current
        if any(nic.network == name for nic in self.nics):
            self.nics = tuple(nic for nic in self.nics if nic.network != name)
        else:
            self.nics = (*self.nics, self._nic(name))
        self._show_options()

    def choose_new(self) -> None:
        """Have a new network made."""
        self.post_message(self.NewWanted())

    def take(self, name: str) -> None:
        """Choose a network that was made meanwhile; beside marked ones it is marked too."""
        if self.nics and all(nic.network != name for nic in self.nics):
            self.nics = (*self.nics, self._nic(name))
        self._show_options()
        self.choose(name)

    def leave(self) -> bool:
        """Close the editor, then take back what was typed."""
        if self.editor.display:
            self.editor.close(None)
            return True
        return super().leave()

    def _nic(self, name: str) -> Nic:
        return self._addressed.get(name, Nic(name))

    @on(AddressEditor.Closed)
    def _addressed_now(self, event: AddressEditor.Closed) -> None:
        event.stop()
        nic = event.nic
        if nic is not None:
            self._addressed[nic.network] = nic
            self.nics = tuple(nic if known.network == nic.network else known for known in self.nics)
            self._show_options()
        self.screen.set_focus(self.table)
        self.post_message(self.KeysChanged())
