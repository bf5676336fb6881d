"""The one protocol that the terminal application and the command line speak.

`backend.local.LocalService` runs in process; a remote one speaks HTTP. All calls block and may be made from any
thread; documents are plain JSON values (`backend.model.documents`); every error is a `backend.errors.KCError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from backend.model.documents import Document

if TYPE_CHECKING:
    from pathlib import Path

    from backend.hypervisor.plan import Sample


class DocumentPage(NamedTuple):
    """One page of a list.

    `warnings` are lines for a person: a hypervisor that did not answer, say. `next` is the cursor of the next page.
    """

    items: list[Document]
    next: str
    revision: int
    warnings: list[str]


class Accepted(NamedTuple):
    """What a change made: the document as it now is, and the operation that brings the world to it (or None)."""

    document: Document
    operation: Document | None


class Event(NamedTuple):
    """One change: `type` is `created`, `updated`, `status` or `deleted`; `revision` resumes the feed after it."""

    revision: int
    type: str
    document: Document


class Finding(NamedTuple):
    """One line of a diagnosis: `state` is `ok`, `warning` or `failed`; `mend` is the command that mends it."""

    check: str
    state: str
    message: str
    mend: str


class ConsoleStream(Protocol):
    """A serial console: bytes both ways; one reader at a time."""

    def read(self, timeout: float) -> bytes | None:
        """Return the next bytes, b"" at the end of the stream, None when `timeout` seconds brought nothing."""

    def write(self, data: bytes) -> None:
        """Send keys to the guest."""

    def close(self) -> None:
        """End the stream; a second call does nothing, and a blocked `read` returns b""."""


Progress = Callable[[Document], None]
"""Called with the operation's document each time that it moved."""


class Service(Protocol):
    """Everything that KC can do."""

    def list_documents(
        self,
        kind: str,
        *,
        selector: str = "",
        limit: int | None = None,
        after: str = "",
        everything: bool = False,
        observe: bool = True,
    ) -> DocumentPage:
        """Return documents of a kind in the order of their names.

        `observe` asks the hypervisor for the live state (bounded by a deadline; stale states are marked
        `status.stale`); without it the answer comes from the store alone. VMs include the host's foreign domains
        (`status.foreign`, version 0, after the others). `everything` adds hidden objects.
        """

    def get(self, kind: str, name: str, *, observe: bool = True) -> Document:
        """Return one document; raise NotFoundError. An observed VM has its addresses from the guest agent too."""

    def create(self, document: Document) -> Accepted:
        """Accept a new document (`kind`, `name`, `metadata`, `spec`); names taken raise ConflictError."""

    def check(self, document: Document) -> Document:
        """Return the document that `create` would accept, with references pinned; write nothing, touch nothing."""

    def delete(self, kind: str, name: str, *, if_version: int | None = None, keep_disks: bool = False) -> Accepted:
        """Delete an object and what it has on the host; an object in use raises ConflictError."""

    def act(self, name: str, action: str, parameters: dict[str, Any] | None = None) -> Accepted:
        """Do `start`, `stop` (`{"force": bool}`) or `reboot` to a VM; nothing to do gives an operation of None."""

    def upload_image(self, name: str, path: Path, *, metadata: Document, declared: dict[str, str]) -> Accepted:
        """Take the image in a local file: inspect, hash, store; `declared` has `format`, `arch`, `sha256`, where known.

        Raises RefusedError for an unsafe image or one that is not what was declared; the bytes move in the operation.
        """

    def wait(self, operation: str, *, timeout: float | None = None, progress: Progress | None = None) -> Document:
        """Return the operation's document once it ended, however it ended; raise TimedOutError."""

    def wait_until(self, name: str, state: str, *, timeout: float, progress: Progress | None = None) -> Document:
        """Return the VM's document once it is `running` or `ready`; raise TimedOutError, FailedError."""

    def cancel(self, operation: str) -> Document:
        """Ask an operation to end and undo itself; return its document."""

    def resume(self, *, wait: bool = True, report: Callable[[str], None] | None = None) -> int:
        """Take up what an earlier process left unfinished; return how many operations that were.

        With `wait`, return once they ended, or once the hypervisor turned out not to answer.
        """

    def samples(self) -> list[Sample]:
        """Return the counters of all domains, by one bulk call that waits for no stuck one."""

    def watch(self, kinds: Sequence[str] = (), *, since: int | None = None) -> Iterator[Event | None]:
        """Yield changes after revision `since` (now by default), live states included; None at least every second."""

    def console(self, name: str) -> ConsoleStream:
        """Open a VM's serial console; what it has said so far comes first."""

    def console_log(self, name: str, *, limit_bytes: int = 1 << 20) -> bytes:
        """Return the last of what a VM's console has said."""

    def schema(self, kind: str) -> dict[str, Any]:
        """Return the JSON Schema of a kind's documents."""

    def initialise(self, report: Callable[[str], None]) -> list[str]:
        """Make the default network, machine types and starter image where they are missing; return what was made."""

    def diagnose(self) -> list[Finding]:
        """Return what works here and what does not; change nothing."""

    def close(self) -> None:
        """Let go of everything; operations that still run are left to the next KC process."""
