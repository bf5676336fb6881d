"""The whole life of a VM from the keyboard: each verb shows what it will do, does it, and loses nothing on an error."""

from pathlib import Path
from typing import Any

import pytest
from support.app import make_app, press, running, see, settle, until
from support.png import make_png, paint_desktop
from support.world import Lab, uid_of
from textual.pilot import Pilot

from backend.errors import ConflictError
from kc_tui.application import KCApp
from kc_tui.commands import REGISTRY, Scope
from kc_tui.dialogs.choose import ChooseDialog
from kc_tui.dialogs.confirm import ConfirmDialog
from kc_tui.dialogs.form import FormDialog
from kc_tui.dialogs.message import MessageDialog
from kc_tui.screens.vm import VMScreen

pytestmark = pytest.mark.timeout(120)


OFFICE = {"uplink": "bridge:br0", "ipv4": {"subnet": "10.0.0.0/24", "mode": "static"}, "gateway": "10.0.0.1"}


def app_of(pilot: Pilot[None]) -> KCApp:
    assert isinstance(pilot.app, KCApp)
    return pilot.app


async def run(pilot: Pilot[None], command_id: str, dialog: type[Any] | None = FormDialog) -> Any:
    """Run a command as the palette does, and return the dialog that it opens."""
    app = app_of(pilot)
    await app.run_command(command_id)
    await settle(pilot)
    if dialog is not None:
        await until(pilot, lambda: isinstance(app.screen, dialog), f"{command_id} asks")
    return app.screen


async def shown(pilot: Pilot[None], form: FormDialog) -> None:
    """Wait until a form shows what its values would do."""
    await until(pilot, lambda: form.is_shown, "what the values would do is shown")


async def confirm(pilot: Pilot[None], form: FormDialog) -> None:
    """Say yes to what a form shows, and wait until it is made."""
    await shown(pilot, form)
    await press(pilot, "enter")
    await until(pilot, lambda: app_of(pilot).screen is not form, "it is made")


def vm(lab: Lab, name: str) -> dict[str, Any]:
    return lab.service.get("VM", name)


async def at_rest(pilot: Pilot[None], lab: Lab) -> None:
    await until(pilot, lambda: not lab.service.store.leases(), "all operations have ended")
    await settle(pilot)


async def test_p_pauses_and_resumes(tmp_path: Path):
    lab = Lab(tmp_path)
    lab.add_vm("web")
    async with running(make_app(lab)) as pilot:
        await press(pilot, "p")
        await see(pilot, r"◌ web +paused")
        await at_rest(pilot, lab)
        assert vm(lab, "web")["status"]["power"] == "paused"
        await press(pilot, "p")
        await see(pilot, r"● web +running")


async def test_a_marked_few_are_paused_together_after_a_summary(tmp_path: Path):
    lab = Lab(tmp_path)
    for name in ("a", "b", "c"):
        lab.add_vm(name, "stopped" if name == "c" else "running")
    async with running(make_app(lab)) as pilot:
        await press(pilot, "space", "space", "space", "p")
        assert isinstance(pilot.app.screen, ConfirmDialog)
        await see(pilot, "Pause 2 VMs")
        await press(pilot, "y")
        await at_rest(pilot, lab)
        assert [vm(lab, name)["status"]["power"] for name in "abc"] == ["paused", "paused", "stopped"]


async def test_i_adds_a_nic_and_tells_a_bad_address_beside_it(tmp_path: Path):
    lab = Lab(tmp_path)
    lab.add("Network", "office", OFFICE)
    lab.add_vm("web")
    async with running(make_app(lab)) as pilot:
        await press(pilot, "i")
        assert isinstance(pilot.app.screen, ChooseDialog)
        await press(pilot, "=office", "enter")
        form = pilot.app.screen
        assert isinstance(form, FormDialog)
        await press(pilot, "=10.0.0.5")
        await see(pilot, "add a prefix: /24")
        await press(pilot, "=/24")
        await shown(pilot, form)
        await see(pilot, r"nics")
        await confirm(pilot, form)
        await at_rest(pilot, lab)
        nic = vm(lab, "web")["spec"]["nics"][1]
        assert (nic["network"]["name"], nic["ipv4"]["address"]) == ("office", "10.0.0.5/24")


async def test_an_address_outside_the_network_is_refused_beside_its_field_and_stays_typed(tmp_path: Path):
    lab = Lab(tmp_path)
    lab.add("Network", "office", OFFICE)
    lab.add_vm("web")
    async with running(make_app(lab)) as pilot:
        await press(pilot, "i", "=office", "enter", "=172.16.0.5/24")
        form = pilot.app.screen
        assert isinstance(form, FormDialog)
        await until(pilot, lambda: form.lines[0].error, "the service refuses it")
        await press(pilot, "enter")
        await until(pilot, lambda: form.lines[0].error, "it is refused again")
        assert form.values["ipv4"] == "172.16.0.5/24"
        assert len(vm(lab, "web")["spec"]["nics"]) == 1


async def test_a_nic_is_removed_after_the_difference_was_shown(tmp_path: Path):
    lab = Lab(tmp_path)
    lab.add_vm("web", networks=("default", "default"))
    async with running(make_app(lab)) as pilot:
        await run(pilot, "vm.remove-nic", ChooseDialog)
        await press(pilot, "down", "enter")
        await see(pilot, "Remove nic1 from web")
        await press(pilot, "enter")
        await at_rest(pilot, lab)
        assert [nic["id"] for nic in vm(lab, "web")["spec"]["nics"]] == ["nic0"]


async def test_the_resize_form_has_the_types_parameters_and_shows_the_effects(tmp_path: Path):
    lab = Lab(tmp_path)
    lab.add_vm("web")
    async with running(make_app(lab)) as pilot:
        form = await run(pilot, "vm.resize")
        names = [line.field.name for line in form.lines]
        assert {"cpus", "memoryMiB", "diskGiB"} <= set(names)
        await shown(pilot, form)
        await see(pilot, "Nothing in it would change")
        form.lines[names.index("cpus")].control.value = "99"
        await until(pilot, lambda: form.lines[names.index("cpus")].error, "the limits are told at once")
        form.lines[names.index("cpus")].control.value = "2"
        await shown(pilot, form)
        await see(pilot, r"spec\.parameters\.cpus")
        await confirm(pilot, form)
        await at_rest(pilot, lab)
        assert vm(lab, "web")["spec"]["parameters"] == {"cpus": 2}


async def test_enter_shows_first_what_was_not_shown_yet(tmp_path: Path):
    lab = Lab(tmp_path)
    lab.add_vm("web", "stopped")
    async with running(make_app(lab)) as pilot:
        form = await run(pilot, "vm.add-disk")
        await shown(pilot, form)
        form.lines[0].control.value = "12"
        form._submit()
        await settle(pilot)
        assert app_of(pilot).screen is form
        await confirm(pilot, form)
        await at_rest(pilot, lab)
        assert [disk["sizeGiB"] for disk in vm(lab, "web")["spec"]["disks"]] == [12]


async def test_a_disk_grows_and_goes(tmp_path: Path):
    lab = Lab(tmp_path)
    lab.add_vm("web", "stopped")
    async with running(make_app(lab)) as pilot:
        await confirm(pilot, await run(pilot, "vm.add-disk"))
        await at_rest(pilot, lab)
        await run(pilot, "vm.grow-disk", ChooseDialog)
        await press(pilot, "=disk1", "enter")
        form = app_of(pilot).screen
        assert isinstance(form, FormDialog)
        form.lines[0].control.value = "3"
        await until(pilot, lambda: "at least 10" in form.lines[0].error, "a disk does not shrink")
        form.lines[0].control.value = "30"
        await confirm(pilot, form)
        await at_rest(pilot, lab)
        assert vm(lab, "web")["spec"]["disks"][0]["sizeGiB"] == 30
        await run(pilot, "vm.remove-disk", None)
        await see(pilot, "Remove disk1 from web")
        await press(pilot, "enter")
        await at_rest(pilot, lab)
        assert vm(lab, "web")["spec"]["disks"] == []


async def test_a_cd_is_put_in_and_taken_out(tmp_path: Path):
    lab = Lab(tmp_path)
    lab.add_vm("web")
    async with running(make_app(lab)) as pilot:
        await run(pilot, "vm.insert-disc", None)
        await see(pilot, "Put starter into the drive of web")
        await press(pilot, "enter")
        await at_rest(pilot, lab)
        assert vm(lab, "web")["spec"]["cdrom"]["name"] == "starter"
        await run(pilot, "vm.eject-disc", None)
        await see(pilot, "Take the CD out of web")
        await press(pilot, "enter")
        await at_rest(pilot, lab)
        assert vm(lab, "web")["spec"]["cdrom"] is None
        await run(pilot, "vm.eject-disc", None)
        await see(pilot, "there is no CD in the drive")


async def test_snapshots_are_taken_restored_and_deleted(tmp_path: Path):
    lab = Lab(tmp_path)
    lab.add_vm("web", "stopped")
    async with running(make_app(lab), (120, 40)) as pilot:
        form = await run(pilot, "vm.snapshot")
        await press(pilot, "=Before")
        await until(pilot, lambda: form.lines[0].error, "a bad name is told at once")
        form.lines[0].control.value = "before"
        await confirm(pilot, form)
        await at_rest(pilot, lab)
        form = await run(pilot, "vm.restore-snapshot")
        await see(pilot, "what was written since")
        await confirm(pilot, form)
        await at_rest(pilot, lab)
        await press(pilot, "enter")
        await see(pilot, r"before +20")
        await run(pilot, "vm.delete-snapshot", ConfirmDialog)
        await press(pilot, "y")
        await at_rest(pilot, lab)
        assert vm(lab, "web")["status"]["snapshots"] == []
        await run(pilot, "vm.restore-snapshot", None)
        await see(pilot, "web has no snapshot")


async def test_a_refused_snapshot_keeps_what_was_typed(tmp_path: Path):
    lab = Lab(tmp_path)
    lab.add_vm("web", "stopped")
    async with running(make_app(lab)) as pilot:
        form = await run(pilot, "vm.snapshot")
        await press(pilot, "=one")
        await confirm(pilot, form)
        await at_rest(pilot, lab)
        form = await run(pilot, "vm.snapshot")
        await press(pilot, "=one", "tab", "=again", "enter")
        await see(pilot, "it has a snapshot one")
        assert form.values == {"snapshot": "one", "description": "again"}
        assert app_of(pilot).screen is form


async def test_a_clone_and_another_name(tmp_path: Path):
    lab = Lab(tmp_path)
    lab.add_vm("web", "stopped")
    async with running(make_app(lab)) as pilot:
        form = await run(pilot, "vm.clone")
        form.lines[0].control.value = "web"
        await until(pilot, lambda: form.lines[0].error == "the name is taken", "a taken name is told at once")
        form.lines[0].control.value = "twin"
        await confirm(pilot, form)
        await at_rest(pilot, lab)
        assert vm(lab, "twin")["uid"] != vm(lab, "web")["uid"]
        await press(pilot, "G")
        form = await run(pilot, "vm.rename")
        form.lines[0].control.value = "shop"
        await confirm(pilot, form)
        await at_rest(pilot, lab)
        await see(pilot, "shop")


async def test_what_somebody_else_changed_is_shown_before_it_is_mended(tmp_path: Path):
    lab = Lab(tmp_path)
    lab.add_vm("web")
    async with running(make_app(lab)) as pilot:
        lab.host.tamper(uid_of("web"), memory_mib=4096)
        form = await run(pilot, "vm.reconcile")
        await see(pilot, "4096")
        await confirm(pilot, form)
        await at_rest(pilot, lab)
        assert vm(lab, "web")["status"]["drift"] == []
        await run(pilot, "vm.reconcile", None)
        await see(pilot, "web: the host is as the document says")


async def test_a_foreign_domain_is_shown_in_full_before_it_is_adopted(tmp_path: Path):
    lab = Lab(tmp_path)
    lab.add_vm("web")
    lab.add_foreign("Old_Mail")
    async with running(make_app(lab)) as pilot:
        await run(pilot, "vm.adopt", None)
        await see(pilot, "web is KC's already")
        await press(pilot, "g")
        form = await run(pilot, "vm.adopt")
        assert form.values == {"name": "old-mail"}
        await shown(pilot, form)
        await see(pilot, "KC manages")
        await confirm(pilot, form)
        await at_rest(pilot, lab)
        adopted = vm(lab, "old-mail")
        assert adopted["uid"] == uid_of("Old_Mail")
        assert adopted["spec"]["adopted"]
        await press(pilot, "g")
        await until(
            pilot, lambda: app_of(pilot).command_context().subjects[0].is_adopted, "the cursor is on what was adopted"
        )
        await run(pilot, "vm.add-disk", None)
        await see(pilot, "old-mail was adopted: its disks are not KC's")
        await press(pilot, "d")
        await see(pilot, "KC manages it no more")


async def test_the_viewer_tells_where_the_screen_is_and_copies_the_command(tmp_path: Path):
    lab = Lab(tmp_path)
    lab.add_vm("web")
    async with running(make_app(lab)) as pilot:
        await run(pilot, "vm.viewer", MessageDialog)
        await see(pilot, "kc vm viewer web")
        await press(pilot, "y")
        assert pilot.app.clipboard == "kc vm viewer web"


async def test_a_picture_is_written_and_never_over_another_file(tmp_path: Path):
    lab = Lab(tmp_path)
    lab.add_vm("web")
    picture = make_png(4, 4, lambda _x, _y: (1, 2, 3))
    lab.host.screenshot = lambda _uid: picture
    target = tmp_path / "web.png"
    async with running(make_app(lab)) as pilot:
        form = await run(pilot, "vm.screenshot")
        form.lines[0].control.value = str(target)
        await confirm(pilot, form)
        assert target.read_bytes() == picture
        form = await run(pilot, "vm.screenshot")
        form.lines[0].control.value = str(target)
        await press(pilot, "enter")
        await see(pilot, "there is such a file")
        assert app_of(pilot).screen is form


async def test_a_vm_moves_to_a_newer_version_of_its_type(tmp_path: Path):
    lab = Lab(tmp_path)
    lab.add_vm("web", "stopped")
    small = lab.service.get("MachineType", "small")
    lab.service.update({"kind": "MachineType", "name": "small", "spec": small["spec"] | {"description": "newer"}})
    async with running(make_app(lab)) as pilot:
        await run(pilot, "vm.move", ChooseDialog)
        await see(pilot, "1 to 2")
        await press(pilot, "=small", "enter")
        await see(pilot, "Move web to machine type small")
        await press(pilot, "enter")
        await at_rest(pilot, lab)
        assert vm(lab, "web")["spec"]["type"]["version"] == 2


async def test_a_confined_session_says_why_it_has_no_editor_and_no_files(tmp_path: Path):
    lab = Lab(tmp_path)
    lab.add_vm("web")
    app = make_app(lab)
    async with running(app) as pilot:
        app.session.confine()
        await press(pilot, "e")
        await see(pilot, "there is no editor here")
        assert app.command_context().refusals.keys() == {"object.edit", "vm.screenshot"}


async def test_a_vm_that_is_not_as_it_is_to_be_stands_out_with_its_reason(tmp_path: Path):
    lab = Lab(tmp_path)
    lab.add_vm("web", "stopped", wanted="running")
    async with running(make_app(lab)) as pilot:
        await see(pilot, r"▲ web +stopped")
        await see(pilot, "it is to be running, and it is stopped")
        await press(pilot, "s")
        await see(pilot, r"● web +running")


def refuse(_uid: str) -> bytes:
    raise ConflictError("screen", "it has none")


async def test_the_overview_shows_the_screen_and_what_the_host_tells(tmp_path: Path):
    lab = Lab(tmp_path)
    lab.add_vm("web", address="10.0.0.17")
    lab.host.screenshot = lambda _uid: make_png(320, 200, paint_desktop)
    async with running(make_app(lab), (140, 40)) as pilot:
        await press(pilot, "enter")
        screen = pilot.app.screen
        assert isinstance(screen, VMScreen)
        await until(pilot, lambda: screen.thumbnail.picture is not None, "the picture is there")
        await see(pilot, "▀▀▀▀")
        await see(pilot, r"vnc\+unix")
        lab.host.screenshot = refuse
        screen.look_closely()
        await until(pilot, lambda: screen.thumbnail.picture is None, "a picture that is not told is taken away")


async def test_the_overview_asks_nothing_while_nobody_sees_it(tmp_path: Path):
    lab = Lab(tmp_path)
    lab.add_vm("web")
    asked: list[str] = []
    async with running(make_app(lab), (140, 40)) as pilot:
        await press(pilot, "enter")
        screen = pilot.app.screen
        assert isinstance(screen, VMScreen)
        await settle(pilot)
        await press(pilot, "tab")
        lab.host.fail = asked.append
        screen.look_closely()
        screen.look_at_figures()
        await settle(pilot)
        assert "screenshot" not in asked
        assert "display_address" not in asked


NOT_UPON_ONE = ("vm.create", "vm.columns", "vm.metadata", "vm.adopt")
VERBS = [item for item in REGISTRY if item.scope is Scope.VM and item.id not in NOT_UPON_ONE]


async def test_every_verb_says_why_it_does_nothing_to_a_foreign_domain(tmp_path: Path):
    lab = Lab(tmp_path)
    lab.add_foreign("theirs")
    async with running(make_app(lab)) as pilot:
        context = app_of(pilot).command_context()
        reasons = {command.id: command.refusal(context) for command in VERBS}
        assert set(reasons.values()) == {"theirs is not KC's: it is shown, never touched"}, reasons
