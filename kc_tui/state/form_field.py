"""One field of a form, as a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

ADVANCED: Final = "advanced"
"""The name of the field that unfolds the advanced ones: `yes` or `no`."""


def accept(_text: str) -> str:
    """Have nothing against any text."""
    return ""


@dataclass(frozen=True, slots=True)
class FormField:
    """One field: `options` make it a choice among few, shown as `labels` say; `hint` is what it may be.

    `complain` gives, at each key, what is wrong with a text; empty where nothing is. `suggestions` complete what is
    typed. One that is `advanced` stays folded away until it is wanted.
    """

    name: str
    title: str
    initial: str = ""
    options: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    unit: str = ""
    hint: str = ""
    complain: Callable[[str], str] = accept
    suggestions: tuple[str, ...] = ()
    advanced: bool = False
