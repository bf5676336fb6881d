"""A whole store as JSON objects, and back: what `export`, `import` and `copy` move."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from backend.errors import RefusedError
from backend.model.documents import Document, format_time
from backend.store.codec import decode, encode
from backend.store.rows import Engine, LogRecord

FORMAT = 1
_EVENTS = ("created", "updated", "deleted")


def dump(engine: Engine) -> Iterator[Document]:
    """Yield a store from one moment; the last object tells a whole export from one that was cut."""
    with engine.snapshot() as snapshot:
        yield {
            "kc": "export",
            "format": FORMAT,
            "identity": snapshot.identity,
            "revision": snapshot.revision,
            "at": format_time(),
        }
        entries = 0
        for record in snapshot.records:
            entries += 1
            yield _describe(record)
        for uid, body in snapshot.leases:
            yield {"lease": uid, "value": decode(body)}
        yield {"end": snapshot.revision, "entries": entries}


def _describe(record: LogRecord) -> Document:
    note = decode(record.note) if record.note else {}
    body = decode(record.body) if record.body is not None else None
    said = body if body is not None else note
    return {
        "revision": record.revision,
        "table": record.table,
        "id": record.uid,
        "version": record.version,
        "at": record.at,
        "event": record.event,
        "name": record.name,
        "by": said.get("updatedBy", ""),
        "message": said.get("message", ""),
        "document": body,
    }


def load(engine: Engine, records: Iterable[Document]) -> int:
    """Write what `dump` gave into an empty store, and return the number of entries."""
    reading = _Reading(records)
    return engine.load(reading.identity, reading.entries(), reading.leases)


class _Reading:
    """An export that is being read; `leases` is filled while `entries` runs, and complete when it has ended."""

    def __init__(self, records: Iterable[Document]) -> None:
        self._records = iter(records)
        self.leases: list[tuple[str, bytes]] = []
        header = next(self._records, None)
        if not isinstance(header, dict) or header.get("kc") != "export":
            raise RefusedError("import", "it does not begin as an export of KC does", "make one with kc export")
        if not isinstance(header.get("format"), int) or header["format"] > FORMAT:
            raise RefusedError("import", "a newer KC has written it", "update KC")
        self.identity = str(header.get("identity"))
        if not _UUID.fullmatch(self.identity):
            raise RefusedError("import", "it does not name its store", "export it again")

    def entries(self) -> Iterator[LogRecord]:
        """Yield the entries; raise RefusedError for one that is damaged, and where the end is missing."""
        count, last = 0, 0
        for record in self._records:
            if not isinstance(record, dict):
                raise RefusedError("import", f"entry {count + 1} is no object", _AGAIN)
            if "end" in record:
                if record.get("entries") != count:
                    raise RefusedError("import", f"it says {record.get('entries')} entries and has {count}", _AGAIN)
                return
            if "lease" in record:
                self._take_lease(record)
                continue
            entry = _read(record, count + 1)
            if entry.revision <= last:
                raise RefusedError("import", f"entry {count + 1} is out of order", _AGAIN)
            last = entry.revision
            count += 1
            yield entry
        raise RefusedError("import", "its end is missing: it was cut short", _AGAIN)

    def _take_lease(self, record: Document) -> None:
        uid, value = record["lease"], record.get("value")
        if not isinstance(uid, str) or not isinstance(value, dict):
            raise RefusedError("import", "a lease in it is damaged", _AGAIN)
        # Whoever held it works on the other store.
        self.leases.append((uid, encode({**value, "owner": "", "expiresAt": 0}, "lease", uid)[0]))


_AGAIN = "export it again"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LARGEST = 1 << 53  # which every JSON reader takes for what it is
_SHAPE: dict[str, tuple[type, ...]] = {
    "revision": (int,), "table": (str,), "id": (str,), "version": (int,), "at": (int, float), "event": (str,),
    "name": (str, type(None)), "document": (dict, type(None)),
}  # fmt: skip


def _read(record: Document, number: int) -> LogRecord:
    what = f"entry {number}"
    for field, types in _SHAPE.items():
        if field not in record or not isinstance(record[field], types) or isinstance(record[field], bool):
            raise RefusedError("import", f"{what}: {field} is missing or damaged", _AGAIN)
    document = record["document"]
    is_deletion = record["event"] == "deleted"
    if record["event"] not in _EVENTS or is_deletion != (document is None):
        raise RefusedError("import", f"{what}: event and document do not go together", _AGAIN)
    numbers_fit = all(1 <= record[field] <= _LARGEST for field in ("version", "revision"))
    if not numbers_fit or not 0 <= record["at"] <= _LARGEST or not record["table"] or not record["id"]:
        raise RefusedError("import", f"{what}: a number or a name in it is damaged", _AGAIN)
    try:
        f"{record['table']}{record['id']}{record['name']}".encode()
    except UnicodeEncodeError as error:
        raise RefusedError("import", f"{what}: a name in it is no text", _AGAIN) from error
    if document is not None and not _is_itself(record, document):
        raise RefusedError("import", f"{what}: it is kept under another name or uid than its own", _AGAIN)
    body = None if document is None else encode(document, record["table"], record["id"])[0]
    note = None
    if is_deletion and (record.get("by") or record.get("message")):
        said = {"updatedBy": str(record.get("by", "")), "message": str(record.get("message", ""))}
        note = encode(said, record["table"], record["id"])[0]
    return LogRecord(
        record["revision"], record["table"], record["id"], record["version"], float(record["at"]),
        record["event"], record["name"], body, note,
    )  # fmt: skip


def _is_itself(record: Document, document: Document) -> bool:
    if document.get("kind") != record["table"]:
        return record["name"] is None
    return bool(record["name"] and document.get("name") == record["name"] and document.get("uid") == record["id"])
