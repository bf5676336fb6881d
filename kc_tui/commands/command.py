"""What a command is, and what it is judged by: pure values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from types import MappingProxyType
from typing import Final


class Scope(Enum):
    """Where a command's keys are alive; the value is how that place is called in a sentence."""

    APP = "everywhere"
    LIST = "in lists"
    VM = "on VMs"
    IMAGE = "on images"
    NETWORK = "on networks"
    TYPE = "on machine types"
    OBJECT = "on VMs, images, networks and machine types"
    OPERATION = "in the activity list"
    TRASH = "in the trash"
    HISTORY = "on versions"
    CONSOLE = "in the console"
    WIZARD = "in the wizard"

    def overlaps(self, other: Scope) -> bool:
        """Return whether a key can mean commands of both at once."""
        if self is other or Scope.APP in (self, other):
            return True
        pair = {self, other}
        if Scope.OBJECT in pair and pair & {Scope.VM, Scope.IMAGE, Scope.NETWORK, Scope.TYPE}:
            return True
        # A VM's screen has a page of its versions.
        if Scope.HISTORY in pair and pair & {Scope.VM, Scope.OBJECT}:
            return True
        # The kinds are shown one at a time; each in a list. A wizard's pages are lists as well.
        return Scope.LIST in pair and Scope.CONSOLE not in pair


class Danger(IntEnum):
    """What is asked before a command runs: nothing, yes or no, or the name of what it destroys."""

    NONE = 0
    CONFIRM = 1
    TYPE_NAME = 2


@dataclass(frozen=True, slots=True)
class Subject:
    """An object that a command would act upon.

    `kind` is that of the command line (`vm`, `image`, `network`, `type`, `op`, `trash`), `state` the word shown for it
    (`running`, `stopped` …), `busy` what is being done to it at the moment, if anything. `version` is that of its
    document, 0 where it has none or it is not known. A VM that `is_adopted` was made by somebody else.
    """

    kind: str
    name: str
    state: str = ""
    busy: str = ""
    is_foreign: bool = False
    uid: str = ""
    version: int = 0
    is_adopted: bool = False


@dataclass(frozen=True, slots=True)
class Context:
    """What is in front of the user: living scopes, and what a verb acts upon (what is marked, or the cursor is on).

    `refusals` gives reasons by command id from outside the screen: a token that does not allow it, a service that
    cannot do it. `row_count` is the length of the list.
    """

    scopes: frozenset[Scope] = frozenset({Scope.APP})
    subjects: tuple[Subject, ...] = ()
    row_count: int = 0
    refusals: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


Condition = Callable[[Context], str | None]
"""Gives the reason why a command cannot run now; None where it can."""


def always(_context: Context) -> str | None:
    """Let a command run at any time."""
    return None


@dataclass(frozen=True, slots=True)
class Command:
    """One thing that the user can do, told once for keys, key bar, palette, help and confirmation.

    id: `noun.verb`, as it stands in the `[keys]` table of the configuration.
    title: what it does, as the palette and the help list it.
    keys: Textual's names of its keys; a single character may stand for itself.
    scope: where its keys are alive.
    help: one sentence more.
    danger: what is asked first.
    when: the reason why it cannot run now, or None.
    word: its one word in the key bar; the title where it is empty.
    bar: its place in the key bar where room is short: 1 stays longest; 0 is never shown.
    action: a widget's own action; such a command is bound by the widget, others are run by the screen or the app.
    twin: commands of the same twin share a key; the first that can run does.
    """

    id: str
    title: str
    keys: tuple[str, ...]
    scope: Scope
    help: str
    danger: Danger = Danger.NONE
    when: Condition = always
    word: str = ""
    bar: int = 0
    action: str = ""
    twin: str = ""

    @property
    def label(self) -> str:
        """Its word in the key bar."""
        return self.word or self.title

    @property
    def handler(self) -> str:
        """The name of the method that runs it, on a screen or the app: `do_vm_start` for `vm.start`."""
        return HANDLER_PREFIX + self.id.replace(".", "_").replace("-", "_")

    def refusal(self, context: Context) -> str | None:
        """Return why it cannot run now, or None."""
        if self.scope not in context.scopes and self.scope is not Scope.APP:
            return f"{self.label} works {self.scope.value}"
        return context.refusals.get(self.id) or self.when(context)


HANDLER_PREFIX: Final = "do_"
