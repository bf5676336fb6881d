"""The keys of a screen: searched by typing, run with enter."""

from __future__ import annotations

from typing import ClassVar

from kc_tui.commands.command import Context, Scope
from kc_tui.commands.keymap import Keymap
from kc_tui.dialogs.choose import Choice, ChooseDialog
from kc_tui.state.glyphs import UNICODE, Glyphs


class HelpScreen(ChooseDialog):
    """What can be done here, command by command with all its keys; the result is the id of the one to run."""

    LINES: ClassVar[int] = 16

    def __init__(self, keymap: Keymap, context: Context, *, glyphs: Glyphs = UNICODE) -> None:
        super().__init__("Keys of this screen", list_keys(keymap, context), glyphs=glyphs)


def list_keys(keymap: Keymap, context: Context) -> list[Choice]:
    """Return the commands alive here that have a key: those of the objects first, then the list's, then the app's."""
    order = {Scope.LIST: 1, Scope.APP: 2}
    alive = [
        command
        for command in keymap.registry
        if command.scope in {*context.scopes, Scope.APP} and keymap.keys[command.id]
    ]
    return [
        Choice(
            id=command.id,
            label=command.title,
            detail=command.help,
            hint=" ".join(keymap.labels(command.id)),
            help=command.help,
            refusal=command.refusal(context) or "",
            search=command.id,
        )
        for command in sorted(alive, key=lambda command: order.get(command.scope, 0))
    ]
