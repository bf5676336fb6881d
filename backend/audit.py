"""The audit trail: who asked for what, and what became of it, as lines of JSON that are only ever appended.

Entries stand in segments, `DATA/audit/NNNNNN.jsonl`: a process appends to the newest and begins the next one once that
is full, several processes side by side. KC rewrites and removes none; whoever needs the room moves old ones away. An
entry is one write(2) to a file that is open for appending, so entries of several processes never mix; what a crash left
of one is passed over. Its id says where it stands: it is unique, and sorts as entries were written, as long as the
newest segment stays where it is.

What changes something is on the disk before the change is made: the trail may tell of a change that failed in that very
moment, it never lacks one. All else is written within 0.2 s, and lost where the process is killed before.
"""

from __future__ import annotations

import json
import math
import os
import re
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from backend.errors import FailedError, KCError, RefusedError
from backend.model.documents import Document, format_time
from backend.paths import make_private
from backend.service import DocumentPage
from backend.text import sanitise

if TYPE_CHECKING:
    from backend.model.selectors import Selector

SEGMENT_BYTES: Final = 16 << 20
FLUSH_SECONDS: Final = 0.2
_LONGEST_FIELD: Final = 300
_LONGEST_LINE: Final = 16 << 10
_MOST_FIELDS: Final = 40
_MOST_ITEMS: Final = 50
_DEEPEST: Final = 3
_MOST_WAITING: Final = 10_000
_BLOCK: Final = 64 << 10
_SEGMENT: Final = re.compile(r"(\d{6,})\.jsonl")
_ID: Final = re.compile(r"(\d{1,12})-(\d{1,15})")


class AuditTrail:
    """The trail in a folder, which is made at the first entry; for use from several threads."""

    def __init__(self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.folder = folder
        self._segment_bytes = segment_bytes
        self._waiting: deque[bytes] = deque()
        self._lost = 0
        # Whoever records what needs no disk never waits for one: this lock is held by those who write alone.
        self._writing = threading.Lock()
        self._starting = threading.Lock()
        self._closing = threading.Event()
        self._flusher: threading.Thread | None = None
        self._number = 0
        self._descriptor = -1
        self._torn = False

    def record(self, entry: Mapping[str, Any], *, durable: bool) -> None:
        """Append an entry, with the time as `at`; fields are sanitised and bounded.

        With `durable` it is on the disk when this returns; raises FailedError where it cannot be. Without, it never
        waits and never fails: what cannot be written is counted, and told by an entry (`event` `lost`) once it can.
        """
        line = _encode(entry)
        if durable:
            with self._writing:
                self._write_waiting()
                self._append(line)
                self._sync()
            return
        while len(self._waiting) >= _MOST_WAITING:
            self._waiting.popleft()
            self._lost += 1
        self._waiting.append(line)
        if self._flusher is None:
            self._start_flusher()

    def flush(self) -> None:
        """Write what waits; raise FailedError where that cannot be."""
        with self._writing:
            self._write_waiting()

    def close(self) -> None:
        """Write what waits, and let go of the file; a second call does nothing."""
        with self._starting:
            flusher, self._flusher = self._flusher, None
        if flusher is not None:
            self._closing.set()
            flusher.join()
            self._closing.clear()
        try:
            self.flush()
        finally:
            with self._writing:
                self._let_go()

    def read(self, selector: str = "", limit: int | None = None, after: str = "") -> DocumentPage:
        """Return entries that a selector takes, the newest first, those before the entry of id `after`.

        An item is `{"kind": "Audit", "name": ID, "metadata": ENTRY}`; see `is_chosen`. Raises RefusedError for
        a selector or an id that is none.
        """
        from backend.model.selectors import parse  # noqa: PLC0415 - whoever writes needs none

        wanted = parse(selector)
        place = _ID.fullmatch(after)
        if after and place is None:
            raise RefusedError(f"cursor {sanitise(after, 40)!r}", "it is none of the audit trail's", "begin anew")
        items: list[Document] = []
        damaged = 0
        lines = _read_backwards(self.folder, (int(place[1]), int(place[2])) if place else None)
        for number, offset, line in lines:
            if not all(any(needle in line for needle in needles) for needles in wanted.needles):
                continue
            entry = _decode(line)
            if entry is None:
                damaged += 1
                continue
            item = {"kind": "Audit", "name": f"{number:06d}-{offset:09d}", "metadata": entry}
            if not is_chosen(wanted, item):
                continue
            if limit is not None and len(items) >= limit:
                return DocumentPage(items, items[-1]["name"] if items else after, 0, _warn(damaged))
            items.append(item)
        return DocumentPage(items, "", 0, _warn(damaged))

    # --- writing; all with the lock held

    def _write_waiting(self) -> None:
        if self._lost:
            self._append(_encode({"event": "lost", "count": self._lost}))
            self._lost = 0
        while self._waiting:
            self._append(self._waiting[0])
            self._waiting.popleft()

    def _append(self, line: bytes) -> None:
        try:
            self._open_segment()
            # What a crash, or a full disk, left of an entry is not to take this one with it.
            data = b"\n" + line if self._torn else line
            self._torn = os.write(self._descriptor, data) < len(data)
        except OSError as error:
            self._let_go()
            raise self._fault(error.strerror or str(error)) from error
        if self._torn:
            raise self._fault("no room left on its disk")

    def _sync(self) -> None:
        try:
            os.fdatasync(self._descriptor)
        except OSError as error:
            self._let_go()
            raise self._fault(error.strerror or str(error)) from error

    def _fault(self, why: str) -> FailedError:
        hint = "nothing is changed that cannot be audited: make room there"
        return FailedError(f"audit trail {self.folder}", sanitise(why, 200).lower(), hint)

    def _open_segment(self) -> None:
        """Have the newest segment open that is not full; another one where this one is, or was moved away."""
        if self._descriptor >= 0:
            status = os.fstat(self._descriptor)
            if status.st_size < self._segment_bytes and self._is_in_place(status):
                return
            self._let_go()
            self._number += 1
        else:
            self._number = max(_list_segments(self.folder), default=1)
        make_private(self.folder)
        while True:
            path = _segment(self.folder, self._number)
            is_new = not path.exists()
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._descriptor = os.open(path, flags, 0o600)
            size = os.fstat(self._descriptor).st_size
            if size < self._segment_bytes:
                break
            self._let_go()
            self._number += 1
        self._torn = bool(size) and os.pread(self._descriptor, 1, size - 1) != b"\n"
        if is_new:
            _sync_folder(self.folder)

    def _is_in_place(self, status: os.stat_result) -> bool:
        try:
            return os.path.samestat(status, _segment(self.folder, self._number).stat())
        except FileNotFoundError:
            return False

    def _let_go(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _start_flusher(self) -> None:
        with self._starting:
            if self._flusher is None:
                self._flusher = threading.Thread(target=self._flush_often, name="kc-audit", daemon=True)
                self._flusher.start()

    def _flush_often(self) -> None:
        while not self._closing.wait(FLUSH_SECONDS):
            try:
                self.flush()
            except KCError:
                continue  # it stays waiting; what changes something meets the same fault, and tells


def is_chosen(selector: Selector, item: Document) -> bool:
    """Return whether a selector takes an entry: a bare key is one of its fields, `kind`, `name` and `uid` too."""
    entry = item["metadata"]
    return selector.holds({**entry, "metadata": entry})


def _segment(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.jsonl"


def _list_segments(folder: Path) -> list[int]:
    """Return the numbers of the segments that there are, in order."""
    try:
        names = [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return []
    return sorted(int(found[1]) for name in names if (found := _SEGMENT.fullmatch(name)))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _encode(entry: Mapping[str, Any]) -> bytes:
    fields = {"at": format_time(), **_bound(dict(entry), _DEEPEST)}
    line = _dump(fields)
    if len(line) > _LONGEST_LINE:  # lists and objects give way before what they belong to
        line = _dump({key: value for key, value in fields.items() if not isinstance(value, (dict, list))})
    return line


def _dump(fields: Document) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _bound(value: Any, depth: int) -> Any:
    """Return a value as JSON that is neither long nor deep, and that no terminal takes for a command."""
    if isinstance(value, str):
        return sanitise(value, _LONGEST_FIELD)
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if depth and isinstance(value, dict):
        pairs = list(value.items())[:_MOST_FIELDS]
        return {sanitise(key, 60): _bound(item, depth - 1) for key, item in pairs}
    if depth and isinstance(value, (list, tuple)):
        return [_bound(item, depth - 1) for item in value[:_MOST_ITEMS]]
    return sanitise(value, _LONGEST_FIELD)


def _decode(line: bytes) -> Document | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _warn(damaged: int) -> list[str]:
    if not damaged:
        return []
    return ["a line of the audit trail is damaged" if damaged == 1 else f"{damaged} lines of the trail are damaged"]


def _read_backwards(folder: Path, before: tuple[int, int] | None) -> Iterator[tuple[int, int, bytes]]:
    """Yield segment, offset and text of each line, the last one first, those before a place."""
    for number in reversed(_list_segments(folder)):
        if before is not None and number > before[0]:
            continue
        end = before[1] if before is not None and number == before[0] else None
        try:
            with _segment(folder, number).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                for offset, line in _lines_backwards(file.fileno(), size if end is None else min(end, size)):
                    yield number, offset, line
        except FileNotFoundError:
            continue  # moved away meanwhile


def _lines_backwards(descriptor: int, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield offset and text of the lines that end before `end`, the last first, with two blocks in memory at most.

    What has no end yet is still being written, or never will be; empty lines and ones longer than any entry are left
    out.
    """
    rest = b""
    ended = False
    at = end
    while at > 0:
        start = max(0, at - _BLOCK)
        block = os.pread(descriptor, at - start, start) + rest
        if not ended:
            block = block[: block.rfind(b"\n") + 1]
            ended = bool(block)
        at = start
        lines = block.split(b"\n")
        # The first one may begin in the block before.
        rest = lines.pop(0) if at else b""
        offset = at + len(block)
        for line in reversed(lines):
            offset -= len(line)
            if line:
                yield offset, line
            offset -= 1
        if len(rest) > _BLOCK:
            rest, ended = b"", False
