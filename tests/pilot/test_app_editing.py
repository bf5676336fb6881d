"""Documents in the user's own editor: a real program on a real file; only the lending of the terminal is left out."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from snapshots.picture import read_text
from support.app import make_app, press, running, see, until
from support.world import Lab, uid_of

from backend.model.documents import Document
from kc_tui.application import KCApp
from kc_tui.dialogs.change import ChangeDialog
from kc_tui.dialogs.confirm import ConfirmDialog


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path)
    lab.add_vm("web", metadata={"tenant": "acme"})
    return lab


@pytest.fixture(autouse=True)
def lend(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that can be lent: the one of these tests is not a terminal at all."""

    @contextmanager
    def suspend(_app: KCApp) -> Iterator[None]:
        yield

    monkeypatch.setattr(KCApp, "suspend", suspend)


def write_editor(lab: Lab, monkeypatch: pytest.MonkeyPatch, *scripts: str) -> None:
    """Let the editor do one sed script after another, one each time that it is opened; then nothing."""
    editor = lab.home / "editor"
    for number, script in enumerate(scripts, 1):
        (lab.home / f"script-{number}").write_text(script)
    editor.write_text(
        f"""#!/bin/sh
cp "$1" {lab.home}/last
count=$(cat {lab.home}/count 2>/dev/null || echo 0)
count=$((count + 1))
echo $count > {lab.home}/count
[ -f {lab.home}/script-$count ] || exit 0
[ "$(cat {lab.home}/script-$count)" = fail ] && {{ echo "# typed" >> "$1"; exit 3; }}
sed -i -f {lab.home}/script-$count "$1"
"""
    )
    editor.chmod(0o755)
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"{editor}")


def stored(lab: Lab) -> Document:
    found = lab.service.store.get("VM", uid_of("web"))
    assert found is not None
    return found


def kept(lab: Lab) -> Path:
    return lab.home / "data" / "edits" / f"vm-{uid_of('web')}.yaml"


async def test_an_edited_document_is_shown_and_then_written(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    write_editor(lab, monkeypatch, "s/tenant: acme/tenant: beta/\ns/^message: .*/message: moved/")
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "e")
        await see(pilot, r"Change web\?")
        await see(pilot, r"~ metadata\.tenant +acme → beta")
        assert stat.S_IMODE(kept(lab).stat().st_mode) == 0o600
        assert stat.S_IMODE(kept(lab).parent.stat().st_mode) == 0o700
        assert stored(lab)["version"] == 1
        await press(pilot, "enter")
        await until(pilot, lambda: stored(lab)["metadata"] == {"tenant": "beta"}, "it is written")
        assert stored(lab)["message"] == "moved"
        await until(pilot, lambda: not kept(lab).exists(), "no text is left")


async def test_a_wrong_text_comes_back_and_nothing_is_lost(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    write_editor(
        lab, monkeypatch, "s/tenant: acme/tenant: [beta/", "s/\\[beta/beta/\n/^spec:/a\\  nonsense: 1", "/nonsense/d"
    )
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "e")
        assert isinstance(app.screen, ConfirmDialog)
        await see(pilot, r"[Ll]ine \d+, column \d+")
        await press(pilot, "enter")
        await see(pilot, r"nonsense: unknown field")
        await press(pilot, "enter")
        await see(pilot, r"~ metadata\.tenant +acme → beta")
        await press(pilot, "enter")
        await until(pilot, lambda: stored(lab)["metadata"] == {"tenant": "beta"}, "it is written in the end")


async def test_a_text_that_is_left_is_kept_for_the_next_time(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    write_editor(lab, monkeypatch, "s/tenant: acme/tenant: gamma/")
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "e")
        await see(pilot, "acme → gamma")
        await press(pilot, "escape")
        assert stored(lab)["version"] == 1
        assert "gamma" in kept(lab).read_text()
        await press(pilot, "e")
        await see(pilot, "acme → gamma")
        assert "gamma" in (lab.home / "last").read_text()
        await press(pilot, "enter")
        await until(pilot, lambda: stored(lab)["metadata"] == {"tenant": "gamma"}, "it is written")


async def test_edit_again_opens_the_same_text(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    write_editor(lab, monkeypatch, "s/tenant: acme/tenant: gamma/", "s/gamma/delta/")
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "e")
        await see(pilot, "acme → gamma")
        await press(pilot, "e")
        await see(pilot, "acme → delta")


async def test_what_was_not_changed_is_not_written(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    write_editor(lab, monkeypatch)
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "e")
        await see(pilot, "nothing was changed")
        assert not kept(lab).exists()
        assert len(app.screen_stack) == 1


async def test_an_editor_that_fails_changes_nothing_and_keeps_what_was_typed(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    write_editor(lab, monkeypatch, "fail")
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "e")
        await see(pilot, "the editor ended with status 3: nothing was changed")
        assert "# typed" in kept(lab).read_text()
        monkeypatch.setenv("EDITOR", "/nowhere/editor")
        await press(pilot, "e")
        await see(pilot, "It cannot be started")
        assert "# typed" in kept(lab).read_text()


async def test_who_was_overtaken_while_typing_sees_it(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    write_editor(lab, monkeypatch, "s/tenant: acme/tenant: beta/")
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "e")
        await see(pilot, "acme → beta")
        lab.change(stored(lab), 5, "grace", metadata__tier=3)
        await press(pilot, "enter")
        await see(pilot, "grace has changed it meanwhile: it is at version 2")
        await see(pilot, r"- metadata\.tier +3")
        assert isinstance(app.screen, ChangeDialog)
        await press(pilot, "enter")
        await until(pilot, lambda: stored(lab)["metadata"] == {"tenant": "beta"}, "the second yes is taken")


async def test_every_kind_can_be_edited(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    write_editor(lab, monkeypatch, "s/description: .*/description: a spare one/")
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "4", "slash", "=name=large", "enter", "e")
        await see(pilot, "spec.description")
        await press(pilot, "enter")
        await see(pilot, "a spare one|large")
        found = lab.service.store.find("MachineType", "large")
        assert found is not None
        await until(
            pilot,
            lambda: lab.service.store.find("MachineType", "large")["spec"]["description"] == "a spare one",
            "it is written",
        )


async def test_a_terminal_that_cannot_be_lent_says_so(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    monkeypatch.setenv("EDITOR", "true")
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "e")
        await see(pilot, "this terminal cannot be lent to an editor")
        assert not kept(lab).exists()
        assert "web" in read_text(app)
