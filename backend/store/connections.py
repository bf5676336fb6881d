"""The connections to one SQLite file: readers in a pool, one writer under the lock."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from threading import get_ident
from types import TracebackType
from typing import Any

from backend.errors import FailedError, KCError, TimedOutError
from backend.store.faults import explain
from backend.store.files import connect
from backend.store.lock import FileLock

_WRITER_CACHE_MIB = 16
_READER_CACHE_MIB = 8
_CLOSING_PATIENCE = 2.0  # seconds
_NO_TRANSACTION = "a write needs a transaction of the same thread"

Values = Sequence[Any] | dict[str, Any]


class Connections:
    """Statements on one file, for any threads; every error of SQLite's is raised as a KCError.

    A reader is lent to one thread at a time, whichever comes next: a thread that ends closes nothing outside the lock.
    """

    def __init__(
        self, path: Path, lock: FileLock, moved: Callable[[], None], finish: Callable[[sqlite3.Connection], None]
    ) -> None:
        """Nothing is opened before it is needed.

        `moved` is called after each commit that `move` announced; `finish` before one that `move` says it is due for.
        """
        self._path = path
        self._lock = lock
        self._announce = moved
        self._finish = finish
        self._process = os.getpid()
        self._idle: list[sqlite3.Connection] = []
        self._writer: sqlite3.Connection | None = None
        self._owner = 0
        self._moved = False
        self._due = False
        self._fault: KCError | None = None
        self._closed = False
        self.memory: dict[tuple[str, str], Any] = {}
        """What the transaction has read; it is forgotten where that may have changed."""

    @property
    def writing(self) -> bool:
        """Whether this thread has a transaction open."""
        return self._owner == get_ident()

    def check(self) -> None:
        """Raise FailedError where this cannot be used any more."""
        if self._closed:
            raise FailedError(f"store {self._path}", "it is closed", "open it again", reason="closed")
        if os.getpid() != self._process:
            hint = "open it again in each process"
            raise FailedError(f"store {self._path}", "it was opened before a fork", hint, reason="fork")

    def fetch(self, statement: str, values: Values = ()) -> list[Any]:
        """Return all rows that a statement reads; a transaction of this thread is read as it stands."""
        if self._owner == get_ident():
            return self.write(statement, values).fetchall()
        self.check()
        try:
            connection = self._borrow()
            try:
                return connection.execute(statement, values).fetchall()
            finally:
                self._give_back(connection)
        except sqlite3.Error as error:
            raise explain(self._path, error) from error

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection that no other thread has, for several statements."""
        self.check()
        try:
            connection = self._borrow()
            try:
                yield connection
            finally:
                self._give_back(connection)
        except sqlite3.Error as error:
            raise explain(self._path, error) from error

    @contextmanager
    def moment(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection whose reads are all of one moment; in a transaction of this thread, of that one."""
        if self.writing:
            yield self.writer
            return
        with self.reading() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")

    def transaction(self, *, join: bool = False) -> AbstractContextManager[None]:
        """Open a transaction for this thread, or a part of the one that it has open: all of it or nothing.

        With `join` a part is not taken back by itself; that is for what fails before it writes. A write that fails for
        the disk's sake dooms the whole, even where its error is caught.
        """
        if self._owner != get_ident():
            return _Whole(self)
        return _JOINED if join else _Part(self)

    def write(self, statement: str, values: Values = ()) -> sqlite3.Cursor:
        """Run a statement inside this thread's transaction."""
        writer = self._writer
        if writer is None or self._owner != get_ident():
            raise RuntimeError(_NO_TRANSACTION)
        try:
            return writer.execute(statement, values)
        except sqlite3.Error as error:
            self._fault = explain(self._path, error)
            raise self._fault from error

    @property
    def writer(self) -> sqlite3.Connection:
        """The connection of this thread's transaction; who uses it explains SQLite's errors himself."""
        if self._writer is None or self._owner != get_ident():
            raise RuntimeError(_NO_TRANSACTION)
        return self._writer

    def run(self, function: Callable[[sqlite3.Connection], None]) -> None:
        """Run several statements inside this thread's transaction."""
        try:
            function(self.writer)
        except sqlite3.Error as error:
            self._fault = explain(self._path, error)
            raise self._fault from error

    def move(self, *, due: bool) -> None:
        """Note that the transaction moves the feed, and whether it has to be finished before it is committed."""
        self._moved = True
        self._due = self._due or due

    def begin(self) -> None:
        """Take the lock and open a transaction for this thread."""
        self.check()
        self._lock.acquire()
        try:
            self.check()  # it may have been closed while this thread stood in the queue
            self._open_writer().execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            self._lock.release()
            raise explain(self._path, error) from error
        except BaseException:
            self._lock.release()
            raise
        self._moved = False
        self._due = False
        self._fault = None
        self._owner = get_ident()

    def end(self, *, commit: bool) -> None:
        """Commit the transaction, or take it back, and give the lock back."""
        committed = False
        try:
            if commit:
                if self._fault:
                    raise self._fault
                if self._due:
                    self.run(self._finish)
                self.write("COMMIT")
                committed = True
        finally:
            if not committed:
                self._roll_back()
            self.memory.clear()
            self._owner = 0
            self._lock.release()
        if committed and self._moved:
            self._announce()

    def end_part(self, *, keep: bool) -> None:
        """Keep what was written since the savepoint, or take it back; a doomed transaction ends as a whole."""
        if not keep:
            self.memory.clear()
            if self._fault:
                return
            self.write("ROLLBACK TO part")
        self.write("RELEASE part")

    @contextmanager
    def alone(self) -> Iterator[sqlite3.Connection]:
        """Lend the connection that writes, under the lock and in no transaction; not inside one of this thread."""
        self.check()
        with self._lock:
            self.check()
            try:
                yield self._open_writer()
            except sqlite3.Error as error:
                raise explain(self._path, error) from error

    def close(self, close_others: Callable[[], None]) -> None:
        """Close them all, and what else is open on the file; after a first call, or a fork, nothing is done."""
        if self._closed or os.getpid() != self._process:
            return
        if self.writing:
            hint = "end the transaction first"
            raise FailedError(f"store {self._path}", "it cannot be closed in the middle of a transaction", hint)
        # The last connection to close moves the log into the database, which is a checkpoint. Where the lock does not
        # come in time, SQLite's own locks still keep it from doing so while another process is connected.
        locked = False
        with suppress(TimedOutError, FailedError):
            self._lock.acquire(_CLOSING_PATIENCE)
            locked = True
        try:
            self._closed = True
            close_others()
            self._close_idle()
            if self._writer and not self._owner:
                self._writer.close()
                self._writer = None
        finally:
            if locked:
                self._lock.release(close=True)

    def _open_writer(self) -> sqlite3.Connection:
        if self._writer is None:
            self._writer = connect(self._path, cache_mib=_WRITER_CACHE_MIB)
            self._writer.execute("PRAGMA journal_mode=WAL")  # a copy made by VACUUM INTO has lost it
        return self._writer

    def _borrow(self) -> sqlite3.Connection:
        try:
            return self._idle.pop()
        except IndexError:
            return connect(self._path, cache_mib=_READER_CACHE_MIB)

    def _give_back(self, connection: sqlite3.Connection) -> None:
        self._idle.append(connection)
        if self._closed:
            self._close_idle()

    def _close_idle(self) -> None:
        while self._idle:
            with suppress(IndexError):
                self._idle.pop().close()

    def _roll_back(self) -> None:
        writer = self._writer
        if writer is None:
            return
        # SQLite has rolled back by itself after some errors, a full disk among them.
        with suppress(sqlite3.Error):
            if writer.in_transaction:
                writer.execute("ROLLBACK")
        if writer.in_transaction:
            self._writer = None
            writer.close()


class _Whole:
    """A transaction as a block; a class, because a generator costs a tenth of a durable write."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def __enter__(self) -> None:
        self._connections.begin()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connections.end(commit=kind is None)


class _Part:
    """A part of a transaction as a block."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def __enter__(self) -> None:
        self._connections.write("SAVEPOINT part")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connections.end_part(keep=kind is None)


_JOINED: AbstractContextManager[None] = nullcontext()
