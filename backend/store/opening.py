"""From the address of a store to the store."""

from __future__ import annotations

from pathlib import Path

from backend.errors import RefusedError
from backend.store.protocol import EtcdOptions, Retentions, Store
from backend.text import sanitise

_HINT = "write tinydb:PATH, or etcd://HOST:PORT"


_KEPT = Retentions()
_PLAIN = EtcdOptions()


def open_store(
    url: str, *, create: bool = True, retentions: Retentions = _KEPT, etcd: EtcdOptions = _PLAIN
) -> Store:  # fmt: skip
    """Open the store that `url` names as `KC_STORE` does, made where it is missing and `create` allows it.

    `retentions` says how much history it keeps, `etcd` how to speak to one. Raises RefusedError for another address and
    for a file that is no store, NotFoundError, FailedError.
    """
    scheme, colon, path = url.partition(":")
    what = f"store {sanitise(url, 200)}"
    if scheme in ("etcd", "etcds"):
        from backend.store.etcd_address import parse_address  # noqa: PLC0415 - only an etcd needs a client
        from backend.store.etcd_engine import EtcdEngine  # noqa: PLC0415
        from backend.store.tinydb_store import TinyDBStore  # noqa: PLC0415

        address = parse_address(url)
        return TinyDBStore(EtcdEngine(address, etcd, create=create, retentions=retentions), str(address))
    if scheme == "memory" and colon:
        from backend.store.memory import MemoryEngine  # noqa: PLC0415 - tests alone need it
        from backend.store.tinydb_store import TinyDBStore  # noqa: PLC0415

        return TinyDBStore(MemoryEngine(path, create=create, retentions=retentions), f"memory:{path}")
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
    engine = FileEngine(file, create=create, retentions=retentions)
    return TinyDBStore(engine, f"tinydb:{engine.path}")
