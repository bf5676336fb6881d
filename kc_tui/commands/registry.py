"""The registry: all commands by id, checked once when it is made."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from kc_tui.commands.catalogue import COMMANDS
from kc_tui.commands.command import Command

_ID: Final = re.compile(r"[a-z]+\.[a-z]+(-[a-z]+)*")


class Registry:
    """An unchanging set of commands in their order; ids are unique."""

    def __init__(self, commands: Iterable[Command]) -> None:
        self._by_id: dict[str, Command] = {}
        for command in commands:
            if not _ID.fullmatch(command.id) or command.id in self._by_id:
                raise ValueError(f"bad or doubled command id {command.id!r}")
            self._by_id[command.id] = command

    def __iter__(self) -> Iterator[Command]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, command_id: object) -> bool:
        return command_id in self._by_id

    def __getitem__(self, command_id: str) -> Command:
        return self._by_id[command_id]


REGISTRY: Final = Registry(COMMANDS)
"""KC's own commands."""
