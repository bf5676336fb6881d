"""Deleting, the trash, and the way back from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from snapshots.picture import read_text
from support.app import make_app, press, running, see, until
from support.memory_kc import make_service
from support.world import NOW, Lab, standing_at, uid_of

from kc_tui.application import KCApp
from kc_tui.dialogs.confirm import ConfirmDialog
from kc_tui.dialogs.delete import DeleteDialog
from kc_tui.screens.history import HistoryScreen
from kc_tui.screens.trash import TrashScreen


@pytest.fixture(autouse=True)
def clock() -> Iterator[None]:
    """The backend's clock is that of the lab: grace times are the same in every run."""
    with standing_at(NOW):
        yield


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path)
    lab.add_vm("web", metadata={"tenant": "acme"})
    lab.add_vm("db", "stopped", metadata={"tenant": "beta"})
    lab.add("Network", "spare", {"uplink": "isolated"})
    return lab


def entries(app: KCApp) -> list[str]:
    return sorted(str(item["spec"]["target"]["name"]) for item in app.session.inventory.documents("Trash"))


def says(app: KCApp, words: str) -> bool:
    """Return whether the screen says words, however its lines break."""
    return words in " ".join(read_text(app).replace("│", " ").split())


def names(lab: Lab, kind: str = "VM") -> list[str]:
    return [item["name"] for item in lab.service.store.list_documents(kind).items]


def has_disk(lab: Lab, name: str) -> bool:
    return f"kc-{uid_of(name)}-root" in lab.host.volumes


# --- deleting


async def test_deleting_says_where_it_goes_and_until_when(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "j", "d")
        assert isinstance(app.screen, DeleteDialog)
        assert says(app, "The power is cut. It goes to the trash with its disks. Until 03 Jan ")
        await press(pilot, "enter")
        assert names(lab) == ["db", "web"]
        await press(pilot, "d", "y")
        await until(pilot, lambda: entries(app) == ["web"], "it is in the trash")
        assert has_disk(lab, "web")
        await press(pilot, "0")
        await see(pilot, r"web +VM +now +\S+ +03 Jan \d\d:\d\d +in 1 d")


async def test_deleting_for_good_wants_the_name_typed(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "j", "d", "tab")
        assert says(app, "This cannot be taken back.")
        await press(pilot, "=we", "enter")
        assert isinstance(app.screen, DeleteDialog)
        await press(pilot, "tab")
        await see(pilot, "It goes to the trash")
        await press(pilot, "tab", "=b", "enter")
        await until(pilot, lambda: names(lab) == ["db"], "it is gone")
        await until(pilot, lambda: not has_disk(lab, "web"), "its disk, too")
        assert entries(app) == []


async def test_several_are_deleted_by_one_answer_and_for_good_by_their_number(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "space", "space", "d")
        await see(pilot, "Delete 2 VMs")
        assert says(app, "The power of web is cut. They go to the trash with their disks.")
        await press(pilot, "tab", "=2", "tab", "y")
        await until(pilot, lambda: entries(app) == ["db", "web"], "both are in the trash")


async def test_without_a_grace_time_there_is_only_for_good(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        app.session.grace_hours = 0
        await press(pilot, "d", "tab")
        assert says(app, "This cannot be taken back.")
        assert "to the trash" not in read_text(app)


@pytest.mark.parametrize(
    ("section", "name", "kind"),
    [("2", "starter", "Image"), ("3", "default", "Network"), ("4", "small", "MachineType")],
)
async def test_what_is_in_use_is_refused_and_the_refusal_stays(lab: Lab, section: str, name: str, kind: str):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, section, "slash", f"=name={name}", "enter", "d", "y")
        await see(pilot, "In use by VM")
        assert name in names(lab, kind)
        await press(pilot, "6")
        await see(pilot, rf"error +\S.*{name[:2]}.* +failed +– +in use by VM")


@pytest.mark.parametrize(
    ("section", "name", "kind"),
    [("3", "spare", "Network"), ("4", "large", "MachineType")],
)
async def test_what_nobody_uses_goes_to_the_trash_and_comes_back(lab: Lab, section: str, name: str, kind: str):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, section, "slash", f"={name}", "enter", "enter", "d", "y")
        await until(pilot, lambda: entries(app) == [name], "it is in the trash")
        await press(pilot, "0", "u")
        await until(pilot, lambda: entries(app) == [] and name in names(lab, kind), "it is back")


# --- the trash


def throw_away(lab: Lab) -> None:
    for name, ago in (("web", 600), ("db", 7_200)):
        document = lab.service.store.get("VM", uid_of(name))
        assert document is not None
        lab.throw_away(document, ago, "ada")


async def test_the_trash_lists_filters_and_follows_what_others_delete(lab: Lab):
    throw_away(lab)
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "0")
        assert isinstance(app.screen, TrashScreen)
        await see(pilot, r"web +VM +10 m +ada +03 Jan")
        await press(pilot, "slash", "=tenant=beta", "enter")
        await see(pilot, "1 of 2")
        await press(pilot, "escape", "enter")
        await see(pilot, "deleted VM")
        await press(pilot, "escape")
        other = make_service(lab.home, lab.host)
        other.delete("Network", "spare")
        await see(pilot, r"spare +network +now")
        other.close()


async def test_an_empty_trash_says_so_and_its_keys_do_no_harm(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "0")
        await see(pilot, "The trash is empty")
        await press(pilot, "u", "d", "E", "h", "enter")
        assert app.is_running
        await see(pilot, "there is nothing")


@pytest.mark.parametrize("keys", [("u",), ("enter", "u")])
async def test_a_deleted_vm_comes_back_with_its_disks(lab: Lab, keys: tuple[str, ...]):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "j", "d", "y")
        await until(pilot, lambda: entries(app) == ["web"], "it is in the trash")
        await press(pilot, "0", *keys)
        await until(pilot, lambda: "web" in names(lab) and entries(app) == [], "it is back")
        await press(pilot, "escape", "1")
        await see(pilot, r"● web +running")


async def test_a_vm_whose_disks_are_gone_asks_for_new_ones(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "j", "d", "y")
        await until(pilot, lambda: entries(app) == ["web"], "it is in the trash")
        del lab.host.volumes[f"kc-{uid_of('web')}-root"]
        await press(pilot, "0", "u")
        await see(pilot, r"Restore web with new disks\?")
        await press(pilot, "n")
        assert entries(app) == ["web"]
        await press(pilot, "u", "y")
        await until(pilot, lambda: "web" in names(lab) and has_disk(lab, "web"), "it is back with a new disk")


async def test_a_name_that_is_taken_by_now_is_told(lab: Lab):
    throw_away(lab)
    lab.add_vm("other")
    live = lab.service.store.get("VM", uid_of("other"))
    assert live is not None
    lab.change(live, 5, name="web")
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "0", "u")
        await see(pilot, "Another one has the name by now")


async def test_emptying_one_wants_its_name_and_all_their_number(lab: Lab):
    throw_away(lab)
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "0", "d")
        assert isinstance(app.screen, ConfirmDialog)
        await see(pilot, r"Delete web for good\?")
        await press(pilot, "=web", "enter")
        await until(pilot, lambda: entries(app) == ["db"] and not has_disk(lab, "web"), "one is gone for good")
        assert has_disk(lab, "db")
        await press(pilot, "E")
        await see(pilot, r"Empty the trash\?")
        await press(pilot, "=db", "enter")
        await until(pilot, lambda: entries(app) == [] and not has_disk(lab, "db"), "all are gone for good")
        await see(pilot, "The trash is empty")


async def test_a_deleted_object_has_its_history_and_no_way_back_but_the_trash(lab: Lab):
    throw_away(lab)
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "0", "h")
        assert isinstance(app.screen, HistoryScreen)
        await see(pilot, r"web +VM +2 versions +deleted")
        await see(pilot, r"✕ +2 +10 m +ada +deleted")
        await press(pilot, "j", "R")
        await see(pilot, "restore it from the trash first")
        await press(pilot, "u")
        assert isinstance(app.screen, HistoryScreen)
