"""Reading the tables of `[auth]`: what is misspelt there is refused, and never silently open or shut."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from backend.errors import RefusedError
from backend.text import sanitise

COMMON_SETTINGS: Final = frozenset({"type", "name", "timeout", "concurrency"})
"""The settings that every table of `[[auth.chain]]` may have; `timeout` in seconds, of the whole authenticator."""


class Table:
    """One table of the settings, with its place in the file for what is said of it (`auth.chain[2] (ldap)`)."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.values = values
        self.where = where

    def refuse(self, key: str, why: str, hint: str) -> RefusedError:
        """Return the error for one setting."""
        return RefusedError(f"settings {self.where}", f"{sanitise(key, 80)} {why}", hint)

    def check_keys(self, known: Iterable[str]) -> None:
        """Raise RefusedError where there is a setting that nobody reads."""
        names = sorted(known)
        for key in self.values:
            if key not in names:
                raise self.refuse(key, "is no setting", f"known are {', '.join(names)}")

    def text(self, key: str, default: str = "") -> str:
        """Return a text."""
        value = self.values.get(key, default)
        if not isinstance(value, str):
            raise self.refuse(key, "is no text", "write it in quotes")
        return value

    def texts(self, key: str, default: Iterable[str] = ()) -> tuple[str, ...]:
        """Return a list of texts that are not empty."""
        value = self.values.get(key)
        if value is None:
            return tuple(default)
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise self.refuse(key, "is no list of texts", f'write it as {key} = ["…"]')
        return tuple(value)

    def number(self, key: str, default: float, least: float, most: float) -> float:
        """Return a number within bounds."""
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            raise self.refuse(key, f"is no number from {least:g} to {most:g}", "write one")
        return float(value)

    def flag(self, key: str, *, default: bool = False) -> bool:
        """Return a truth value."""
        value = self.values.get(key, default)
        if not isinstance(value, bool):
            raise self.refuse(key, "is neither true nor false", "write one of both")
        return value

    def tables(self, key: str) -> list[Mapping[str, Any]]:
        """Return a list of tables, empty where there is none."""
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.refuse(key, "is no list of tables", "write each under a heading in [[double brackets]]")
        return value
