"""Uploads on their way: a file that grows and a description beside it, in a folder outside every storage pool.

What is on disk is the state: the size of the file is how far an upload has come, the kernel's lock on it says that
somebody writes, and its last change says when it was touched. So a server that was killed, or a second one on the same
folder, knows as much as this one. A file whose bytes are all there is not done before its image was accepted: until
then its last byte is asked for again, and with it the acceptance.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from backend.api.problems import HttpError
from backend.api.writing import Writer
from backend.errors import ConflictError, FailedError, KCError, NotFoundError
from backend.model.kinds import OPERATION
from backend.operations.journal import ENDED
from backend.paths import make_private, write_atomically

if TYPE_CHECKING:
    from backend.model.documents import Document
    from backend.service import Service

KEPT_SECONDS: Final = 24 * 3600.0
LARGEST_BYTES: Final = 1 << 40
MAXIMUM_EACH: Final = 64
# So much is left free for everything else: the store is on the same disk.
SPARE_BYTES: Final = 256 << 20
_IDENTITY: Final = re.compile(r"[0-9a-f]{32}")

_log = logging.getLogger("kc.api")


@dataclass(frozen=True, slots=True)
class Upload:
    """What is known of an upload beside its bytes; times are Unix seconds.

    `told` is Upload-Metadata as the client sent it. `unverified` is where bytes begin whose checksum is not known yet,
    -1 for none; `operation` the one that stores the image, once it was accepted.
    """

    identity: str
    owner: str
    length: int
    name: str
    metadata: Document
    declared: dict[str, str] = field(default_factory=dict)
    told: str = ""
    unverified: int = -1
    operation: str = ""


class Staging:
    """The folder of uploads; every method blocks, and any thread may call."""

    def __init__(self, folder: Path, service: Service, *, kept_seconds: float = KEPT_SECONDS) -> None:
        self.folder = folder
        self.kept_seconds = kept_seconds
        self._service = service

    def create(self, upload: Upload) -> Upload:
        """Make room for an upload and return it with an identity.

        Raises HttpError for one that is too large (413), finds no room (507), or is one too many of its owner's (429).
        """
        if upload.length > LARGEST_BYTES:
            raise HttpError(413, "upload", f"more than {LARGEST_BYTES >> 30} GiB", "make the image smaller")
        make_private(self.folder)
        made = replace(upload, identity=secrets.token_hex(16))
        with self._counting():
            self._check_room(upload)
            os.close(os.open(self.path(made), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            self._save(made)
        return made

    def find(self, identity: str, owner: str) -> Upload:
        """Return somebody's upload; raise NotFoundError, of another one's with the very same words."""
        upload = self._load(identity) if _IDENTITY.fullmatch(identity) else None
        if upload is None or upload.owner != owner:
            raise _missing()
        return upload

    def path(self, upload: Upload) -> Path:
        """Return where the bytes are."""
        return self.folder / upload.identity

    def measure(self, upload: Upload) -> int:
        """Return how far an upload has come; not to its end before its image was accepted."""
        if upload.operation:
            return upload.length
        return min(self._measure_verified(upload), upload.length - 1)

    def expires(self, upload: Upload) -> float:
        """Return when an upload that nobody touches is removed."""
        try:
            return self.path(upload).stat().st_mtime + self.kept_seconds
        except FileNotFoundError:
            return self._sidecar(upload.identity).stat().st_mtime + self.kept_seconds

    @contextmanager
    def writing(self, identity: str, owner: str) -> Iterator[tuple[Upload, Writer]]:
        """Open an upload's file at its end; raise NotFoundError, and HttpError (423) while somebody else writes."""
        with self._locked(self.find(identity, owner)) as descriptor:
            upload = self.refresh(self.find(identity, owner))
            sure = self._measure_verified(upload)
            if os.fstat(descriptor).st_size > sure:
                os.ftruncate(descriptor, sure)
            yield self.mark(upload, unverified=-1), Writer(descriptor)

    def mark(self, upload: Upload, **changes: Any) -> Upload:
        """Write down, so that it outlives this process, what has become known of an upload; return it."""
        marked = replace(upload, **changes)
        if marked != upload:
            self._save(marked)
        return marked

    def refresh(self, upload: Upload) -> Upload:
        """Return an upload with its operation, also where the server ended between its acceptance and its note."""
        if upload.operation or self._measure_verified(upload) < upload.length:
            return upload
        where = f"spec.parameters.path={json.dumps(str(self.path(upload).absolute()))}"
        found = self._service.list_documents(OPERATION.name, selector=where, limit=1).items
        return replace(upload, operation=found[0]["name"]) if found else upload

    def remove(self, upload: Upload) -> None:
        """Remove an upload; raise HttpError (423) while somebody writes, ConflictError while it is being stored."""
        if upload.operation and not self._has_ended(upload.operation):
            raise ConflictError("upload", "its image is being stored", f"kc op cancel {upload.operation}")
        try:
            with self._locked(upload):
                self.forget(upload)
        except NotFoundError:  # its bytes are gone already
            self._sidecar(upload.identity).unlink(missing_ok=True)

    def forget(self, upload: Upload) -> None:
        """Remove an upload; for whoever writes to it."""
        self.path(upload).unlink(missing_ok=True)
        self._sidecar(upload.identity).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove what nobody needs any more: stored images' bytes, and uploads that were left."""
        try:
            names = [entry.name for entry in os.scandir(self.folder)]
        except FileNotFoundError:
            return
        except OSError as error:
            _log.warning("uploads cannot be tidied up: %s", error)
            return
        for name in names:
            if _IDENTITY.fullmatch(name.removesuffix(".json")):
                try:
                    self._tidy_one(name.removesuffix(".json"))
                except (OSError, KCError) as error:
                    _log.warning("an upload cannot be tidied up: %s", error)

    def _tidy_one(self, identity: str) -> None:
        upload = self._load(identity)
        if upload is None:
            self._remove_stray(identity)
            return
        if self.path(upload).exists():
            upload = self.refresh(upload)
            if upload.operation and self._has_ended(upload.operation):
                self._keep_answer(upload)
        if self.expires(upload) < time.time() and (not upload.operation or self._has_ended(upload.operation)):
            with suppress(HttpError):  # somebody is at it
                self.remove(upload)

    def _keep_answer(self, upload: Upload) -> None:
        """Remove the bytes alone: a client that has not heard of the end may still ask."""
        with self._locked(upload):
            self._save(upload)
            self.path(upload).unlink()

    def _remove_stray(self, identity: str) -> None:
        """Remove what has no description, or one that is not to be read, once it is certain to be nobody's work."""
        for path in (self.folder / identity, self._sidecar(identity)):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime + self.kept_seconds < time.time():
                    path.unlink()

    def _has_ended(self, operation: str) -> bool:
        try:
            document = self._service.get(OPERATION.name, operation, observe=False)
        except NotFoundError:
            return True  # so long ago that it is kept no longer
        return document.get("status", {}).get("state") in ENDED

    def _measure_verified(self, upload: Upload) -> int:
        try:
            size = self.path(upload).stat().st_size
        except FileNotFoundError:
            return 0
        return min(size, upload.unverified) if upload.unverified >= 0 else size

    @contextmanager
    def _locked(self, upload: Upload) -> Iterator[int]:
        """Hold the lock of an upload's file; the kernel lets go of it however this process ends."""
        try:
            descriptor = os.open(self.path(upload), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise _missing() from None
        try:
            _lock(descriptor)
            if not os.fstat(descriptor).st_nlink:
                raise _missing()
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def _counting(self) -> Iterator[None]:
        """Have nobody else make an upload meanwhile."""
        descriptor = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _check_room(self, wanted: Upload) -> None:
        mine, promised = 0, 0
        for path in self.folder.glob("*.json"):
            upload = self._load(path.stem)
            if upload is None or upload.operation:
                continue
            mine += upload.owner == wanted.owner
            with suppress(FileNotFoundError):
                promised += max(0, upload.length - self.path(upload).stat().st_blocks * 512)
        if mine >= MAXIMUM_EACH:
            raise HttpError(429, "upload", f"you have {mine} unfinished ones", "go on with them, or delete some")
        volume = os.statvfs(self.folder)
        free = volume.f_bavail * volume.f_frsize - promised - SPARE_BYTES
        if wanted.length > free:
            raise HttpError(507, "upload", f"no room: {wanted.length >> 20} MiB wanted, {max(free, 0) >> 20} MiB free")

    def _sidecar(self, identity: str) -> Path:
        return self.folder / f"{identity}.json"

    def _save(self, upload: Upload) -> None:
        try:
            write_atomically(self._sidecar(upload.identity), json.dumps(asdict(upload)).encode())
        except OSError as error:
            raise FailedError("upload", f"cannot be noted: {error.strerror}", "is the disk full?") from error

    def _load(self, identity: str) -> Upload | None:
        try:
            return Upload(**json.loads(self._sidecar(identity).read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            return None


def _lock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise HttpError(423, "upload", "another request writes to it", "ask again when that has ended") from None


def _missing() -> NotFoundError:
    return NotFoundError("upload", "no such upload", "it may have expired; begin anew")
