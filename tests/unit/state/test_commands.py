"""The catalogue keeps its own rules, and says why a verb cannot run."""

from __future__ import annotations

import pytest

from kc_tui.commands import REGISTRY, Command, Context, Danger, Registry, Scope, Subject, build_keymap
from kc_tui.dialogs.confirm import ask_about
from kc_tui.dialogs.palette import list_commands
from kc_tui.screens.help import list_keys

ASKED = [command for command in REGISTRY if command.scope is Scope.VM and not command.keys]
LIST = frozenset({Scope.LIST, Scope.VM})
RUNNING = Subject("vm", "web", "running")
STOPPED = Subject("vm", "old", "stopped")
FOREIGN = Subject("vm", "theirs", "running", is_foreign=True)
BUSY = Subject("vm", "db", "stopped", busy="deleting")


def reason(command_id, *subjects):
    return REGISTRY[command_id].refusal(Context(LIST, subjects, row_count=9))


@pytest.mark.parametrize("command", [*REGISTRY], ids=lambda command: command.id)
def test_every_command_is_fit_to_be_shown(command):
    assert command.help.endswith((".", "status.power=running"))
    assert len(command.help) <= 140
    assert len(command.title) <= 24
    assert len(command.label) <= 24
    assert command.title[0].islower() or command.title in {"VMs", "Images", "Networks", "Types", "Activity", "Trash"}
    assert command.keys or command.id == "app.theme" or command.id in {item.id for item in ASKED}


def test_ids_are_unique_and_regular():
    with pytest.raises(ValueError, match=r"vm\.x"):
        Registry((Command("vm.x", "x", (), Scope.VM, ""), Command("vm.x", "x", (), Scope.VM, "")))
    with pytest.raises(ValueError, match="X"):
        Registry((Command("X", "x", (), Scope.VM, ""),))


@pytest.mark.parametrize(
    ("command_id", "subjects", "expected"),
    [
        ("vm.start", (STOPPED,), None),
        ("vm.start", (RUNNING,), "web is running already"),
        ("vm.start", (STOPPED, RUNNING), None),
        ("vm.stop", (STOPPED,), "old is stopped: there is nothing to stop"),
        ("vm.stop", (STOPPED, STOPPED), "all 2 marked: is stopped: there is nothing to stop"),
        ("vm.reboot", (RUNNING,), None),
        ("vm.delete", (STOPPED,), None),
        ("vm.delete", (RUNNING, FOREIGN), "theirs is not KC's: it is shown, never touched"),
        ("vm.delete", (BUSY,), "db is busy: deleting"),
        ("vm.delete", (), "there is no VM selected"),
        ("vm.console", (RUNNING,), None),
        ("vm.console", (STOPPED,), "old is stopped: start it first"),
        ("vm.console", (RUNNING, STOPPED), "a console shows one VM: take the marks away first"),
        ("vm.create", (), None),
    ],
)
def test_a_verb_says_why_it_cannot_run(command_id, subjects, expected):
    assert reason(command_id, *subjects) == expected


def test_reasons_from_outside_the_screen_count_too():
    context = Context(LIST, (RUNNING,), refusals={"vm.stop": "this token does not allow vm.stop"})
    assert REGISTRY["vm.stop"].refusal(context) == "this token does not allow vm.stop"


def test_what_destroys_asks_for_the_name_and_several_are_always_asked_about():
    purge, start = REGISTRY["trash.delete"], REGISTRY["vm.start"]
    assert ask_about(start, [STOPPED], "") is None
    one, several = ask_about(purge, [STOPPED], "Gone."), ask_about(purge, [STOPPED, RUNNING], "Gone.")
    assert (one.title, one.expected, one.danger) == ("Delete old?", "old", Danger.TYPE_NAME)
    assert (several.title, several.expected) == ("Delete 2 VMs?", "2")
    summary = ask_about(start, [STOPPED, RUNNING], "")
    assert (summary.danger, summary.expected, summary.names) == (Danger.CONFIRM, "", ("old", "web"))


def test_the_palette_puts_the_selections_verbs_first_and_what_cannot_run_last():
    choices = list_commands(build_keymap(), Context(LIST, (RUNNING,), row_count=3))
    ids = [choice.id.removeprefix("command:") for choice in choices]
    assert ids[:5] == ["vm.create", "vm.console", "vm.stop", "vm.reboot", "vm.pause"]
    assert choices[2].detail == "web"
    assert all(choice.refusal for choice in choices[ids.index("vm.start") :])
    assert choices[ids.index("vm.start")].refusal == "web is running already"
    assert [choice.label for choice in choices].count("delete") == 1
    assert not any(command_id.startswith("move.") for command_id in ids)


def test_the_help_lists_what_has_a_key_here():
    keymap = build_keymap()
    ids = [choice.id for choice in list_keys(keymap, Context(frozenset({Scope.LIST, Scope.IMAGE})))]
    assert "move.down" in ids
    assert "vm.start" not in ids
    assert "app.theme" not in ids
