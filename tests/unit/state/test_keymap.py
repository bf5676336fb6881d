"""Keys: defaults, the user's own, and what they mean where."""

from __future__ import annotations

import pytest

from kc_tui.commands import REGISTRY, Command, Context, Registry, Scope, Subject, build_keymap
from kc_tui.commands.keymap import find_conflicts, format_key, make_bindings, normalise_key

LIST = frozenset({Scope.LIST, Scope.VM})


def on(*subjects):
    return Context(LIST, tuple(subjects), row_count=5)


@pytest.mark.parametrize(
    ("spelled", "key", "label"),
    [
        ("s", "s", "s"),
        ("O", "O", "O"),
        ("/", "slash", "/"),
        ("?", "question_mark", "?"),
        (":", "colon", ":"),
        ("*", "asterisk", "*"),
        ("-", "minus", "-"),
        ("ctrl+p", "ctrl+p", "^p"),
        ("ctrl-p", "ctrl+p", "^p"),
        ("^P", "ctrl+p", "^p"),
        ("ctrl+]", "ctrl+right_square_bracket", "^]"),
        ("shift+tab", "shift+tab", "shift-tab"),
        ("Esc".lower(), "escape", "esc"),
        (" ", "space", "space"),
        ("pgdn", "pagedown", "pgdn"),
        ("f5", "f5", "f5"),
    ],
)
def test_keys_are_read_as_people_write_them_and_shown_alike(spelled, key, label):
    assert normalise_key(spelled) == key
    assert format_key(key) == label


@pytest.mark.parametrize("spelled", ["", "hyper+x", "Ctrl+p", "a b", "\x1b", "ctrl+"])
def test_what_is_no_key_is_refused(spelled):
    with pytest.raises(ValueError, match=r".*"):
        normalise_key(spelled)


def test_the_defaults_have_no_conflict():
    assert find_conflicts(build_keymap()) == []
    assert build_keymap().problems == ()


def test_the_keys_of_the_design_mean_what_it_says():
    keymap = build_keymap()
    wanted = {
        "1": {"section.vms"}, "2": {"section.images"}, "3": {"section.networks"}, "4": {"section.types"},
        "6": {"section.activity"}, "0": {"section.trash"}, "enter": {"list.open"}, "escape": {"app.back"},
        "j": {"move.down"},
        "k": {"move.up"}, "g": {"move.top"}, "G": {"move.bottom"}, "ctrl+d": {"move.half-down"},
        "ctrl+u": {"move.half-up"}, "down": {"move.down"}, "up": {"move.up"}, "slash": {"list.filter"},
        "colon": {"app.palette"}, "ctrl+p": {"app.palette"}, "question_mark": {"app.help"}, "space": {"list.mark"},
        "V": {"list.mark-range"}, "asterisk": {"list.invert-marks"}, "o": {"list.sort"}, "O": {"list.reverse"},
        "y": {"list.copy"}, "n": {"vm.create", "network.create"}, "h": {"object.history", "trash.history"},
        "d": {"vm.delete", "image.delete", "network.delete", "type.delete", "trash.delete"},
            "e": {"object.edit", "network.change"},
        "u": {"object.undo", "trash.restore"}, "m": {"vm.metadata"}, "C": {"vm.columns"}, "R": {"history.rollback"},
        "x": {"op.cancel"}, "c": {"vm.console"},
        "s": {"vm.start", "vm.stop"}, "r": {"vm.reboot"}, "q": {"app.quit"},
    }  # fmt: skip
    assert {key: {command.id for command in keymap.find(key)} for key in wanted} == wanted


def test_every_key_of_a_widget_is_bound_by_the_widget_and_no_other():
    keymap = build_keymap()
    bound = {binding.id for binding in make_bindings(Scope.LIST)}
    assert bound == {command.id for command in REGISTRY if command.action}
    assert "j" not in keymap.app_keys
    assert {"s", "slash", "q"} <= set(keymap.app_keys)


@pytest.mark.parametrize(("state", "command"), [("running", "vm.stop"), ("paused", "vm.stop"), ("stopped", "vm.start")])
def test_twins_share_a_key_and_the_one_that_can_run_does(state, command):
    keymap = build_keymap()
    chosen, reason = keymap.choose("s", on(Subject("vm", "web", state)))
    assert (chosen.id, reason) == (command, None)
    entry = next(entry for entry in keymap.bar(on(Subject("vm", "web", state))) if entry.key == "s")
    assert (entry.command_id, entry.enabled) == (command, True)


def test_a_key_that_cannot_do_anything_has_a_reason():
    keymap = build_keymap()
    assert keymap.choose("s", on(Subject("vm", "db", "starting", busy="starting")))[1] == "db is busy: starting"
    assert keymap.choose("s", Context(LIST))[1] == "there is no VM selected"
    assert keymap.choose("d", Context(frozenset({Scope.LIST, Scope.IMAGE})))[1] == "there is nothing selected"
    assert keymap.choose("d", Context(frozenset({Scope.LIST, Scope.OPERATION})))[1] == "delete works on VMs"
    assert keymap.choose("x", Context(LIST))[1] == "cancel works in the activity list"
    assert keymap.choose("z", Context(LIST)) == (None, None)


def test_the_key_bar_dims_what_cannot_run_and_hides_what_is_elsewhere():
    keymap = build_keymap()
    words = {entry.word: entry.enabled for entry in keymap.bar(on(Subject("vm", "web", "stopped")))}
    assert words["start"]
    assert not words["console"]
    assert "stop" not in words
    assert "delete" not in {entry.word for entry in keymap.bar(Context(frozenset({Scope.LIST, Scope.OPERATION})))}


def test_the_users_key_is_taken_from_who_had_it():
    keymap = build_keymap({"vm.delete": ["x"], "vm.reboot": ["d", "R"]})
    assert keymap.keys["vm.delete"] == ("x",)
    assert keymap.keys["vm.reboot"] == ("d", "R")
    assert keymap.problems == ()
    assert find_conflicts(keymap) == []


def test_a_default_yields_to_the_user():
    keymap = build_keymap({"vm.reboot": ["d"]})
    assert keymap.keys["vm.delete"] == ()
    assert find_conflicts(keymap) == []


def test_a_key_can_be_taken_away():
    assert build_keymap({"app.quit": []}).keys["app.quit"] == ()


def test_what_cannot_be_taken_is_told_and_left_out():
    keymap = build_keymap(
        {"vm.fly": ["f"], "vm.stop": ["hyper+s"], "list.copy": ["z"], "vm.console": ["z"], "move.down": []}
    )
    assert keymap.keys["vm.stop"] == ("s",)
    assert keymap.keys["list.copy"] == ("z",)
    assert keymap.keys["vm.console"] == ("c",)
    assert keymap.keys["move.down"] == ("j", "down")
    assert [problem.partition(":")[2].strip() for problem in keymap.problems] == [
        "there is no command vm.fly",
        "vm.stop: 'hyper+s' is no key",
        "vm.stop keeps s: it needs a key",
        "z is given to list.copy and vm.console: list.copy has it",
        "move.down keeps j, down: it needs a key",
    ]


def test_a_widgets_moved_keys_go_to_textual():
    keymap = build_keymap({"move.down": ["n"], "vm.start": ["S"]})
    assert keymap.widget_keys == {"move.down": "n"}
    assert keymap.keys["vm.create"] == ()
    assert keymap.keys["vm.stop"] == ("s",)


def test_the_same_key_may_mean_other_things_elsewhere():
    registry = Registry(
        (
            Command("vm.x", "x", ("x",), Scope.VM, ""),
            Command("image.x", "x", ("x",), Scope.IMAGE, ""),
            Command("console.x", "x", ("x",), Scope.CONSOLE, ""),
        )
    )
    assert find_conflicts(build_keymap(registry=registry)) == []
    clash = Registry((*registry, Command("app.x", "x", ("x",), Scope.APP, "")))
    assert len(find_conflicts(build_keymap(registry=clash))) == 3
