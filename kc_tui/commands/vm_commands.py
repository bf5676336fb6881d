"""The commands upon VMs, in the order of the key bar and the help."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from kc_tui.commands.command import Command, Condition, Danger, Scope
from kc_tui.commands.conditions import (
    can_change,
    can_delete,
    can_start,
    has_console,
    has_own_disks,
    is_foreign,
    is_in_state,
    is_one,
    is_running,
)

_POWER: Final = (
    Command(
        id="vm.console",
        title="console",
        keys=("c",),
        scope=Scope.VM,
        help="Work on the VM's serial console; ctrl-] leaves it.",
        when=has_console,
        bar=4,
    ),
    Command(
        id="vm.stop",
        title="stop",
        keys=("s",),
        scope=Scope.VM,
        help="Ask the guest to shut down.",
        danger=Danger.CONFIRM,
        when=is_running("stop"),
        bar=5,
        twin="power",
    ),
    Command(
        id="vm.start",
        title="start",
        keys=("s",),
        scope=Scope.VM,
        help="Switch the VM on.",
        when=can_start,
        bar=5,
        twin="power",
    ),
    Command(
        id="vm.reboot",
        title="reboot",
        keys=("r",),
        scope=Scope.VM,
        help="Ask the guest to reboot.",
        danger=Danger.CONFIRM,
        when=is_running("reboot"),
        bar=10,
    ),
    Command(
        id="vm.pause",
        title="pause",
        keys=("p",),
        scope=Scope.VM,
        help="Let the guest stand still, with its memory kept.",
        when=is_in_state("running", "pause"),
        bar=16,
        twin="pause",
    ),
    Command(
        id="vm.resume",
        title="resume",
        keys=("p",),
        scope=Scope.VM,
        help="Let the guest go on from where it stood still.",
        when=is_in_state("paused", "resume"),
        bar=16,
        twin="pause",
    ),
    Command(
        id="vm.delete",
        title="delete",
        keys=("d",),
        scope=Scope.VM,
        help="Put the VM into the trash with its disks, or remove it for good.",
        danger=Danger.CONFIRM,
        when=can_delete,
        bar=6,
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
    Command(
        id="vm.add-nic",
        title="add a NIC",
        word="NIC",
        keys=("i",),
        scope=Scope.VM,
        help="Put the VM on one more network, while it runs.",
        danger=Danger.CONFIRM,
        when=can_change,
        bar=17,
    ),
)

_asked: Callable[..., Command] = partial(Command, keys=(), scope=Scope.VM, danger=Danger.CONFIRM)


def _change(verb: str, title: str, text: str, when: Condition) -> Command:
    """Return a command that is in the palette alone: seldom wanted, and asked about before it acts."""
    return _asked(id=f"vm.{verb}", title=title, help=text, when=when)


_IS_ON: Final = is_one(on=True)
_CHANGES: Final = (
    _change("change-nic", "change a NIC", "Change addresses, guards and rates of a NIC, while the VM runs.", is_one()),
    _change("remove-nic", "remove a NIC", "Take the VM off a network, while it runs.", is_one()),
    _change("resize", "resize", "Change CPUs, memory and what else the machine type leaves to choose.", can_change),
    _change(
        "move", "move to another type", "Give the VM another machine type, or a newer version of its own.", can_change
    ),
    _change("add-disk", "add a disk", "Give the VM one more disk, an empty one, while it runs.", has_own_disks),
    _change("grow-disk", "grow a disk", "Make a disk larger; the guest sees it at once.", is_one(own_disks=True)),
    _change(
        "remove-disk",
        "remove a disk",
        "Take a disk away; it stays in the trash for its grace time.",
        is_one(own_disks=True),
    ),
    _change("insert-disc", "insert a CD", "Put an image into the CD-ROM drive.", has_own_disks),
    _change("eject-disc", "eject the CD", "Take the image out of the CD-ROM drive.", has_own_disks),
    _change("snapshot", "take a snapshot", "Keep the VM as it is now, to go back to.", has_own_disks),
    _change(
        "restore-snapshot",
        "restore a snapshot",
        "Bring the VM back to a snapshot; what was written since is lost.",
        is_one(own_disks=True),
    ),
    _change(
        "delete-snapshot", "delete a snapshot", "Give back the room that a snapshot takes.", is_one(own_disks=True)
    ),
    _change("clone", "clone", "Make another VM with copies of this one's disks.", is_one(own_disks=True)),
    _change("rename", "rename", "Give the VM another name.", is_one()),
    _change(
        "reconcile",
        "make as documented",
        "Show what somebody else changed on the host, and put it right.",
        can_change,
    ),
    _change("adopt", "adopt", "Take a domain that is not KC's under management, as it is.", is_foreign),
    Command("vm.viewer", "viewer", (), Scope.VM, "Tell where the VM's screen is, and what shows it.", when=_IS_ON),
    _change("screenshot", "screenshot to a file", "Write a picture of the VM's screen to a file.", _IS_ON),
)

VM_COMMANDS: Final = (*_POWER, *_CHANGES)
"""All commands upon VMs but the wizard."""
