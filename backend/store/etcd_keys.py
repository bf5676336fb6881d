"""What a store keeps in an etcd: its keys, and what is written under them.

    meta/{identity,format,revision,floor,epoch}     the store itself; meta/loading while an import is being written
    version/TABLE/ID/VERSION                        every version: an entry
    head/TABLE/ID                                   what is live: a copy of the entry of its newest version
    name/TABLE/NAME                                 the id of the live row of that name
    log/REVISION                                    the feed: a pointer to the version that a revision wrote
    gone/TABLE/NAME/REVISION                        the id of a row that was deleted under that name
    lease/ID                                        the lease of an operation
    lock/SESSION  done/ENGINE                       who writes or waits to; the last transaction of each writer

All but `version`, `meta` and `lease` follows from the versions. The revision is the store's own, and without gaps: the
feed is a range of keys, and etcd may compact its own history as it likes.
"""

from __future__ import annotations

import json
from typing import NamedTuple

from backend.errors import FailedError
from backend.store.codec import decode
from backend.store.rows import LogRecord

FORMAT = 1
DIGITS = 16
_VERSION_DIGITS = 10
_HEADER_FIELDS = 5


class Entry(NamedTuple):
    """One version as it is kept; `payload` is the body, or of a deletion the note."""

    revision: int
    version: int
    at: float
    event: str
    name: str | None
    payload: bytes

    @property
    def body(self) -> bytes | None:
        """The body; None of a deletion."""
        return None if self.event == "deleted" else self.payload

    @property
    def note(self) -> bytes | None:
        """What was said of a deletion."""
        return self.payload or None if self.event == "deleted" else None

    def encode(self) -> bytes:
        """Return the bytes that are stored: a line of JSON, and the payload as it is."""
        return _encode([*self[:5]]) + b"\n" + self.payload


class Pointer(NamedTuple):
    """What one revision wrote."""

    revision: int
    table: str
    uid: str
    version: int
    event: str
    at: float
    name: str | None

    def encode(self) -> bytes:
        """Return the bytes that are stored under the revision."""
        return _encode([*self[1:]])


def _encode(value: list[object]) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def read_entry(data: bytes) -> Entry:
    """Return the entry that was stored; raise FailedError where it is damaged."""
    line, _, payload = data.partition(b"\n")
    header = decode(line)
    if not isinstance(header, list) or len(header) != _HEADER_FIELDS or not isinstance(header[1], int):
        raise FailedError("store", "an entry of it is damaged", "run kc store check")
    return Entry._make([*header, payload])


def read_pointer(key: bytes, data: bytes) -> Pointer:
    """Return the pointer that was stored under a key; raise FailedError where it is damaged."""
    fields = decode(data)
    try:
        return Pointer(int(key[-DIGITS:]), *fields)
    except (TypeError, ValueError) as error:
        raise FailedError("store", "an entry of its feed is damaged", "run kc store check --repair") from error


def make_entry(record: LogRecord) -> Entry:
    """Return the entry of a write."""
    payload = (record.note or b"") if record.body is None else record.body
    return Entry(record.revision, record.version, record.at, record.event, record.name, payload)


def make_pointer(table: str, uid: str, entry: Entry) -> Pointer:
    """Return the pointer to an entry."""
    return Pointer(entry.revision, table, uid, entry.version, entry.event, entry.at, entry.name)


def _quote(text: str) -> bytes:
    return text.replace("%", "%25").replace("/", "%2F").encode("utf-8", "surrogatepass")


def unquote(part: bytes) -> str:
    """Return the table, id or name that a part of a key stands for."""
    return part.decode("utf-8", "surrogatepass").replace("%2F", "/").replace("%25", "%")


class Keys:
    """The keys of one store."""

    def __init__(self, root: bytes) -> None:
        """`root` is what they all begin with; it ends in a slash."""
        self.root = root
        self.logs = root + b"log/"
        self.heads = root + b"head/"
        self.names = root + b"name/"
        self.gones = root + b"gone/"
        self.versions = root + b"version/"
        self.leases = root + b"lease/"
        self.locks = root + b"lock/"
        self.dones = root + b"done/"
        self.meta = root + b"meta/"
        self.identity = self.meta + b"identity"
        self.format = self.meta + b"format"
        self.revision = self.meta + b"revision"
        self.floor = self.meta + b"floor"
        self.epoch = self.meta + b"epoch"
        self.loading = self.meta + b"loading"

    def log(self, revision: int) -> bytes:
        """Return the key of a revision in the feed."""
        return self.logs + f"{revision:0{DIGITS}}".encode()

    def head(self, table: str, uid: str = "") -> bytes:
        """Return the key of a live row, or what those of a table begin with."""
        return self.heads + _quote(table) + b"/" + _quote(uid)

    def name(self, table: str, name: str) -> bytes:
        """Return the key of a name."""
        return self.names + _quote(table) + b"/" + _quote(name)

    def lease(self, uid: str) -> bytes:
        """Return the key of the lease of an operation."""
        return self.leases + _quote(uid)

    def version(self, table: str, uid: str, version: int) -> bytes:
        """Return the key of one version."""
        return self.history(table, uid) + f"{version:0{_VERSION_DIGITS}}".encode()

    def history(self, table: str, uid: str) -> bytes:
        """Return what the keys of all versions of a row begin with."""
        return self.versions + _quote(table) + b"/" + _quote(uid) + b"/"

    def gone(self, table: str, name: str, revision: int) -> bytes:
        """Return the key that says that a row of that name was deleted."""
        return self.deletions(table, name) + f"{revision:0{DIGITS}}".encode()

    def deletions(self, table: str, name: str) -> bytes:
        """Return what the keys of all deletions under a name begin with."""
        return self.gones + _quote(table) + b"/" + _quote(name) + b"/"

    def split(self, key: bytes) -> list[str]:
        """Return the parts of a key below the root, as they were before they were quoted."""
        return [unquote(part) for part in key[len(self.root) :].split(b"/")]

    def derive(self, table: str, uid: str, entry: Entry) -> dict[bytes, bytes]:
        """Return what follows from one version alone: its place in the feed and, of a deletion, in the index."""
        derived = {self.log(entry.revision): make_pointer(table, uid, entry).encode()}
        if entry.event == "deleted" and entry.name is not None:
            derived[self.gone(table, entry.name, entry.revision)] = uid.encode("utf-8", "surrogatepass")
        return derived
