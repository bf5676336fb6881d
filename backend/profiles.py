"""The profiles in `config.toml`: added, chosen and removed, while every comment and all else in the file stays.

The file is changed as text, and read again before it is written: what would come out otherwise than meant is not done.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backend.errors import ConflictError, NotFoundError, RefusedError
from backend.paths import Paths, write_atomically
from backend.text import sanitise

LOCAL = "local"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_HEADER = re.compile(r"\s*\[")
_CHOICE = re.compile(r"""(\s*profile\s*=\s*)("[^"\\]*"|'[^']*')(.*)""")
_OWN_HEADER = r"""\s*\[\s*(?:profiles|"profiles")\s*\.\s*(?:{name}|"{name}")\s*(?:\.[^\]]*)?\]\s*(?:#.*)?"""


class ConfigFile:
    """`config.toml` as text and as values."""

    def __init__(self, paths: Paths) -> None:
        """Read the file; raise RefusedError for one that is no TOML."""
        # A link to where somebody keeps such files stays one.
        self._path = Path(os.path.realpath(paths.config_file))
        try:
            self.text = self._path.read_text("utf-8")
        except FileNotFoundError:
            self.text = ""
        except (OSError, UnicodeDecodeError) as error:
            raise RefusedError(f"settings {self._path}", str(error).lower(), "mend the file or move it away") from error
        self.values = self._parse(self.text)

    def _parse(self, text: str) -> dict[str, Any]:
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise RefusedError(f"settings {self._path}", str(error).lower(), "mend the file or move it away") from error

    @property
    def profiles(self) -> dict[str, dict[str, Any]]:
        """The profiles by name."""
        found = self.values.get("profiles", {})
        return {name: table for name, table in found.items() if isinstance(table, dict)}

    @property
    def chosen(self) -> str:
        """The profile that is used where none is named."""
        return str(self.values.get("profile", LOCAL))

    def add(self, name: str, table: Mapping[str, str | bool]) -> None:
        """Write a profile at the end of the file; raise ConflictError where there is one of that name."""
        if not _NAME.fullmatch(name) or name == LOCAL:
            raise RefusedError(f"profile {sanitise(name, 80)}", "it cannot be called that", "take letters and digits")
        if name in self.values.get("profiles", {}):
            raise ConflictError(f"profile {name}", "there is one of that name", f"kc profile remove {name} first")
        lines = [f"{key} = {_quote(value)}" for key, value in table.items()]
        gap = "\n" if self.text else ""
        end = "" if not self.text or self.text.endswith("\n") else "\n"
        wanted = {**self.values, "profiles": {**self.values.get("profiles", {}), name: dict(table)}}
        self._write(f"{self.text}{end}{gap}[profiles.{name}]\n" + "\n".join(lines) + "\n", wanted)

    def use(self, name: str) -> None:
        """Have a profile used where none is named; raise NotFoundError for one that is not there."""
        if name != LOCAL and name not in self.profiles:
            known = ", ".join(sorted({LOCAL, *self.profiles}))
            raise NotFoundError(f"profile {sanitise(name, 80)}", "no such profile", f"known are {known}")
        self._write(_choose(self.text, name), {**self.values, "profile": name})

    def remove(self, name: str) -> None:
        """Take a profile out; where it is the one that is used, the local one is used from then on."""
        if name not in self.profiles:
            raise NotFoundError(f"profile {sanitise(name, 80)}", "no such profile", "see kc profile list")
        wanted = {**self.values, "profiles": {key: table for key, table in self.profiles.items() if key != name}}
        text = _cut_table(self.text, name)
        if self.chosen == name:
            text, wanted["profile"] = _choose(text, LOCAL), LOCAL
        self._write(text, wanted)

    def _write(self, text: str, wanted: dict[str, Any]) -> None:
        """Write the file where the text says just what is wanted."""
        try:
            found = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            found = None
        if found is None or _normal(found) != _normal(wanted):
            raise RefusedError(
                f"settings {self._path}", "the profiles in it are written in a way that KC does not change",
                "change it in an editor",
            )  # fmt: skip
        write_atomically(self._path, text.encode())
        self.text, self.values = text, found


def _normal(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != "profiles" or value}


def _quote(value: str | bool) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    # TOML's strings are JSON's, but for this one sign.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _choose(text: str, name: str) -> str:
    lines = text.splitlines(keepends=True)
    top = next((index for index, line in enumerate(lines) if _HEADER.match(line)), len(lines))
    for index, line in enumerate(lines[:top]):
        found = _CHOICE.fullmatch(line.rstrip("\r\n"))
        if found:
            end = line[len(line.rstrip("\r\n")) :]
            lines[index] = f"{found[1]}{_quote(name)}{found[3]}{end}"
            return "".join(lines)
    first = next((index for index, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    return "".join([*lines[:first], f"profile = {_quote(name)}\n", *lines[first:]])


def _cut_table(text: str, name: str) -> str:
    """Return a text without a profile's table; what stands right above the next table belongs to that one."""
    own = re.compile(_OWN_HEADER.format(name=re.escape(name)))
    kept: list[str] = []
    held: list[str] = []
    is_inside = False
    for line in text.splitlines(keepends=True):
        if _HEADER.match(line):
            was_inside, is_inside = is_inside, own.fullmatch(line.rstrip("\r\n")) is not None
            if not is_inside:
                kept += held
            elif not was_inside:
                while kept and not kept[-1].strip():
                    kept.pop()
            held = []
        if not is_inside:
            kept.append(line)
        elif not line.strip() or line.lstrip().startswith("#"):
            held.append(line)
        else:
            held = []
    return "".join(kept)
