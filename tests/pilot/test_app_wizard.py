"""The wizard by keys alone: from `n` to a running VM, with everything kept and everything told."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

import pytest
from snapshots.picture import read_text
from support.app import make_app, press, running, see, until
from support.world import Lab

from backend.errors import FailedError, UnreachableError
from backend.hypervisor.memory import fail_with
from backend.local import LocalService
from backend.service import DocumentPage
from backend.store.opening import open_store
from kc_tui.application import KCApp
from kc_tui.session import load_remembered
from kc_tui.state.draft import Nic
from kc_tui.wizards.create_vm import CreateVMWizard

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG3rXmUc0tJ2hB0c7V5sZk1q4r8w2yT9nE6fLx3aPdOu ada@laptop"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path)
    lab.add("Network", "backend", {"uplink": "isolated", "ipv6": {"subnet": "fd00:1::/64", "mode": "slaac"}})
    lab.add("Network", "absent", {"uplink": "isolated"})
    return lab


def wizard(app: KCApp) -> CreateVMWizard:
    screen = app.screen
    assert isinstance(screen, CreateVMWizard)
    return screen


def made(lab: Lab, name: str) -> dict[str, Any]:
    return lab.service.get("VM", name)


async def test_six_control_keys_and_a_name_make_a_running_vm(tmp_path: Path):
    lab = Lab(tmp_path)
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "n", "enter", "enter", "enter", "=web-1", "enter", "enter")
        await see(pilot, r"▌ . web-1")
        await see(pilot, r"● web-1 +running .*192\.168\.150\.\d+ dhcp +tiny")
        row = app.screen_stack[0].table.row
        assert row.cells[0].text == "web-1"
    assert made(lab, "web-1")["spec"]["parameters"] == {}


async def test_enter_that_comes_before_the_lists_chooses_what_it_would_have_chosen_after(tmp_path: Path):
    lab = Lab(tmp_path)
    gate = threading.Event()

    class Late(LocalService):
        def list_documents(self, kind: str, **options: Any) -> DocumentPage:
            if kind != "VM":
                gate.wait(20)
            return super().list_documents(kind, **options)

    app = make_app(lab, factory=lambda: Late(open_store(lab.service.store.url), lab.host, lab.service.settings))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.screen.query("VirtualTable"), "the list")
        await pilot.press("n")
        await see(pilot, "looking what there is")
        assert "+ new" not in read_text(app)
        await pilot.press("enter")
        gate.set()
        await see(pilot, "◉ network")
        assert wizard(app).draft.image == "starter"


async def test_nothing_on_the_host_or_in_the_store_changes_before_the_last_enter(tmp_path: Path):
    lab = Lab(tmp_path)
    app = make_app(lab)
    async with running(app) as pilot:
        before = (lab.service.store.revision(), dict(lab.host.volumes), dict(lab.host.domains))
        await press(pilot, "n", "enter", "enter", "enter", "=web-1", "enter")
        await see(pilot, "Enter makes on the host")
        assert (lab.service.store.revision(), lab.host.volumes, lab.host.domains) == before
        await press(pilot, "escape")


async def test_the_choices_made_last_are_preselected_the_next_time(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "n", "enter", "=back", "enter", "=smal", "enter", "=one", "enter", "enter")
        await see(pilot, r"● one +running")
        assert made(lab, "one")["spec"]["type"]["name"] == "small"
        await press(pilot, "n", "enter", "enter", "enter", "=two", "enter", "enter")
        await see(pilot, r"● two +running")
    spec = made(lab, "two")["spec"]
    assert spec["type"]["name"] == "small"
    assert [nic["network"]["name"] for nic in spec["nics"]] == ["backend"]
    remembered = load_remembered(lab.home / "data")
    assert (remembered.image, remembered.networks, remembered.type) == ("starter", ("backend",), "small")


async def test_typing_filters_at_once_and_escape_takes_it_back_before_it_leaves(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "n", "enter", "=def")
        page = wizard(app).network_page
        assert [row.key for row in page.table.rows] == ["default"]
        assert "/ def" in read_text(app)
        await press(pilot, "backspace", "escape")
        assert len(page.table.rows) == 4
        assert wizard(app).wizard.step.id == "network"
        await press(pilot, "escape")
        assert not isinstance(app.screen, CreateVMWizard)


async def test_several_networks_are_marked_in_the_order_of_their_nics(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "n", "enter", "down", "down", "space", "up", "space", "up", "enter")
        await press(pilot, "enter", "=web", "enter", "enter")
        await see(pilot, r"● web +running")
    assert [nic["network"]["name"] for nic in made(lab, "web")["spec"]["nics"]] == ["default", "backend"]


async def test_a_mark_can_be_taken_away_again(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "n", "enter", "space", "down", "space", "up", "space")
        assert wizard(app).network_page.chosen == (Nic("backend"),)


async def test_addressing_is_changed_in_place_and_errors_stand_beside_the_address(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "n", "enter", "=default")
        await press(pilot, "escape", "a", "right", "right", "right", "tab", "=192.168.150.9")
        assert "add a prefix: /24" in read_text(app)
        await press(pilot, "enter")
        assert wizard(app).network_page.editor.display
        await press(pilot, "=/24", "enter")
        assert "192.168.150.9/24" in read_text(app)
        await press(pilot, "enter", "enter", "=web", "enter")
        await see(pilot, "ipv4=192.168.150.9/24")
        await press(pilot, "enter")
        await see(pilot, r"web +running")
    assert made(lab, "web")["spec"]["nics"][0]["ipv4"] == {"mode": "static", "address": "192.168.150.9/24"}


async def test_escape_leaves_the_addressing_as_it_was(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "n", "enter", "a", "right", "escape")
        assert wizard(app).wizard.step.id == "network"
        assert wizard(app).network_page.chosen == (Nic("absent"),)


async def test_fields_are_made_from_the_types_schema_and_judged_while_one_types(lab: Lab):
    parameters = {
        "cpus": {"type": "integer", "title": "CPUs", "minimum": 1, "maximum": 4, "default": 1},
        "diskGiB": {"enum": [2, 4, 8], "default": 2, "title": "Disk", "unit": "GiB"},
    }
    lab.add("MachineType", "odd", {"hardware": {"cpus": 1, "memoryMiB": 256, "diskGiB": 2}, "parameters": parameters})
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "n", "enter", "enter", "=odd", "enter")
        await press(pilot, "=web", "tab", "backspace", "9")
        assert re.search(r"CPUs +9 +1 to 4", read_text(app))
        assert wizard(app).fields_page.lines[1].error == "1 to 4"
        await press(pilot, "enter")
        assert wizard(app).wizard.step.id == "name"
        await press(pilot, "backspace", "2", "tab", "right", "enter")
        await see(pilot, r"--set cpus=2 --set diskGiB=4|--set cpus=2 .*\n.*--set diskGiB=4")
        await press(pilot, "enter")
        await see(pilot, r"web +running")
    assert made(lab, "web")["spec"]["parameters"] == {"cpus": 2, "diskGiB": 4}


@pytest.mark.parametrize(
    ("typed", "told"),
    [("", "a name is wanted"), ("web_1", "small letters, digits"), ("taken", "the name is taken")],
)
async def test_a_name_that_cannot_be_is_told_beside_it(lab: Lab, typed: str, told: str):
    lab.add_vm("taken")
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "n", "enter", "enter", "enter", *([f"={typed}"] if typed else []), "enter")
        assert wizard(app).wizard.step.id == "name"
        assert told in wizard(app).fields_page.lines[0].error
        assert told in read_text(app)


async def test_shift_tab_goes_back_and_everything_is_still_there(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(
            pilot, "n", "enter", "=default", "enter", "=small", "enter", "=web", "tab", "backspace", "3", "enter"
        )
        assert wizard(app).wizard.step.id == "review"
        await press(pilot, "shift+tab")
        assert wizard(app).fields_page.name_text == "web"
        assert wizard(app).fields_page.values == {"cpus": "3"}
        await press(pilot, "shift+tab", "shift+tab")
        assert wizard(app).wizard.step.id == "network"
        assert wizard(app).network_page.current == "default"
        await press(pilot, "enter", "enter", "enter")
        await see(pilot, r"--type small \\\n +--set cpus=3")


async def test_another_machine_type_brings_its_own_fields_and_keeps_the_name(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "n", "enter", "enter", "enter", "=web", "shift+tab")
        await press(pilot, "=large", "enter")
        page = wizard(app).fields_page
        assert [line.text for line in page.lines] == ["web", "4", "8192", "40"]


async def test_leaving_keeps_the_draft_in_memory_and_in_the_file(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "n", "enter", "=default", "enter", "=small", "enter", "=half-way", "escape")
        assert not isinstance(app.screen, CreateVMWizard)
        await press(pilot, "n")
        assert wizard(app).wizard.step.id == "name"
        assert wizard(app).fields_page.name_text == "half-way"
        await press(pilot, "escape")
    app = make_app(
        lab, remembered=load_remembered(lab.home / "data"), factory=lambda: Lab(lab.home, furnished=False).service
    )
    async with running(app) as pilot:
        await press(pilot, "n")
        assert wizard(app).draft.type == "small"
        assert wizard(app).fields_page.name_text == "half-way"
        await press(pilot, "ctrl+r")
        assert wizard(app).wizard.step.id == "image"
        assert wizard(app).draft.name == ""


async def test_an_error_of_the_service_stands_beside_its_field_and_nothing_is_lost(tmp_path: Path):
    lab = Lab(tmp_path)
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "n", "enter", "enter", "enter", "=web", "enter")
        await see(pilot, "Enter makes on the host")
        lab.add_vm("web")
        await press(pilot, "enter")
        await see(pilot, "the name is taken")
        assert wizard(app).wizard.step.id == "name"
        assert wizard(app).fields_page.name_text == "web"
        await press(pilot, "2", "enter", "enter")
        await see(pilot, r"web2 +running")


async def test_an_error_that_belongs_to_no_field_is_told_on_the_last_page(tmp_path: Path):
    lab = Lab(tmp_path)
    app = make_app(lab)
    async with running(app) as pilot:
        healthy = lab.host.fail
        await press(pilot, "n", "enter", "enter", "enter", "=web", "enter")
        lab.host.fail = fail_with(UnreachableError("host lab", "it does not answer", "start libvirtd"), "find_domain")
        await press(pilot, "enter")
        await see(pilot, "it does not answer. start libvirtd")
        lab.host.fail = healthy
        await press(pilot, "enter")
        await see(pilot, r"web +running")


async def test_a_creation_that_fails_leaves_no_row_and_is_told(tmp_path: Path):
    lab = Lab(tmp_path)
    app = make_app(lab)
    async with running(app) as pilot:
        lab.host.fail = fail_with(FailedError("pool kc", "no space left", "free some"), "ensure_overlay")
        await press(pilot, "n", "enter", "enter", "enter", "=web", "enter", "enter")
        await see(pilot, "creating web failed")
        await see(pilot, "n opens the wizard with everything as it was")
        await until(pilot, lambda: not app.screen_stack[0].table.rows, "no row is left")
        await press(pilot, "6", "enter")
        await see(pilot, "No space left.")
        await press(pilot, "1", "n")
        assert wizard(app).wizard.step.id == "review"
        lab.host.fail = lambda _call: None
        await press(pilot, "enter")
        await see(pilot, r"web +running")


async def test_the_key_in_the_home_folder_is_let_in_unless_it_is_switched_off(tmp_path: Path):
    lab = Lab(tmp_path)
    folder = tmp_path / "user" / ".ssh"
    folder.mkdir(parents=True)
    (folder / "id_ed25519.pub").write_text(f"{KEY}\n")
    (folder / "id_broken.pub").write_text("-----BEGIN PRIVATE KEY-----\n")
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "n", "enter", "enter", "enter", "=with", "enter")
        await see(pilot, r"\[✓\] let in ~/.ssh/id_ed25519.pub +ada@laptop")
        assert "--ssh-key ~/.ssh/id_ed25519.pub" in read_text(app)
        assert "broken" not in read_text(app)
        await press(pilot, "enter")
        await see(pilot, r"with +running")
        await press(pilot, "n", "enter", "enter", "enter", "=without", "enter", "down", "space")
        assert "--ssh-key" not in read_text(app)
        await press(pilot, "up", "space", "enter")
        await see(pilot, r"○ without +stopped")
    assert made(lab, "with")["spec"]["sshKeys"] == [KEY]
    assert made(lab, "without")["spec"]["sshKeys"] == []


async def test_the_command_is_copied(tmp_path: Path):
    app = make_app(Lab(tmp_path))
    async with running(app) as pilot:
        await press(pilot, "n", "enter", "enter", "enter", "=web", "enter", "y")
        assert app.clipboard == "kc vm create web --image starter --network default --type tiny"


async def test_machine_types_for_another_architecture_say_why_not(tmp_path: Path):
    lab = Lab(tmp_path)
    lab.add("MachineType", "arm", {"arch": "aarch64", "firmware": "uefi", "hardware": {"memoryMiB": 64}})
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "n", "enter", "enter", "=arm", "enter")
        assert "arm is for aarch64; the image is for x86_64" in read_text(app)
        assert wizard(app).wizard.step.id == "type"


async def test_an_empty_kc_says_how_to_make_what_is_missing(tmp_path: Path):
    app = make_app(Lab(tmp_path, furnished=False))
    async with running(app) as pilot:
        await press(pilot, "n")
        assert "+ new image…" in read_text(app)
        assert "kc image upload FILE --name NAME" in read_text(app)
        await press(pilot, "enter")
        assert wizard(app).wizard.step.id == "image"


async def test_what_comes_while_the_wizard_is_open_is_offered(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "n", "enter")
        lab.add("Network", "brand-new", {"uplink": "isolated"})
        await see(pilot, "brand-new")


async def test_letters_that_are_verbs_elsewhere_are_text_here(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "n", "=q1d")
        assert wizard(app).image_page.typed == "q1d"
        assert not app._exit
