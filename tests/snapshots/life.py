"""Scenes from the whole life of a VM: its screen and figures, its size, its snapshots, what was not KC's."""

from __future__ import annotations

from typing import Any

from support.app import press, settle, until
from support.png import make_png, paint_desktop
from support.world import NOW, Lab, uid_of
from textual.pilot import Pilot

from backend.hypervisor.memory_guest import MemorySnapshot
from backend.hypervisor.plan import DomainOwner as Owner
from backend.hypervisor.plan import FoundDomain, FoundNic, Snapshot
from kc_tui.application import KCApp
from kc_tui.dialogs.choose import ChooseDialog
from kc_tui.dialogs.form import FormDialog
from kc_tui.screens.vm import VMScreen
from kc_tui.state.vms import is_on

_SCREEN = make_png(320, 200, paint_desktop)


def furnish_life(lab: Lab) -> None:
    """Give the VMs of the usual lab screens, snapshots and a second disk, and let somebody else have been at one."""
    lab.host.screenshot = lambda _uid: _SCREEN  # type: ignore[method-assign]
    store = lab.service.store
    web = store.get("VM", uid_of("web-1"))
    assert web is not None
    domain = lab.host.domains[web["uid"]]
    records = [
        {"name": "fresh", "version": 1, "description": "as it was installed"},
        {"name": "before-upgrade", "version": 1, "description": ""},
    ]
    for record, ago, has_memory in zip(records, (180_000, 7_000), (False, True), strict=True):
        snapshot = Snapshot(str(record["name"]), NOW - ago, has_memory, "internal")
        domain.snapshots[snapshot.name] = MemorySnapshot(
            snapshot, {}, domain.plan, None, "running", agent=True, addresses=[]
        )
    with store.transaction() as transaction:
        transaction.put_status("VM", web["uid"], web.get("status", {}) | {"snapshots": records})
    foreign = lab.host.domains[uid_of("win11-desktop")]
    found = FoundDomain(
        foreign.uid, foreign.name, Owner(), "running", "x86_64", "uefi", 4, 8192, "", autostart=False,
        nics=(FoundNic("52:54:00:6a:0c:11", "network", "kc-default", "virtio"),), disks=("/srv/vm/win11.qcow2",),
        untouched=("the disk /srv/vm/win11.qcow2", "a TPM", "a sound card", "a USB tablet"),
    )  # fmt: skip
    lab.host.find_adoptable = lambda _name: found  # type: ignore[method-assign]


def _app(pilot: Pilot[None]) -> KCApp:
    assert isinstance(pilot.app, KCApp)
    return pilot.app


async def _run(pilot: Pilot[None], command_id: str) -> None:
    app = _app(pilot)
    await app.run_command(command_id)
    await settle(pilot)
    await until(pilot, lambda: isinstance(app.screen, (FormDialog, ChooseDialog)), f"{command_id} asks")


def _form(pilot: Pilot[None]) -> FormDialog:
    form = _app(pilot).screen
    assert isinstance(form, FormDialog)
    return form


async def _shown(pilot: Pilot[None]) -> None:
    form: Any = _form(pilot)
    await until(pilot, lambda: form.is_shown, "what the values would do is shown")
    await settle(pilot)


async def see_whole(pilot: Pilot[None]) -> None:
    """Wait until a VM's screen shows all that the host tells."""
    screen = _app(pilot).screen
    assert isinstance(screen, VMScreen)
    assert screen.document is not None
    if is_on(screen.document) and screen.size.width >= 100:
        await until(pilot, lambda: screen.thumbnail.picture is not None, "the picture of the screen is there")
    await settle(pilot)


async def show_resize(pilot: Pilot[None]) -> None:
    await press(pilot, "slash", "=web-1", "enter")
    await _run(pilot, "vm.resize")
    form = _form(pilot)
    by_name = {line.field.name: line for line in form.lines}
    by_name["cpus"].control.value = "2"
    by_name["memoryMiB"].control.value = "3072"
    await _shown(pilot)


async def show_snapshots(pilot: Pilot[None]) -> None:
    await press(pilot, "slash", "=web-1", "enter")
    await _run(pilot, "vm.restore-snapshot")


async def show_restoring(pilot: Pilot[None]) -> None:
    await show_snapshots(pilot)
    await press(pilot, "=fresh", "enter")
    await _shown(pilot)


async def show_adoption(pilot: Pilot[None]) -> None:
    await press(pilot, "slash", "=win11", "enter")
    await _run(pilot, "vm.adopt")
    await _shown(pilot)


async def show_nic(pilot: Pilot[None]) -> None:
    await press(pilot, "slash", "=web-1", "enter", "i", "=default", "enter", "=192.168.150")
    await until(pilot, lambda: _form(pilot).lines[0].error, "what is wrong is told")


async def show_drift(pilot: Pilot[None]) -> None:
    await press(pilot, "slash", "=cache-1", "enter")
    await _run(pilot, "vm.reconcile")
    await _shown(pilot)


def furnish_drift(lab: Lab) -> None:
    """Let somebody else have been at cache-1."""
    domain = lab.host.domains[uid_of("cache-1")]
    assert domain.plan is not None
    domain.plan = domain.plan._replace(cpus=4, memory_mib=3072, autostart=False)
