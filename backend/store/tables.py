"""TinyDB's tables over an engine: its API and its queries, with versions, transactions and many processes.

Every operation of a TinyDB table goes through two methods, one that reads the table and one that updates it; both are
replaced here by mappings that read and write single rows. What TinyDB promises of a table stays true.

A document whose `kind` is its table's name is KC's: its name is unique in the table, and it is read as a whole, with
`version` and `status`, which are never stored with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, cast

from tinydb import TinyDB
from tinydb.storages import Storage
from tinydb.table import Table

from backend.errors import ConflictError, NotFoundError, RefusedError
from backend.model.documents import Document
from backend.store.codec import decode, encode, encode_metadata, is_same
from backend.store.faults import describe
from backend.store.files import new_uid
from backend.store.rows import STATUS, Engine, Label, Row, complete, strip_document

_PAGE = 500
# They tell of a change and are none.
_REMARKS = frozenset({"updatedAt", "updatedBy", "message"})


class Rows(Mapping[str, Document]):
    """A table for reading: each look decodes afresh, so what is handed out is the caller's own."""

    def __init__(self, engine: Engine, table: str) -> None:
        self._engine = engine
        self._table = table

    def __getitem__(self, uid: str) -> Document:
        row = self._engine.read(self._table, uid)
        if row is None:
            raise KeyError(uid)
        return open_row(self._table, row)

    def __iter__(self) -> Iterator[str]:
        return (uid for uid, _ in scan(self._engine, self._table))

    def __len__(self) -> int:
        return self._engine.count(self._table)

    def items(self) -> Any:
        """Return the documents with their ids, page by page."""
        return ((uid, open_row(self._table, row)) for uid, row in scan(self._engine, self._table))


class Working(MutableMapping[str, Document]):
    """A table inside a transaction: private copies, written back by `flush` where they really changed."""

    def __init__(self, engine: Engine, table: str) -> None:
        self._engine = engine
        self._table = table
        self._rows: dict[str, Row | None] = {}
        self._copies: dict[str, Document | None] = {}
        self._written: dict[str, Document] = {}

    def __getitem__(self, uid: str) -> Document:
        if uid not in self._copies:
            row = self._look(uid)
            self._copies[uid] = open_row(self._table, row) if row else None
        copy = self._copies[uid]
        if copy is None:
            raise KeyError(uid)
        return copy

    def __setitem__(self, uid: str, document: Document) -> None:
        self._look(uid)
        self._copies[uid] = document

    def __delitem__(self, uid: str) -> None:
        self[uid]
        self._copies[uid] = None

    def __iter__(self) -> Iterator[str]:
        stored = dict(scan(self._engine, self._table))
        for uid, row in stored.items():
            self._rows.setdefault(uid, row)
        removed = {uid for uid, copy in self._copies.items() if copy is None}
        new = [uid for uid, copy in self._copies.items() if copy is not None and uid not in stored]
        return iter([uid for uid in stored if uid not in removed] + new)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def version(self, uid: str) -> int:
        """Return the version of a document as it is stored; 0 where it is not live."""
        row = self._look(uid)
        return row[0] if row else 0

    def flush(self, note: bytes | None = None) -> None:
        """Write what changed, deletions with a note.

        Raises ConflictError for a name that is taken, RefusedError for what is no JSON.
        """
        for uid, copy in self._copies.items():
            row = self._rows[uid]
            if copy is None:
                if row:
                    self._remove(uid, row, note)
            else:
                self._write(uid, row, copy)

    def written(self, uid: str) -> Document:
        """Return a document, whole, as `flush` left it."""
        return self._written[uid]

    def _look(self, uid: str) -> Row | None:
        if uid not in self._rows:
            self._rows[uid] = self._engine.read(self._table, uid)
        return self._rows[uid]

    def _write(self, uid: str, row: Row | None, copy: Document) -> None:
        name = self._name(copy, uid)
        whole = name is not None
        body, document = encode(strip_document(copy) if whole else dict(copy), self._table, name or uid)
        version, status = (row[0], row[2]) if row else (0, None)
        if row is None:
            version = self._engine.insert(self._table, uid, _label(name, document), body)
        elif body != row[1]:
            old = decode(row[1])
            if is_unchanged(old, document, whole=whole):
                document = old
            else:
                if name != self._name(old, uid):
                    self._engine.rename(self._table, uid, name)
                version = self._engine.update(self._table, uid, _label(name, document), body, version)
        self._written[uid] = complete(document, version, status) if whole else document

    def _remove(self, uid: str, row: Row, note: bytes | None) -> None:
        name = self._name(decode(row[1]), uid)
        self._engine.remove(self._table, uid, name, row[0], note)
        if name is not None:
            self._engine.forget(self._table + STATUS, uid)

    def _name(self, document: Document, uid: str) -> str | None:
        """Return the name of a document of KC's; None for any other."""
        if document.get("kind") != self._table:
            return None
        name = document.get("name")
        if not isinstance(name, str) or not name:
            raise RefusedError(describe(self._table, uid), "it has no name", "give it one")
        if document.get("uid") != uid:
            raise RefusedError(describe(self._table, name), "its uid is not the one it is kept under", "leave the uid")
        return name


class DocumentTable(Table):
    """A TinyDB table of rows: ids are texts, and nothing is cached, because other processes write too."""

    document_id_class = str  # type: ignore[assignment]  # TinyDB's hook is typed by its default

    def __init__(self, storage: EngineStorage, name: str, cache_size: int = 0, *, persist_empty: bool = False) -> None:
        # TinyDB binds its default capacity when the method is defined: the class attribute would do nothing. A table
        # without a row does not exist here, so there is nothing to persist.
        del cache_size, persist_empty
        super().__init__(storage, name, cache_size=0)
        self._engine = storage.engine

    def put(self, body: Document, *, expect: int | None = None) -> Document:
        """Write the next version of a document of KC's, and return it whole; see `backend.store.protocol`."""
        uid = str(body["uid"])
        with self._engine.transaction(join=True):
            working = Working(self._engine, self.name)
            self._check_version(working, uid, str(body["name"]), expect)
            working[uid] = body
            working.flush()
        return working.written(uid)

    def delete(self, uid: str, *, expect: int | None = None, note: bytes | None = None) -> int:
        """Delete a live document and return the version that says so, with a note; see `backend.store.protocol`."""
        with self._engine.transaction(join=True):
            working = Working(self._engine, self.name)
            document = working.get(uid)
            if document is None:
                raise NotFoundError(describe(self.name, uid), "there is none", "it may just have been deleted")
            self._check_version(working, uid, str(document.get("name", uid)), expect)
            del working[uid]
            working.flush(note)
        return working.version(uid) + 1

    def replace(self, uid: str, document: Document) -> None:
        """Write a document of any table in the place of the one that it has under that id."""
        with self._engine.transaction(join=True):
            working = Working(self._engine, self.name)
            working[uid] = document
            working.flush()

    def _check_version(self, working: Working, uid: str, name: str, expect: int | None) -> None:
        if expect is None:
            return
        version = working.version(uid) or self._engine.last_version(self.name, uid)
        if version != expect:
            why = f"it is at version {version}, not {expect or 'new'}" if version else "there is none yet"
            hint = "read it again, and repeat the change"
            raise ConflictError(describe(self.name, name), why, hint, reason="version", current=version)

    def _get_next_id(self) -> Any:
        return new_uid()

    def _read_table(self) -> Any:
        return Rows(self._engine, self.name)

    def _update_table(self, updater: Callable[[Any], None]) -> None:
        with self._engine.transaction():
            working = Working(self._engine, self.name)
            updater(working)
            working.flush()


class EngineStorage(Storage):
    """TinyDB's storage over an engine: the whole state at once, for the few calls that still ask for that."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def read(self) -> dict[str, dict[str, Any]] | None:
        """Return every table with all its documents; None where there is none."""
        return {table: dict(Rows(self.engine, table).items()) for table in self.engine.tables()} or None

    def write(self, data: dict[str, dict[str, Any]]) -> None:
        """Make the store hold `data` and nothing else; what stays the same makes no version."""
        with self.engine.transaction():
            for table in sorted({*self.engine.tables(), *data}):
                working = Working(self.engine, table)
                wanted = data.get(table, {})
                for uid in set(working) - set(wanted):
                    del working[uid]
                working.update(wanted)
                working.flush()

    def close(self) -> None:
        """Leave the engine open: it is its owner's."""


class DocumentDatabase(TinyDB):
    """A TinyDB whose tables are an engine's."""

    table_class = DocumentTable  # type: ignore[assignment]  # TinyDB types it as its own class, not as one below
    default_storage_class = EngineStorage  # type: ignore[assignment]  # it is made from an engine, not from a path

    def tables(self) -> set[str]:
        """Return the names of the tables that have documents, without reading them."""
        return set(cast(EngineStorage, self.storage).engine.tables())


def scan(engine: Engine, table: str) -> Iterator[tuple[str, Row]]:
    """Yield the rows of a table with their ids, read in pages: no statement stays open meanwhile."""
    after = ""
    while page := engine.scan(table, after, _PAGE):
        for uid, version, body, status in page:
            yield uid, (version, body, status)
        after = page[-1][0]


def open_row(table: str, row: Row) -> Document:
    """Return the document of a row of any table; one of KC's is whole."""
    document: Document = decode(row[1])
    return complete(document, row[0], row[2]) if document.get("kind") == table else document


def is_unchanged(old: Document, new: Document, *, whole: bool) -> bool:
    """Return whether `new` says nothing new; in a document of KC's, who wrote it when and why says nothing."""
    remarks = _REMARKS if whole else frozenset()
    # The usual answer comes from the first field that differs.
    for key, value in new.items():
        if key not in remarks and old.get(key, old) != value:
            return False
    return is_same(
        {key: value for key, value in old.items() if key not in remarks},
        {key: value for key, value in new.items() if key not in remarks},
    )


def _label(name: str | None, document: Document) -> Label:
    return Label() if name is None else Label(name, encode_metadata(document))
