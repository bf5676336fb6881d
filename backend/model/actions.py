"""The actions that scopes speak of: KIND.VERB, where KIND is the word of the command line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

_KEPT: Final = ("read", "create", "update", "delete", "restore")

ACTIONS: Final[dict[str, tuple[str, ...]]] = {
    "vm": (
        *_KEPT, "start", "stop", "reboot", "pause", "resume", "reconcile", "snapshot", "restore-snapshot",
        "delete-snapshot", "clone", "rename", "adopt", "console", "display",
    ),
    "image": (*_KEPT, "upload"),
    "network": (*_KEPT, "reconcile"),
    "type": _KEPT,
    "op": ("read", "cancel"),
    "trash": ("read", "delete"),
    "token": ("read", "create", "update", "delete"),
    "host": ("read", "init"),
    "store": ("export", "import", "check", "compact", "copy"),
    "audit": ("read",),
    "auth": ("check",),
}  # fmt: skip
"""`vm.display` is the screen and pictures of it; `host.read` diagnosis; rollback and undo are `update`."""

ANY: Final = "*"
_OF_OPERATIONS: Final = {
    "vm.restart": "vm.reboot", "vm.disown": "vm.delete", "image.create": "image.upload", "image.store": "image.upload",
    "trash.purge": "trash.delete",
}  # fmt: skip
PATTERNS: Final = frozenset({ANY, *(f"{kind}.{verb}" for kind, verbs in ACTIONS.items() for verb in (ANY, *verbs))})
"""All that a scope may name: KIND.VERB, KIND.* for all of a kind, * for everything."""


def list_actions() -> list[str]:
    """Return every action."""
    return [f"{kind}.{verb}" for kind, verbs in ACTIONS.items() for verb in verbs]


def list_reading() -> list[str]:
    """Return the actions that change nothing and hand nothing out beside documents."""
    return [f"{kind}.read" for kind, verbs in ACTIONS.items() if "read" in verbs]


def find_fault(pattern: str) -> str:
    """Return why a text is no pattern of actions (`vm.start`, `vm.*`, `*`), and what is near; empty where it is one.

    The text may come from outside: it is to be sanitised where it is shown.
    """
    if pattern in PATTERNS:
        return ""
    from difflib import get_close_matches  # noqa: PLC0415 - only for a mistake

    shown, kind = pattern[:80], pattern.partition(".")[0]
    close = get_close_matches(shown, sorted(PATTERNS), n=1)
    if close:
        return f"no action {shown!r}; the nearest is {close[0]}"
    if kind in ACTIONS:
        return f"no action {shown!r}; those of {kind} are {', '.join(ACTIONS[kind])}"
    return f"no action {shown!r}; it is KIND.VERB or KIND.*, and the kinds are {', '.join(ACTIONS)}"


def check_selector(text: str) -> None:
    """Raise RefusedError for what is no selector of a scope: a right does not come and go with what a host says."""
    from backend.errors import RefusedError  # noqa: PLC0415 - lists of actions need neither
    from backend.model.selector_terms import parse_terms  # noqa: PLC0415

    if any(term.speaks_of("status") for term in parse_terms(text)):
        raise RefusedError("selector", "it asks for a status, which is observed", "use metadata, spec or name")


def covers(patterns: Iterable[str], pattern: str) -> bool:
    """Return whether all that a pattern of actions means is among what others mean.

    Whoever may do anything to objects of a kind may read them.
    """
    among = frozenset(patterns)
    kind, _, verb = pattern.partition(".")
    if ANY in among or pattern in among or f"{kind}.{ANY}" in among:
        return True
    return verb == "read" and any(other.startswith(f"{kind}.") for other in among)


def intersect(left: Iterable[str], right: Iterable[str]) -> tuple[str, ...]:
    """Return the patterns that mean exactly what two lists of patterns both mean; unknown ones mean nothing.

    Of two patterns that meet, the narrower is in one of the lists, or it is the reading that both include.
    """
    first, second = frozenset(left) & PATTERNS, frozenset(right) & PATTERNS
    both = {pattern for pattern in first | second if covers(first, pattern) and covers(second, pattern)}
    kinds = {pattern.partition(".")[0] for pattern in first} & {pattern.partition(".")[0] for pattern in second}
    reading = {f"{kind}.read" for kind in kinds} & PATTERNS
    return tuple(sorted(both | {pattern for pattern in reading if not covers(both, pattern)}))


def name_action(operation_type: str) -> str:
    """Return the action that an operation of that type is begun by."""
    return _OF_OPERATIONS.get(operation_type, operation_type)
