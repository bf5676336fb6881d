"""The palette: every command, and every object that the app knows, found by typing."""

from __future__ import annotations

from collections.abc import Sequence

from kc_tui.commands.command import Command, Context, Scope
from kc_tui.commands.keymap import Keymap
from kc_tui.dialogs.choose import Choice, ChooseDialog
from kc_tui.state.formatting import join_words
from kc_tui.state.glyphs import UNICODE, Glyphs

COMMAND_PREFIX = "command:"
"""What the ids of commands begin with among the choices; other ids are the caller's own."""


def list_commands(keymap: Keymap, context: Context) -> list[Choice]:
    """Return the commands as choices: those of the selection first, then those that can run, then the others."""
    entries = [
        (_weigh(command, context, refusal), _describe(command, keymap, context, refusal))
        for command in keymap.registry
        if not command.id.startswith("move.") and command.id != "app.palette"
        for refusal in (command.refusal(context),)
    ]
    listed: list[Choice] = []
    told: set[tuple[str, str]] = set()
    for _, choice in sorted(entries, key=lambda entry: entry[0]):
        # A verb that means something else elsewhere, `delete` say, is told once.
        if not choice.refusal or (choice.label, choice.hint) not in told:
            listed.append(choice)
        told.add((choice.label, choice.hint))
    return listed


def _weigh(command: Command, context: Context, refusal: str | None) -> int:
    if refusal is not None:
        return 3
    if command.scope in context.scopes - {Scope.APP, Scope.LIST}:
        return 0
    return 2 if command.scope is Scope.APP else 1


def _describe(command: Command, keymap: Keymap, context: Context, refusal: str | None) -> Choice:
    acts_on_subjects = command.scope not in (Scope.APP, Scope.LIST) and command.scope in context.scopes
    names = [subject.name for subject in context.subjects] if acts_on_subjects and command.id != "vm.create" else []
    return Choice(
        id=COMMAND_PREFIX + command.id,
        label=command.title,
        detail=join_words(names, 3),
        hint=" ".join(keymap.labels(command.id)),
        help=command.help,
        refusal=refusal or "",
        search=f"{command.id} {command.word}",
    )


def make_palette(
    keymap: Keymap, context: Context, objects: Sequence[Choice] = (), *, glyphs: Glyphs = UNICODE
) -> ChooseDialog:
    """Return the palette of what is in front of the user; `objects` follow the commands, with ids of the caller's."""
    return ChooseDialog("Commands and objects", [*list_commands(keymap, context), *objects], glyphs=glyphs)
