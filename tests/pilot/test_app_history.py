"""Histories on a real service: versions, differences, the way back, and what happens when somebody else is faster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from snapshots.picture import read_text
from support.app import make_app, press, running, see, settle, until
from support.memory_kc import make_service
from support.memory_kc import settle as settle_operation
from support.world import Lab, uid_of

from backend.model.documents import Document
from backend.service import Version
from kc_tui.application import KCApp
from kc_tui.dialogs.change import ChangeDialog
from kc_tui.screens.difference import DifferenceScreen
from kc_tui.screens.history import HistoryScreen, HistoryView
from kc_tui.screens.vm import VMScreen
from kc_tui.state.versions import Timeline


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path)
    web = lab.add_vm("web", address="10.0.0.17", metadata={"tenant": "acme"})
    web = lab.change(web, 5_000, "ada", metadata__tier=2)
    web = lab.change(web, 3_000, "grace", "more room", spec__parameters={"memoryMiB": 4096})
    lab.change(web, 60, "ada", spec__description="the shop", metadata__tier=None)
    lab.add_vm("fresh")
    return lab


def history(app: KCApp) -> HistoryView:
    return app.screen.query_one(HistoryView)


def stored(lab: Lab, name: str = "web") -> Document:
    found = lab.service.store.get("VM", uid_of(name))
    assert found is not None
    return found


def difference(app: KCApp) -> str:
    view = history(app).pane
    return "\n".join("".join(run.text for run in line) for line in view.lines)


def theirs(lab: Lab, **metadata: Any) -> None:
    """Change the VM as another process would."""
    other = make_service(lab.home, lab.host)
    live = other.get("VM", "web", observe=False)
    settle_operation(other, other.update({"kind": "VM", "name": "web", "metadata": {**live["metadata"], **metadata}}))
    other.close()


# --- the list of versions


async def test_a_history_tells_when_who_and_what_the_newest_first(lab: Lab):
    app = make_app(lab)
    async with running(app, (100, 30)) as pilot:
        await press(pilot, "j", "h")
        assert isinstance(app.screen, HistoryScreen)
        await see(pilot, r"web +VM +4 versions")
        await see(pilot, r"● +4 +1 m +ada +-metadata\.tier")
        await see(pilot, r"· +3 +50 m +grace +more room")
        await see(pilot, r"· +1 +2 d +root +made")


@pytest.mark.parametrize("size", [(80, 24), (100, 30), (140, 40)])
async def test_moving_shows_what_each_version_changed(lab: Lab, size: tuple[int, int]):
    app = make_app(lab)
    async with running(app, size) as pilot:
        await press(pilot, "j", "h")
        assert "- metadata.tier     2" in difference(app)
        assert '~ spec.description  "" → the shop' in read_text(app)
        await press(pilot, "j")
        assert "Version 2 → 3   + 1 added" in read_text(app)
        assert "spec.parameters.memoryMiB" in read_text(app)
        table, pane = history(app).table.region, history(app).pane.region
        assert (pane.y > table.y) == (size[0] < 100)


async def test_two_marked_versions_are_compared_and_a_third_takes_the_oldest_marks_place(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "j", "h", "space", "j", "space")
        assert "Version 2 → 4" in difference(app)
        assert "metadata.tier" in difference(app)
        assert "parameters.memoryMiB" in difference(app)
        await press(pilot, "space")
        assert history(app).table.marked == {"2", "1"}
        assert "Version 1 → 2" in difference(app)
        await press(pilot, "escape")
        assert not history(app).table.marked
        assert "Version 1   It was made." in difference(app)


async def test_enter_shows_the_whole_difference_which_scrolls_and_is_copied(lab: Lab):
    text = "\n".join(f"line {number}" for number in range(60))
    lab.change(stored(lab), 10, spec__userData=text)
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "j", "h", "enter")
        assert isinstance(app.screen, DifferenceScreen)
        await see(pilot, r"\+ +line 5")
        await press(pilot, "G")
        await see(pilot, r"\+ +line 59")
        await press(pilot, "g")
        assert "Version 4 → 5" in read_text(app)
        await press(pilot, "y")
        assert "line 59" in app.clipboard
        await press(pilot, "space")
        await see(pilot, "there is nothing to choose in it")
        await press(pilot, "escape", "escape")
        assert len(app.screen_stack) == 1


async def test_the_vms_screen_has_a_page_of_its_history(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "j", "enter", "h")
        assert isinstance(app.screen, VMScreen)
        assert app.screen.page == "history"
        await see(pilot, r"R roll back")
        await press(pilot, "j", "enter")
        assert isinstance(app.screen, DifferenceScreen)
        await press(pilot, "escape", "tab")
        assert app.screen.page == "activity"
        await press(pilot, "shift+tab")
        assert history(app).number == 3


async def test_a_history_goes_on_while_it_is_looked_at(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "j", "h", "j")
        theirs(lab, tenant="beta")
        await see(pilot, r"web +VM +5 versions")
        assert history(app).number == 3


async def test_one_version_is_a_history_too(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "h")
        await see(pilot, r"fresh +VM +1 version")
        await see(pilot, "Version 1 +It was made.")
        await press(pilot, "R")
        await see(pilot, "version 1 is how it is now")


async def test_a_history_that_is_kept_no_longer_says_so(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    app = make_app(lab)

    async def nothing(_kind: str, _name: str) -> Timeline:
        return Timeline()

    async with running(app) as pilot:
        monkeypatch.setattr(app.session.gateway, "history", nothing)
        await press(pilot, "j", "h")
        await see(pilot, "Nothing is kept of its history")
        await press(pilot, "enter", "space", "R")
        await see(pilot, "there is no version selected")


async def test_ten_thousand_versions_are_a_history_like_any_other(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    live = stored(lab)
    versions = [
        Version(number, "2026-01-02T15:00:00.000Z", "ada", "", {**live, "metadata": {"count": number}})
        for number in range(1, 10_001)
    ]
    app = make_app(lab)

    async def many(_kind: str, _name: str) -> Timeline:
        return Timeline(versions)

    async with running(app) as pilot:
        monkeypatch.setattr(app.session.gateway, "history", many)
        await press(pilot, "j", "h")
        await see(pilot, "10,000 versions")
        assert history(app).number == 10_000
        await until(pilot, lambda: len(history(app).table.rows) == 10_000, "all are shown", 30)
        await press(pilot, "G")
        assert history(app).number == 1
        await press(pilot, "k")
        assert "~ metadata.count  1 → 2" in difference(app)


@pytest.mark.parametrize(("section", "name"), [("2", "starter"), ("3", "default"), ("4", "large")])
async def test_every_object_has_a_history_in_its_list_and_on_its_page(lab: Lab, section: str, name: str):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, section, "slash", f"={name}", "enter", "h")
        await see(pilot, rf"{name} +\w+.* 1 version")
        await press(pilot, "escape", "enter", "h")
        await see(pilot, rf"{name} +\w+.* 1 version")
        await press(pilot, "escape", "u")
        await see(pilot, f"{name} has one version: there is no change to take back")


async def test_what_a_history_has_no_use_for_says_why(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "j", "h")
        for key, why in (("slash", "is not filtered"), ("o", "its own order"), ("h", "this is its history")):
            await press(pilot, key)
            assert why in read_text(app)
        await press(pilot, "V", "asterisk")
        await see(pilot, "mark each with space")


# --- the way back


async def test_rolling_back_shows_the_difference_and_the_effects_first(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "j", "h", "j", "j", "R")
        assert isinstance(app.screen, ChangeDialog)
        await see(pilot, r"Roll web back to version 2\?")
        await see(pilot, r"- spec\.parameters\.memoryMiB +4096")
        await see(pilot, r"On the host")
        await see(pilot, r"memoryMiB 4096 → 2048")
        await press(pilot, "escape")
        assert stored(lab)["version"] == 4
        await press(pilot, "R", "enter")
        await until(pilot, lambda: stored(lab)["version"] == 5, "it is written")
        assert stored(lab)["metadata"] == {"tenant": "acme", "tier": 2}
        assert stored(lab)["spec"]["parameters"] == {}
        await see(pilot, "5 versions")
        await see(pilot, "rollback to version 2")


async def test_undo_takes_the_last_change_back_and_the_activity_list_has_it(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "j", "u")
        await see(pilot, r"Take back the last change of web\?")
        await see(pilot, r"\+ metadata\.tier +2")
        await press(pilot, "enter")
        await until(pilot, lambda: stored(lab)["version"] == 5, "it is written")
        assert stored(lab)["metadata"] == {"tenant": "acme", "tier": 2}
        await press(pilot, "6")
        await see(pilot, r"changing +web")
        await press(pilot, "1")
        await until(pilot, lambda: app.session.inventory.operation_on(uid_of("web")) is None, "it is done")
        await press(pilot, "u", "enter")
        await until(pilot, lambda: stored(lab)["version"] == 6, "undone twice is done again")
        assert stored(lab)["metadata"] == {"tenant": "acme"}


async def test_undo_of_what_has_one_version_says_why_it_does_nothing(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "u")
        assert "fresh has one version: there is no change to take back" in read_text(app)
        assert len(app.screen_stack) == 1


async def test_undo_of_several_is_one_question(lab: Lab):
    lab.change(stored(lab, "fresh"), 30, metadata__tenant="beta")
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "space", "space", "u")
        await see(pilot, r"Take back the last change of 2 VMs\?")
        await see(pilot, "fresh +- 1 removed")
        await see(pilot, r"web +\+ 1 added · ~ 1 changed")
        await press(pilot, "enter")
        await until(pilot, lambda: (stored(lab)["version"], stored(lab, "fresh")["version"]) == (5, 3), "both are back")


async def test_who_was_overtaken_sees_the_new_difference_and_is_asked_again(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "j", "h", "j", "j", "R")
        await see(pilot, "Roll web back")
        theirs(lab, tenant="beta")
        await press(pilot, "enter")
        await see(pilot, "has changed it meanwhile: it is at version 5")
        assert isinstance(app.screen, ChangeDialog)
        await see(pilot, "~ metadata.tenant +beta → acme")
        assert stored(lab)["version"] == 5
        await press(pilot, "enter")
        await until(pilot, lambda: stored(lab)["version"] == 6, "the second yes is taken")
        assert stored(lab)["metadata"] == {"tenant": "acme", "tier": 2}


async def test_a_change_that_cannot_be_is_told_and_stays_in_the_activity_list(lab: Lab):
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "j", "h", "G")
        lab.change(lab.change(stored(lab), 5, spec__parameters={"diskGiB": 20}), 4, spec__description="larger")
        await see(pilot, "6 versions")
        await press(pilot, "R")
        await see(pilot, "cannot shrink")
        await press(pilot, "6")
        await see(pilot, "error +VM web")


async def test_hostile_strings_in_versions_are_text(lab: Lab):
    evil = "\x1b]52;c;cHduZWQ=\x07[@click=app.quit]x[/]\u202e\x9b31m\nsecond"
    lab.change(stored(lab), 5, evil, evil, metadata={evil: {evil: [evil]}}, spec__userData=f"#cloud-config\n# {evil}\n")
    app = make_app(lab)
    async with running(app, (140, 40)) as pilot:
        for keys in (("j", "h"), ("enter",), ("escape", "u")):
            await press(pilot, *keys)
            assert not {"\x1b", "\x9b", "\u202e", "\x07"} & set(read_text(app))
        await settle(pilot)
        assert app.is_running
