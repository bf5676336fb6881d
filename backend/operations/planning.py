"""From an operation's type to its plan."""

from __future__ import annotations

from backend.errors import RefusedError
from backend.operations import images, networks, trash, vm_disks, vms
from backend.operations.steps import Plan

PLANS: dict[str, Plan] = {
    "vm.create": Plan(steps=vms.PRESENT, undo=vms.ABSENT),
    "vm.start": Plan(steps=vms.PRESENT),
    "vm.stop": Plan(steps=vms.STOPPED),
    "vm.pause": Plan(steps=vms.PAUSED),
    "vm.resume": Plan(steps=vms.PRESENT),
    "vm.update": Plan(steps=vms.CHANGED),
    "vm.rename": Plan(steps=vms.CHANGED),
    "vm.reconcile": Plan(steps=vms.CHANGED),
    "vm.clone": Plan(steps=vms.CLONED, undo=vms.ABSENT),
    "vm.adopt": Plan(steps=vms.ADOPTED, undo=vms.DISOWNED),
    "vm.disown": Plan(steps=vms.DISOWNED, outcome="delete"),
    "vm.snapshot": Plan(steps=vm_disks.SNAPSHOT_TAKEN),
    "vm.restore-snapshot": Plan(steps=vms.SNAPSHOT_RESTORED),
    "vm.delete-snapshot": Plan(steps=vm_disks.SNAPSHOT_DELETED),
    "vm.restore": Plan(steps=vms.PRESENT),
    "vm.restart": Plan(steps=vms.RESTARTED),
    "vm.reboot": Plan(steps=vms.REBOOTED),
    "vm.delete": Plan(steps=vms.ABSENT, outcome="delete"),
    "network.create": Plan(steps=networks.PRESENT, undo=networks.ABSENT),
    "network.update": Plan(steps=networks.CHANGED),
    "network.reconcile": Plan(steps=networks.CHANGED),
    "network.restore": Plan(steps=networks.PRESENT),
    "network.delete": Plan(steps=networks.ABSENT, outcome="delete"),
    "image.create": Plan(steps=images.PRESENT, undo=images.UNDONE),
    "image.store": Plan(steps=images.PRESENT),
    "image.delete": Plan(steps=images.REMOVED, outcome="delete"),
    "trash.purge": Plan(steps=trash.PURGED, outcome="delete"),
}


def plan_operation(operation_type: str) -> Plan:
    """Return the plan of an operation; raise RefusedError for a type that this version does not know."""
    if operation_type not in PLANS:
        raise RefusedError(f"operation {operation_type}", "this version does not know it", "run the newer KC again")
    return PLANS[operation_type]
