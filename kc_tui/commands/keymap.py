"""Which keys run which commands: the registry's defaults under the user's `[keys]` table."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from textual.binding import Binding
from textual.keys import KEY_NAME_REPLACEMENTS

from backend.text import sanitise
from kc_tui.commands.command import Command, Context, Scope
from kc_tui.commands.registry import REGISTRY, Registry

_MODIFIER: Final = re.compile(r"(ctrl|alt|shift|super|meta)[+-](?=.)")
_NAME: Final = re.compile(r"[A-Za-z0-9]|[a-z][a-z0-9_]+")
_ALIASES: Final = {"esc": "escape", "return": "enter", "pgup": "pageup", "pgdn": "pagedown", "del": "delete"}
_LABELS: Final = {"escape": "esc", "pagedown": "pgdn", "pageup": "pgup", "delete": "del"}


def _name_sign(sign: str) -> str:
    name = unicodedata.name(sign, "").lower().replace("-", "_").replace(" ", "_")
    return KEY_NAME_REPLACEMENTS.get(name, name)


_SIGNS: Final = {_name_sign(sign): sign for sign in string.punctuation}


def normalise_key(text: str) -> str:
    """Return Textual's name of a key written as `s`, `/`, `ctrl+p`, `ctrl-p`, `^p` or `escape`; raise ValueError."""
    left = "space" if text == " " else text.strip()
    if len(left) == 2 and left[0] == "^":  # noqa: PLR2004 - a caret and a letter
        left = f"ctrl+{left[1].lower()}"
    modifiers: list[str] = []
    while match := _MODIFIER.match(left):
        modifiers.append(match[1])
        left = left[match.end() :]
    key = _name_sign(left) if len(left) == 1 and not left.isalnum() else _ALIASES.get(left, left)
    if not _NAME.fullmatch(key):
        raise ValueError(text)
    return "+".join((*modifiers, key))


def format_key(key: str) -> str:
    """Return a key as the key bar shows it: `s`, `/`, `^p`, `esc`, `enter`, `shift-tab`."""
    *modifiers, name = key.split("+")
    sign = _LABELS.get(name) or _SIGNS.get(name) or name
    if modifiers == ["ctrl"]:
        return f"^{sign}"
    return "-".join((*modifiers, sign))


class BarEntry(NamedTuple):
    """One command in the key bar; `rank` 1 stays longest where room is short."""

    command_id: str
    key: str
    word: str
    rank: int
    enabled: bool = True


@dataclass(frozen=True)
class Keymap:
    """The keys of every command, by command id, and a line for everything in the user's table that was not taken."""

    registry: Registry
    keys: Mapping[str, tuple[str, ...]]
    problems: tuple[str, ...] = ()

    def find(self, key: str, scopes: Iterable[Scope] | None = None) -> tuple[Command, ...]:
        """Return the commands on a key, those alive in `scopes` (all by default), in the registry's order."""
        alive = None if scopes is None else {*scopes, Scope.APP}
        return tuple(
            command
            for command in self.registry
            if key in self.keys[command.id] and (alive is None or command.scope in alive)
        )

    def label(self, command_id: str) -> str:
        """Return the first key of a command as it is shown; empty where it has none."""
        return next(iter(self.labels(command_id)), "")

    def labels(self, command_id: str) -> tuple[str, ...]:
        """Return all keys of a command as they are shown."""
        return tuple(format_key(key) for key in self.keys[command_id])

    @property
    def app_keys(self) -> tuple[str, ...]:
        """All keys of commands that a screen or the app runs; the others are bound by their widgets."""
        found = (key for command in self.registry if not command.action for key in self.keys[command.id])
        return tuple(dict.fromkeys(found))

    @property
    def widget_keys(self) -> dict[str, str]:
        """The keys that the user moved of commands bound by widgets, for `App.set_keymap`."""
        return {
            command.id: ",".join(self.keys[command.id])
            for command in self.registry
            if command.action and self.keys[command.id] != _default_keys(command)
        }

    def choose(self, key: str, context: Context) -> tuple[Command | None, str | None]:
        """Return the command that a key means here and, where it cannot run now, the reason."""
        alive = self.find(key, context.scopes)
        candidates = alive or self.find(key)
        refusals = [(command, command.refusal(context)) for command in candidates]
        able = (pair for pair in refusals if pair[1] is None)
        return next(able, refusals[0] if refusals else (None, None))

    def bar(self, context: Context) -> tuple[BarEntry, ...]:
        """Return what the key bar shows here; of twins on one key the one that can run."""
        entries: list[BarEntry] = []
        seen: set[str] = set()
        for command in self.registry:
            keys = self.keys[command.id]
            if not command.bar or not keys or command.scope not in {*context.scopes, Scope.APP} or keys[0] in seen:
                continue
            chosen, reason = self.choose(keys[0], context)
            shown = chosen if chosen is not None and chosen.bar else command
            seen.add(keys[0])
            entries.append(BarEntry(shown.id, format_key(keys[0]), shown.label, shown.bar, reason is None))
        return tuple(entries)


def _default_keys(command: Command) -> tuple[str, ...]:
    return tuple(normalise_key(key) for key in command.keys)


def build_keymap(overrides: Mapping[str, Sequence[str]] | None = None, registry: Registry = REGISTRY) -> Keymap:
    """Return the keymap of a registry under the user's table (command id to keys; an empty list takes a key away).

    A key that the user gives to a command is taken from those that had it by default. What cannot be taken (unknown
    commands, unknown keys, one key given twice where both commands are alive) is left out and told in `problems`.
    """
    keys = {command.id: _default_keys(command) for command in registry}
    problems: list[str] = []
    taken: dict[str, tuple[str, ...]] = {}
    for command_id, spelled in (overrides or {}).items():
        if command_id not in registry:
            problems.append(f"keys: there is no command {sanitise(command_id, 60)}")
            continue
        wanted, wrong = _read_keys(spelled)
        problems.extend(f"keys: {command_id}: {sanitise(text, 40)!r} is no key" for text in wrong)
        if not wanted and (wrong or registry[command_id].action):
            problems.append(f"keys: {command_id} keeps {', '.join(map(format_key, keys[command_id]))}: it needs a key")
            continue
        free, clashes = _split_clashes(registry[command_id], wanted, taken, registry)
        problems.extend(clashes)
        if free or not wanted:
            taken[command_id] = free
    keys.update(taken)
    for command_id in taken:
        _yield_keys(registry[command_id], keys, taken, registry)
    return Keymap(registry, keys, tuple(problems))


def _read_keys(spelled: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    wanted: list[str] = []
    wrong: list[str] = []
    for text in spelled:
        try:
            wanted.append(normalise_key(text))
        except ValueError:
            wrong.append(text)
    return tuple(dict.fromkeys(wanted)), wrong


def _may_share(command: Command, other: Command) -> bool:
    return bool(command.twin) and command.twin == other.twin


def _split_clashes(
    command: Command, wanted: Sequence[str], taken: Mapping[str, tuple[str, ...]], registry: Registry
) -> tuple[tuple[str, ...], list[str]]:
    free: list[str] = []
    clashes: list[str] = []
    for key in wanted:
        holder = next(
            (
                other_id
                for other_id, keys in taken.items()
                if key in keys
                and command.scope.overlaps(registry[other_id].scope)
                and not _may_share(command, registry[other_id])
            ),
            None,
        )
        if holder is None:
            free.append(key)
        else:
            clashes.append(f"keys: {format_key(key)} is given to {holder} and {command.id}: {holder} has it")
    return tuple(free), clashes


def _yield_keys(
    command: Command, keys: dict[str, tuple[str, ...]], taken: Mapping[str, tuple[str, ...]], registry: Registry
) -> None:
    for other in registry:
        if other.id in taken or _may_share(command, other) or not command.scope.overlaps(other.scope):
            continue
        left = tuple(key for key in keys[other.id] if key not in taken[command.id])
        # A widget's command cannot be left without a key; it keeps its own beside the other's.
        if left or not other.action:
            keys[other.id] = left


def find_conflicts(keymap: Keymap) -> list[str]:
    """Return a line for each key that means two commands at once in the same place."""
    commands = list(keymap.registry)
    return [
        f"{format_key(key)}: {command.id} and {other.id}"
        for at, command in enumerate(commands)
        for other in commands[at + 1 :]
        if command.scope.overlaps(other.scope) and not _may_share(command, other)
        for key in keymap.keys[command.id]
        if key in keymap.keys[other.id]
    ]


def make_bindings(scope: Scope, *actions: str, registry: Registry = REGISTRY) -> list[Binding]:
    """Return Textual's bindings for the commands of a scope that a widget runs itself, by its `actions`."""
    return [
        Binding(",".join(_default_keys(command)), command.action, command.title, show=False, id=command.id)
        for command in registry
        if command.scope is scope and command.action and (not actions or command.action in actions)
    ]
