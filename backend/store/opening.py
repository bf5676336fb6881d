"""From the address of a store to the store."""

from __future__ import annotations

from pathlib import Path

from backend.errors import RefusedError
from backend.store.protocol import Store
from backend.text import sanitise

_HINT = "write tinydb:PATH"


def open_store(url: str, *, create: bool = True) -> Store:
    """Open the store that `url` names as `KC_STORE` does, made where it is missing and `create` allows it.

    Raises RefusedError for another address and for a file that is no store, NotFoundError, FailedError.
    """
    scheme, colon, path = url.partition(":")
    what = f"store {sanitise(url, 200)}"
    if scheme == "etcd":
        raise RefusedError(what, "this version of KC cannot keep its documents in etcd yet", _HINT)
    if scheme != "tinydb" or not colon:
        raise RefusedError(what, "no such kind of store", _HINT)
    if not path or "\0" in path:
        raise RefusedError(what, "it names no file", _HINT)
    from backend.store.engine import FileEngine  # noqa: PLC0415 - only a store in a file needs SQLite
    from backend.store.tinydb_store import TinyDBStore  # noqa: PLC0415

    try:
        file = Path(path).expanduser().resolve()
    except RuntimeError as error:  # a loop of links, or ~ without a home
        raise RefusedError(what, "its path leads nowhere", _HINT) from error
    engine = FileEngine(file, create=create)
    return TinyDBStore(engine, f"tinydb:{engine.path}")
