"""The list of VMs on a real service: what is shown, what follows the host live, what the verbs do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rich.cells import cell_len
from snapshots.picture import read_text
from support.app import make_app, press, running, see, settle, until
from support.world import Lab, uid_of

from backend.errors import UnreachableError
from backend.hypervisor.memory import fail_with
from backend.model.kinds import KEPT_KINDS
from kc_tui.application import KCApp
from kc_tui.dialogs.confirm import ConfirmDialog
from kc_tui.dialogs.delete import DeleteDialog
from kc_tui.messages import Link
from kc_tui.screens.vms import VMsScreen
from kc_tui.state.remembered import Order, Remembered


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path)
    lab.add_vm("web-1", address="10.0.0.17", metadata={"tenant": "acme"})
    lab.add_vm("web-2", "stopped", metadata={"tenant": "acme"})
    lab.add_vm("db-1", metadata={"tenant": "beta"})
    lab.add_foreign("win11")
    return lab


def rows(app: KCApp) -> list[str]:
    screen = app.screen_stack[0]
    assert isinstance(screen, VMsScreen)
    return [row.cells[0].text for row in screen.table.rows]


def line(app: KCApp, name: str) -> str:
    return next(line for line in read_text(app).splitlines() if f" {name} " in line)


def vms(app: KCApp) -> VMsScreen:
    screen = app.screen_stack[0]
    assert isinstance(screen, VMsScreen)
    return screen


async def test_every_vm_stands_in_the_list_with_its_state(lab: Lab):
    app = make_app(lab)
    async with running(app):
        assert rows(app) == ["db-1", "web-1", "web-2", "win11"]
        assert re.search(r"● web-1 +running .*10\.0\.0\.17 dhcp +small", line(app, "web-1"))
        assert re.search(r"○ web-2 +stopped", line(app, "web-2"))
        assert re.search(r"◇ win11 +running .*foreign, not KC's", line(app, "win11"))
        assert re.search(r"KC · lab +3 VMs +2 running +● live", read_text(app))


async def test_the_first_picture_does_not_wait_for_the_host(lab: Lab):
    app = make_app(lab)
    with_host = lab.host.fail

    def hang(call: str) -> None:
        if call in ("inventory", "observe", "leases", "subscribe"):
            lab_gate.wait(20)
        with_host(call)

    import threading

    lab_gate = threading.Event()
    lab.host.fail = hang
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: rows(app) == ["db-1", "web-1", "web-2"], "the store's VMs are shown")
        assert app.session.link_state.link is Link.CONNECTING
        assert "?" not in line(app, "web-1")
        lab_gate.set()
        await until(pilot, lambda: "win11" in rows(app), "the host has answered")
        assert app.session.link_state.link is Link.LIVE


async def test_what_happens_on_the_host_is_seen_without_asking(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        lab.host.set_power(uid_of("web-1"), "crashed", "panicked")
        await see(pilot, r"▲ web-1 +crashed")
        await see(pilot, r"1 running +1 need you")
        await press(pilot, "j")
        await see(pilot, r"└ it crashed: panicked")


async def test_a_host_that_stops_answering_makes_what_is_shown_stale_and_live_again_when_it_is_back(lab: Lab):
    app = make_app(lab)
    healthy = lab.host.fail
    async with running(app) as pilot:
        lab.host.fail = fail_with(UnreachableError("host", "it does not answer"))
        lab.host._tell("connection", "lost")
        await see(pilot, r"\? stale since \d\d:\d\d")
        await see(pilot, r"\? web-1 +running \?")
        lab.host.fail = healthy
        lab.host._tell("connection", "back")
        await see(pilot, "● live")
        assert "?" not in line(app, "web-1")


async def test_stopping_asks_first_and_then_follows_the_operation(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "j", "s")
        assert isinstance(app.screen, ConfirmDialog)
        assert "Stop web-1?" in read_text(app)
        await press(pilot, "n")
        assert lab.host.domains[uid_of("web-1")].power == "running"
        await press(pilot, "s", "y")
        await see(pilot, r"○ web-1 +stopped")
        assert lab.host.domains[uid_of("web-1")].power == "stopped"


async def test_starting_needs_no_question(lab: Lab):
    lab.host.volumes["kc-starter-0123456789ab-" + "5" * 64] = next(iter(lab.host.volumes.values()))
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "j", "j", "s")
        await see(pilot, r"● web-2 +running")
        assert lab.host.domains[uid_of("web-2")].power == "running"


async def test_deleting_for_good_wants_the_name_typed(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "j", "d", "tab", "=web", "enter")
        assert isinstance(app.screen, DeleteDialog)
        await press(pilot, "=-1", "enter")
        await until(pilot, lambda: rows(app) == ["db-1", "web-2", "win11"], "it is gone")
        assert uid_of("web-1") not in lab.host.domains


async def test_a_verb_acts_on_all_marked_after_a_summary_and_the_marks_go(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "space", "space", "s")
        assert "Stop 2 VMs?" in read_text(app)
        assert "db-1 and web-1" in read_text(app)
        await press(pilot, "y")
        await see(pilot, r"○ db-1 +stopped")
        await see(pilot, r"○ web-1 +stopped")
        await until(pilot, lambda: not vms(app).table.marked, "no mark is left")


@pytest.mark.parametrize("key", ["s", "r", "d", "c"])
async def test_foreign_domains_are_refused_with_the_reason(lab: Lab, key: str):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "G", key)
        assert "win11 is not KC's: it is shown, never touched" in read_text(app)
        assert len(app.screen_stack) == 1


async def test_an_error_says_what_why_and_what_next_and_stays_in_the_activity_list(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        lab.host.fail = fail_with(UnreachableError("host lab", "it does not answer", "start libvirtd"), "observe")
        await press(pilot, "j", "s", "y")
        await see(pilot, "It does not answer.")
        await see(pilot, "Start libvirtd.")
        await press(pilot, "6")
        await see(pilot, r"✕ now +error +host lab +failed")
        await press(pilot, "enter")
        await see(pilot, "Start libvirtd.")


async def test_an_operation_that_fails_is_told(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        healthy = lab.host.fail
        lab.host.fail = fail_with(UnreachableError("x", "y"), "nothing")
        lab.host.domains[uid_of("db-1")].agent = False

        def no_room(call: str) -> None:
            if call == "ensure_defined":
                from backend.errors import FailedError

                raise FailedError("pool kc", "no space left", "free some")
            healthy(call)

        lab.host.fail = no_room
        await press(pilot, "j", "s", "y")
        await see(pilot, "stopping web-1 failed")
        await see(pilot, "No space left. *\n? *.*Free some.|No space left.")


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("web", ["web-1", "web-2"]),
        ("tenant=acme", ["web-1", "web-2"]),
        ("tenant=acme,status.power=running", ["web-1"]),
        ("10.0.0.17", ["web-1"]),
        ("foreign", ["win11"]),
        ("nothing-like-it", []),
    ],
)
async def test_a_filter_applies_while_one_types(lab: Lab, typed: str, found: list[str]):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "slash", f"={typed}")
        assert rows(app) == found
        assert f"{len(found)} of 4" in read_text(app)
        await press(pilot, "enter", "escape")
        assert len(rows(app)) == 4


async def test_a_wrong_selector_says_so_and_leaves_the_list(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "slash", "=tenant>")
        assert vms(app).filter_bar.error
        assert vms(app).filter_bar.error in read_text(app)
        assert rows(app) == ["db-1", "web-1", "web-2"]


@pytest.mark.parametrize(
    "typed",
    [
        "tenant>",
        "tenant=acme,,x=1",
        "tenant in (a,b",
        "städte=宽宽,=2",
        "tenant=acme,owner.mail~*@acme.example,spec.type.name=small,status.power=running,x=1,tier in (1,2",
    ],
)
async def test_an_error_in_a_selector_points_at_the_character(lab: Lab, typed: str):
    from backend.errors import RefusedError
    from backend.model.selectors import parse

    with pytest.raises(RefusedError) as raised:
        parse(typed)
    position = raised.value.details["position"]
    app = make_app(lab)
    async with running(app, (100, 24)) as pilot:
        await press(pilot, "slash", f"={typed}")
        lines = read_text(app).splitlines()
        row = next(index for index, line in enumerate(lines) if line.startswith(" / "))
        caret = cell_len(lines[row + 1].partition("▲")[0])
        assert "▲" in lines[row + 1]
        # The text begins behind a blank, the stroke and another blank, and scrolls when it is longer than its line.
        input_ = vms(app).filter_bar._input
        assert caret - 3 == cell_len(typed[:position]) - input_.scroll_offset.x
        assert 0 < position <= len(typed)


async def test_the_order_is_changed_and_remembered(lab: Lab, tmp_path: Path):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "O")
        assert rows(app) == ["win11", "web-2", "web-1", "db-1"]
        await press(pilot, "o")
        assert vms(app).order == Order("state")
    from kc_tui.session import load_remembered

    assert load_remembered(tmp_path / "data").order("vms") == Order("state")


async def test_the_cursor_stays_with_its_vm_while_others_come_and_go(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "j")
        lab.add_vm("aaa-first")
        await until(pilot, lambda: rows(app)[0] == "aaa-first", "the other came")
        row = vms(app).table.row
        assert row is not None
        assert row.key == uid_of("web-1")


async def test_more_room_shows_a_pane_and_much_room_metadata(lab: Lab):
    app = make_app(lab)
    async with running(app, (100, 30)) as pilot:
        await press(pilot, "j")
        assert "address   10.0.0.17  dhcp" in read_text(app)
        assert "TENANT" not in read_text(app)
        await pilot.resize_terminal(140, 40)
        await see(pilot, "TENANT")
        await see(pilot, r"web-1 .* acme")


async def test_metadata_columns_are_chosen_and_remembered(lab: Lab):
    lab.add_vm("cache", metadata={"rack": "r7"})
    app = make_app(lab, remembered=Remembered(columns=()))
    async with running(app, (140, 40)) as pilot:
        assert "TENANT" not in read_text(app)
        await press(pilot, "C", "=rack", "enter", "escape")
        await see(pilot, "RACK")
        assert app.session.remembered.columns == ("rack",)


async def test_copying_takes_the_address_of_one_and_the_names_of_several(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "j", "y")
        assert app.clipboard == "10.0.0.17"
        await press(pilot, "k", "space", "space", "y")
        assert app.clipboard == "db-1\nweb-1"


async def test_what_another_process_does_is_seen(lab: Lab):
    from support.memory_kc import make_service, vm_document
    from support.memory_kc import settle as settle_operation

    app = make_app(lab)
    async with running(app) as pilot:
        other = make_service(lab.home, lab.host)
        settle_operation(other, other.create(vm_document("theirs")))
        await see(pilot, r"● theirs +running")
        other.close()


async def test_a_feed_that_is_too_far_behind_lists_everything_again(lab: Lab):
    import threading

    from support.memory_kc import make_service

    from backend.errors import ConflictError

    fall_behind = threading.Event()

    def open_service():
        service = make_service(lab.home, lab.host)
        whole = service.watch

        def watch(kinds=(), *, since=None, selector=""):
            if fall_behind.is_set() and since is not None:
                raise ConflictError("feed", "it is too old", compacted=True)
            for event in whole(kinds, since=since, selector=selector):
                if fall_behind.is_set() and since is not None:
                    # What was compacted away is never told.
                    raise ConflictError("feed", "it is too old", compacted=True)
                yield event

        service.watch = watch
        return service

    app = make_app(lab, factory=open_service)
    async with running(app) as pilot:
        fall_behind.set()
        lab.add_vm("late")
        gone = lab.service.store.get("VM", uid_of("db-1"))
        assert gone is not None
        lab.throw_away(gone, 5)
        await until(pilot, lambda: "late" in rows(app) and "db-1" not in rows(app), "all is listed again", 20)
        await see(pilot, "● live")
        assert app.session.inventory.count("Trash") == 1
        lab.add_vm("later")
        await until(pilot, lambda: "later" in rows(app), "the feed goes on")


async def test_the_mouse_does_what_keys_do(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await pilot.click(offset=(10, 5))
        await settle(pilot)
        row = vms(app).table.row
        assert row is not None
        assert row.key == uid_of("web-1")
        await pilot.click(offset=(12, 1))
        await until(pilot, lambda: app.current_mode == "images", "the section that was clicked")


async def test_what_a_newer_kc_wrote_is_left_out_and_told(tmp_path: Path):
    lab = Lab(tmp_path)
    app = make_app(lab)
    async with running(app) as pilot:
        for number, kind in enumerate(KEPT_KINDS):
            body = {
                "apiVersion": "kc/v9", "kind": kind.name, "name": "alien", "uid": f"uid-{number}", "metadata": {},
                "spec": {"moons": 2}, "createdAt": "2026-01-02T03:04:05.000Z", "updatedAt": "2026-01-02T03:04:05.000Z",
                "updatedBy": "newer",
            }  # fmt: skip
            with lab.service.store.transaction() as transaction:
                transaction.put(body, expect=0)
        await press(pilot, "2", "3", "4", "1")
        assert "alien" not in read_text(app)
    again = make_app(lab)
    async with running(again):
        for kind in KEPT_KINDS:
            assert not again.session.inventory.find(kind.name, "alien")
            assert any("a newer KC wrote it" in warning for warning in again.session.inventory.warnings[kind.name])
