"""What other processes and people change while KC runs: files that settings name, and tokens that are deleted."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backend.errors import ConflictError
from backend.model.kinds import TOKEN

if TYPE_CHECKING:
    from backend.store.protocol import Store

_MANY = 100
_REVOKING = frozenset({"updated", "deleted"})

Signature = tuple[int, int, int] | None


class FileWatch:
    """Files, of which it can be asked whether one of them is another than before, has gone, or has come."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._paths = tuple(paths)
        self._seen = self._read()

    def look(self) -> bool:
        """Return whether anything is other than at the last look."""
        before, self._seen = self._seen, self._read()
        return self._seen != before

    def _read(self) -> tuple[Signature, ...]:
        return tuple(_sign(path) for path in self._paths)


class RevocationWatch:
    """The tokens of a store, of which it can be asked whether one was changed or deleted, by whichever process."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._revision = store.revision()

    def look(self) -> bool:
        """Return whether a token was changed or deleted since the last look; a new one, or its use, revokes nothing."""
        newest = self._store.revision()
        if newest == self._revision:
            return False
        try:
            changes = self._store.changes(self._revision, (TOKEN.name,))
        except ConflictError:  # too much has happened since to be told
            self._revision = newest
            return True
        self._revision = max(newest, *(change.revision for change in changes), 0)
        # The feed comes in pages, and what is beyond the first one may be anything.
        return len(changes) >= _MANY or any(change.type in _REVOKING for change in changes)


def find_files(tables: Iterable[Mapping[str, Any]], folder: Path) -> tuple[str, ...]:
    """Return the paths of the files that tables of settings name; relative ones are in `folder`.

    A file is what is called so (`file`, `groupFile`), and whatever begins like an absolute path.
    """
    found: dict[str, None] = {}
    waiting: list[tuple[str, Any]] = [("", list(tables))]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += value.items()
        elif isinstance(value, list):
            waiting += [(name, item) for item in value]
        elif isinstance(value, str) and (name.lower().endswith("file") or value.startswith(("/", "~/"))):
            found[str(folder / Path(value).expanduser())] = None
    return tuple(found)


def _sign(path: str) -> Signature:
    try:
        status = os.stat(path)  # noqa: PTH116 - half as dear as a Path, twice a second
    except (OSError, ValueError):
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
