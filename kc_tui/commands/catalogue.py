"""Every command of KC. To add one, add it here and write its `do_…` method on the screen that does it."""

from __future__ import annotations

from typing import Final

from kc_tui.commands.command import Command, Danger, Scope
from kc_tui.commands.conditions import (
    can_cancel,
    can_change,
    can_edit,
    can_undo,
    has_one,
    has_rows,
    has_subject,
    is_in_trash,
)
from kc_tui.commands.network_commands import NETWORK_COMMANDS
from kc_tui.commands.vm_commands import VM_COMMANDS

_OPEN_AND_MAKE: Final = (
    Command(
        id="list.open",
        title="open",
        keys=("enter",),
        scope=Scope.LIST,
        help="Show everything about what is under the cursor.",
        when=has_rows,
        bar=3,
        action="select_row",
    ),
    Command(
        id="vm.create",
        title="new VM",
        word="new",
        keys=("n",),
        scope=Scope.VM,
        help="Walk through image, networks, machine type and parameters to a running VM.",
        bar=2,
    ),
)

_OTHERS: Final = tuple(
    Command(
        id=f"{word}.delete",
        title="delete",
        keys=("d",),
        scope=scope,
        help=f"Put the {title} into the trash, or remove it for good; one that a VM uses stays.",
        danger=Danger.CONFIRM,
        when=can_change,
        bar=6,
    )
    for word, scope, title in (
        ("image", Scope.IMAGE, "image"),
        ("network", Scope.NETWORK, "network"),
        ("type", Scope.TYPE, "machine type"),
    )
)

_OBJECTS: Final = (
    Command(
        id="object.undo",
        title="undo the last change",
        word="undo",
        keys=("u",),
        scope=Scope.OBJECT,
        help="Show what taking the last change back would do, and do it; twice is a redo.",
        danger=Danger.CONFIRM,
        when=can_undo,
        bar=7,
    ),
    Command(
        id="object.history",
        title="history",
        keys=("h",),
        scope=Scope.OBJECT,
        help="Show every version: when, who, what; compare them, roll back to one.",
        when=has_one("a history"),
        bar=12,
    ),
    Command(
        id="object.edit",
        title="edit document",
        word="edit",
        keys=("e",),
        scope=Scope.OBJECT,
        help="Write metadata and spec as YAML in your editor; the difference is shown first.",
        danger=Danger.CONFIRM,
        when=can_edit,
        bar=13,
        twin="edit",
    ),
)

_HISTORY: Final = (
    Command(
        id="history.rollback",
        title="roll back to this one",
        word="roll back",
        keys=("R",),
        scope=Scope.HISTORY,
        help="Show what a new version like the one under the cursor would do, and write it.",
        danger=Danger.CONFIRM,
        bar=4,
    ),
)

_TRASH: Final = (
    Command(
        id="trash.restore",
        title="restore",
        keys=("u",),
        scope=Scope.TRASH,
        help="Bring the deleted object back, a VM with its disks.",
        when=is_in_trash,
        bar=4,
    ),
    Command(
        id="trash.delete",
        title="delete for good",
        word="delete",
        keys=("d",),
        scope=Scope.TRASH,
        help="Remove what the deleted object still has on the host; nothing brings it back.",
        danger=Danger.TYPE_NAME,
        when=is_in_trash,
        bar=6,
    ),
    Command(
        id="trash.empty",
        title="empty the trash",
        word="empty",
        keys=("E",),
        scope=Scope.TRASH,
        help="Remove everything in the trash for good.",
        danger=Danger.TYPE_NAME,
        when=has_rows,
        bar=7,
    ),
    Command(
        id="trash.history",
        title="history",
        keys=("h",),
        scope=Scope.TRASH,
        help="Show every version of the deleted object.",
        when=has_one("a history"),
        bar=12,
    ),
)

_OPERATIONS: Final = (
    Command(
        id="op.cancel",
        title="cancel",
        keys=("x",),
        scope=Scope.OPERATION,
        help="Ask the operation to end and to undo what it did.",
        danger=Danger.CONFIRM,
        when=can_cancel,
        bar=3,
    ),
)

_LISTS: Final = (
    Command(
        id="list.filter",
        title="filter",
        keys=("/",),
        scope=Scope.LIST,
        help="Show only what a selector finds: tenant=acme,status.power=running",
        bar=9,
    ),
    Command(
        id="list.sort",
        title="sort by the next column",
        word="sort",
        keys=("o",),
        scope=Scope.LIST,
        help="Order the list by another column.",
        when=has_rows,
        bar=15,
    ),
    Command(
        id="list.reverse",
        title="reverse the order",
        word="reverse",
        keys=("O",),
        scope=Scope.LIST,
        help="Turn the order of the list round.",
        when=has_rows,
    ),
    Command(
        id="list.mark",
        title="mark",
        keys=("space",),
        scope=Scope.LIST,
        help="Mark what is under the cursor; the next verb acts on all that is marked.",
        when=has_rows,
        bar=8,
        action="toggle_mark",
    ),
    Command(
        id="list.mark-range",
        title="mark a range",
        keys=("V",),
        scope=Scope.LIST,
        help="Start a range here, go to its other end, and press it again.",
        when=has_rows,
        action="toggle_range",
    ),
    Command(
        id="list.invert-marks",
        title="invert the marks",
        keys=("*",),
        scope=Scope.LIST,
        help="Mark what is not marked, and the other way round.",
        when=has_rows,
        action="invert_marks",
    ),
    Command(
        id="list.copy",
        title="copy",
        keys=("y",),
        scope=Scope.LIST,
        help="Put the name, the address or the command line of what is selected on the clipboard.",
        when=has_subject,
        bar=14,
    ),
)

_MOVES: Final = (
    Command("move.down", "down", ("j", "down"), Scope.LIST, "One line down.", action="cursor_down"),
    Command("move.up", "up", ("k", "up"), Scope.LIST, "One line up.", action="cursor_up"),
    Command("move.top", "to the top", ("g", "home"), Scope.LIST, "To the first line.", action="cursor_top"),
    Command("move.bottom", "to the bottom", ("G", "end"), Scope.LIST, "To the last line.", action="cursor_bottom"),
    Command(
        "move.half-down", "half a page down", ("ctrl+d",), Scope.LIST, "Half a page down.", action="half_page_down"
    ),
    Command("move.half-up", "half a page up", ("ctrl+u",), Scope.LIST, "Half a page up.", action="half_page_up"),
    Command("move.page-down", "a page down", ("pagedown",), Scope.LIST, "A page down.", action="page_down"),
    Command("move.page-up", "a page up", ("pageup",), Scope.LIST, "A page up.", action="page_up"),
)

_SECTIONS: Final = (
    Command("section.vms", "VMs", ("1",), Scope.APP, "Show the VMs."),
    Command("section.images", "Images", ("2",), Scope.APP, "Show the images."),
    Command("section.networks", "Networks", ("3",), Scope.APP, "Show the networks."),
    Command("section.types", "Types", ("4",), Scope.APP, "Show the machine types."),
    Command("section.activity", "Activity", ("6",), Scope.APP, "Show what KC did and is doing."),
    Command("section.trash", "Trash", ("0",), Scope.APP, "Show what was deleted and can be brought back."),
)

_APP: Final = (
    Command(
        id="app.palette",
        title="commands and objects",
        word="commands",
        keys=(":", "ctrl+p"),
        scope=Scope.APP,
        help="Find any command or object by typing a part of its name.",
        bar=1,
    ),
    Command(
        id="app.help",
        title="help",
        keys=("?",),
        scope=Scope.APP,
        help="Show the keys of this screen; search them, run them.",
        bar=11,
    ),
    Command(
        id="app.back",
        title="back",
        keys=("escape",),
        scope=Scope.APP,
        help="Take back the marks, then the filter, then leave this screen.",
    ),
    Command(
        id="app.theme",
        title="theme",
        keys=(),
        scope=Scope.APP,
        help="Choose the colours; they show while you choose.",
    ),
    Command(
        id="app.quit",
        title="quit",
        keys=("q", "ctrl+c"),
        scope=Scope.APP,
        help="Leave KC; VMs and operations go on.",
    ),
)

COMMANDS: Final = (
    *_OPEN_AND_MAKE, *VM_COMMANDS, *NETWORK_COMMANDS, *_OTHERS, *_OBJECTS, *_HISTORY, *_TRASH, *_OPERATIONS, *_LISTS,
    *_APP, *_SECTIONS, *_MOVES,
)  # fmt: skip
"""All commands, in the order of the key bar and the help."""
