"""What every full screen of KC shares: it says what its commands act upon, and keeps its key bar true."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from textual import on
from textual.screen import Screen

from kc_tui.commands.command import Context, Scope, Subject
from kc_tui.commands.dispatch import CommandDispatch
from kc_tui.commands.keymap import BarEntry
from kc_tui.widgets.key_bar import KeyBar
from kc_tui.widgets.virtual_table import VirtualTable


class CommandScreen(Screen[None]):
    """A screen of commands: `SCOPES` are those whose keys are alive on it.

    Compose a `KeyBar` last. A command of `vm.start` runs the method `do_vm_start(context)`.
    """

    SCOPES: ClassVar[frozenset[Scope]] = frozenset()

    def subjects(self) -> tuple[Subject, ...]:
        """Return the objects that a verb would act upon: the marked ones, else the one under the cursor."""
        return ()

    def refusals(self) -> Mapping[str, str]:
        """Return the commands that cannot run for reasons outside the screen, by id."""
        return MappingProxyType({})

    def command_context(self) -> Context:
        """Return what commands are judged by on this screen."""
        row_count = sum(len(table.rows) for table in self.query(VirtualTable))
        return Context(self.SCOPES | {Scope.APP}, self.subjects(), row_count, self.refusals())

    def list_ways(self) -> tuple[BarEntry, ...]:
        """Return what the key bar shows beside the commands: the ways to other screens."""
        return ()

    def refresh_keys(self) -> None:
        """Show in the key bar what can be done now."""
        app = self.app
        if isinstance(app, CommandDispatch):
            entries = (*app.keymap.bar(self.command_context()), *self.list_ways())
            for bar in self.query(KeyBar):
                bar.show(entries)

    def on_mount(self) -> None:
        """Show the keys."""
        self.refresh_keys()

    @on(VirtualTable.Highlighted)
    @on(VirtualTable.Marked)
    def _keys_changed(self) -> None:
        self.refresh_keys()

    def do_app_back(self, _context: Context) -> None:
        """Take back the marks, else leave the screen; the last one stays."""
        cleared = [table.clear_marks() for table in self.query(VirtualTable)]
        if not any(cleared) and len(self.app.screen_stack) > 1:
            self.app.pop_screen()
