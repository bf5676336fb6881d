"""Commands of screens that the catalogue does not have."""

from __future__ import annotations

from typing import Final

from kc_tui.commands import REGISTRY, Command, Context, Danger, Registry, Scope

_ENDED: Final = frozenset({"succeeded", "failed", "cancelled", "notice"})


def _can_cancel(context: Context) -> str | None:
    if not context.subjects:
        return "there is no operation selected"
    if all(subject.state in _ENDED for subject in context.subjects):
        return "it has ended already"
    return None


EXTRA: Final = (
    Command(
        id="op.cancel",
        title="cancel",
        keys=("x",),
        scope=Scope.OPERATION,
        help="Ask the operation to end and to undo what it did.",
        danger=Danger.CONFIRM,
        when=_can_cancel,
        bar=3,
    ),
    Command(
        id="vm.metadata",
        title="metadata",
        keys=("m",),
        scope=Scope.VM,
        help="Show the VM's metadata.",
    ),
    Command(
        id="vm.columns",
        title="metadata columns",
        keys=("C",),
        scope=Scope.VM,
        help="Choose which metadata the list shows where it has 140 columns.",
    ),
)

FULL_REGISTRY: Final = Registry((*REGISTRY, *(command for command in EXTRA if command.id not in REGISTRY)))
"""The catalogue and what is added here."""
