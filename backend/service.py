"""The one protocol that the terminal application and the command line speak.

`backend.local.LocalService` runs in process, `backend.remote.RemoteService` speaks HTTP, and
`backend.auth.guarded.GuardedService` holds either to what somebody may do. All calls block and may be made from any
thread; documents are plain JSON values (`backend.model.documents`); every error is a `backend.errors.KCError`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from backend.model.documents import Document

if TYPE_CHECKING:
    from pathlib import Path

    from backend.model.changes import Change
    from backend.model.samples import Sample
    from backend.model.upkeep import Compaction, Fault

FILTERED: Final = "only what may be seen with this credential is listed"
"""The warning of a list that is `filtered`, for whoever shows warnings alone."""


class DocumentPage(NamedTuple):
    """One page of a list.

    `warnings` are lines for a person: a hypervisor that did not answer, say. `next` is the cursor of the next page.
    `filtered` says that there may be more than whoever asked is allowed to see.
    """

    items: list[Document]
    next: str
    revision: int
    warnings: list[str]
    filtered: bool = False


class Accepted(NamedTuple):
    """What a change made: the document as it now is, and the operation that brings the world to it (or None)."""

    document: Document
    operation: Document | None


class Version(NamedTuple):
    """One kept version of a document: when (RFC 3339), who, why; `document` is None where it was deleted."""

    version: int
    at: str
    by: str
    message: str
    document: Document | None


class Preview(NamedTuple):
    """What writing a document would do; `before` is None where it would make a new object.

    `after` is the whole document as it would be written, `changes` the difference in metadata and spec, `effects` what
    becomes of the object on the host, in lines for a person; `cuts` names the running VMs that are without a line for
    a moment, of which a person is asked.
    """

    before: Document | None
    after: Document
    changes: list[Change]
    effects: list[str]
    cuts: tuple[str, ...] = ()


class Event(NamedTuple):
    """One change: `type` is `created`, `updated`, `status` or `deleted`; `revision` resumes the feed after it.

    With a selector, `left` says that a document matches no more.
    """

    revision: int
    type: str
    document: Document


class Adoption(NamedTuple):
    """What adopting a domain would do: the document, what KC would manage and what it would leave, in lines."""

    document: Document
    managed: list[str]
    untouched: list[str]


class Finding(NamedTuple):
    """One line of a diagnosis: `state` is `ok`, `warning` or `failed`; `mend` is the command that mends it."""

    check: str
    state: str
    message: str
    mend: str


class Access(NamedTuple):
    """Who the service takes the caller for, and what they may do: pairs of actions and selector (empty: all objects).

    `expires_at` is RFC 3339, empty where it does not end.
    """

    subject: str
    groups: tuple[str, ...]
    scopes: tuple[tuple[tuple[str, ...], str], ...]
    expires_at: str = ""


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
        (`status.foreign`, version 0, after the others). `everything` adds hidden objects. `after` is a page's `next`;
        where no live states of VMs are asked for it may be any name, to go on behind.
        """

    def get(self, kind: str, name: str, *, observe: bool = True, version: int | None = None) -> Document:
        """Return one document; raise NotFoundError.

        An observed VM has its addresses from the guest agent too, `status.drift` (what somebody else changed, a list of
        `{"path", "wanted", "found"}`), `status.disks` (`id`, `sizeBytes`, `usedBytes`), `status.snapshots`,
        `status.display` (the address of its screen), and `status.newerType` where its machine type has a newer version.

        With `version`, that version as it was, without a status; also of a deleted object.
        """

    def history(self, kind: str, name: str) -> list[Version]:
        """Return the kept versions of an object, the oldest first; also of the one of that name deleted last."""

    def create(self, document: Document, *, key: str = "") -> Accepted:
        """Accept a new document (`kind`, `name`, `metadata`, `spec`); names taken raise ConflictError.

        `key` is an idempotency key of the caller's: for a week the same call with the same key (also `update`,
        `delete`, `act`, `clone`) gives what the first one gave and does nothing; another call with it raises
        ConflictError.
        """

    def check(self, document: Document) -> Document:
        """Return the document that `create` would accept, with references pinned; write nothing, touch nothing."""

    def update(
        self, document: Document, *, if_version: int | None = None, message: str = "", key: str = ""
    ) -> Accepted:
        """Accept another `metadata` and `spec` for the object of that kind and name; one that is left out stays.

        `if_version`, or else the document's own `version`, must be the current one; else ConflictError (details:
        `current`, the version). What KC filled in (uids, ids and MACs of NICs) is taken over where it is left out. What
        cannot change raises RefusedError. Nothing new makes no version and no operation.
        """

    def preview(self, document: Document) -> Preview:
        """Return what `create` or `update` would do with a document; raise what they would; write nothing."""

    def rollback(
        self, kind: str, name: str, version: int, *, if_version: int | None = None, message: str = ""
    ) -> Accepted:
        """Write a new version with the metadata and spec of an old one, and bring the object on the host to it."""

    def undo(self, kind: str, name: str, *, if_version: int | None = None) -> Accepted:
        """Take the newest change back: a new version that is as the one before it; done twice, it is a redo.

        Raises ConflictError where there is but one version.
        """

    def restore(self, kind: str, name: str, *, uid: str = "", new_disks: bool = False) -> Accepted:
        """Bring a deleted object back, of several of that name the one deleted last, or that of `uid`.

        A VM comes back with its disks, to the power it had. Where they are gone already it raises ConflictError, unless
        `new_disks` asks for new ones from its image.
        """

    def delete(
        self,
        kind: str,
        name: str,
        *,
        if_version: int | None = None,
        keep_disks: bool = False,
        now: bool = False,
        message: str = "",
        key: str = "",
    ) -> Accepted:
        """Delete an object; one in use raises ConflictError.

        It goes to the trash (kind `Trash`): until its grace time has passed `restore` brings it back, a VM with its
        disks. `now` skips that; `keep_disks` leaves a VM's disks in the pool for good.
        """

    def empty_trash(self, names: Sequence[str] | None = None) -> list[Accepted]:
        """Remove deleted objects for good: those of these names (of `Trash` documents), or all."""

    def act(self, name: str, action: str, parameters: dict[str, Any] | None = None, *, key: str = "") -> Accepted:
        """Do something to a VM; nothing to do gives an operation of None.

        `start`, `stop` and `reboot` (`{"force": bool}`), `pause`, `resume`; `reconcile`: make the host match the
        document again; `snapshot` (`{"snapshot": NAME, "description": TEXT}`, both optional), `restore-snapshot` and
        `delete-snapshot` (`{"snapshot": NAME}`). A VM's `status.snapshots` lists what there is (`name`, `at`,
        `version`, `hasMemory`, `method`, `description`). Restoring one brings the document back to the version that it
        was taken at, too, as a new version.
        """

    def act_on_network(self, name: str, action: str, *, key: str = "") -> Accepted:
        """Do something to a network: `reconcile` brings the host's segment back to what the document says."""

    def clone(
        self,
        name: str,
        new_name: str,
        *,
        metadata: Document | None = None,
        start: bool = False,
        key: str = "",
    ) -> Accepted:
        """Make a VM like another, with copies of its disks: new uid, MACs, host name and instance-id.

        It has the other's metadata where none is given. Static addresses are refused: two guests cannot have them.
        """

    def rename(self, name: str, new_name: str, *, if_version: int | None = None) -> Accepted:
        """Give a VM another name; a domain that runs keeps its own until its next start (`status.pendingRestart`)."""

    def preview_adoption(self, domain: str, *, name: str = "") -> Adoption:
        """Return what `adopt` would do with a foreign domain (by name or uuid); raise what it would; write nothing."""

    def adopt(self, domain: str, *, name: str = "", metadata: Document | None = None) -> Accepted:
        """Take a foreign domain under management; networks that it is on become documents where they are none.

        Its disks, firmware and other devices stay as they are, whatever becomes of the VM: deleting it leaves the
        domain to libvirt.
        """

    def upload_image(
        self,
        name: str,
        path: Path,
        *,
        metadata: Document,
        declared: dict[str, str],
        sent: Callable[[int, int], None] | None = None,
    ) -> Accepted:
        """Take the image in a local file: inspect, hash, store; `declared` has `format`, `arch`, `sha256`, where known.

        `sent` is told of bytes sent and of all, where they go over a network first; an upload that was cut goes on
        where it was when the same is asked again.

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

    def watch(
        self, kinds: Sequence[str] = (), *, since: int | None = None, selector: str = ""
    ) -> Iterator[Event | None]:
        """Yield changes after revision `since` (now by default), live states included; None at least every second.

        Each stored change comes once and in order; raises ConflictError (detail `compacted`) where `since` is too old.
        """

    def console(self, name: str) -> ConsoleStream:
        """Open a VM's serial console; what it has said so far comes first."""

    def console_log(self, name: str, *, limit_bytes: int = 1 << 20) -> bytes:
        """Return the last of what a VM's console has said."""

    def display(self, name: str) -> ConsoleStream:
        """Open a VM's screen: the bytes of the VNC protocol, several viewers at once."""

    def screenshot(self, name: str) -> bytes:
        """Return a picture of a VM's screen as PNG; raise ConflictError for one that is off or has none."""

    def schema(self, kind: str) -> dict[str, Any]:
        """Return the JSON Schema of a kind's documents."""

    def initialise(self, report: Callable[[str], None]) -> list[str]:
        """Make the default network, machine types and starter image where they are missing; return what was made."""

    def diagnose(self) -> list[Finding]:
        """Return what works here and what does not; change nothing."""

    def access(self) -> Access:
        """Return who the caller is to this service, and what they may do."""

    def list_audit(self, *, selector: str = "", limit: int | None = None, after: str = "") -> DocumentPage:
        """Return entries of the audit trail, the newest first; a bare key of the selector is a field of an entry.

        An item is `{"kind": "Audit", "name": ID, "metadata": ENTRY}`; see `backend.audit`.
        """

    # --- the store as a whole
    def export(self) -> Iterator[Document]:
        """Yield the whole store, history included, as JSON objects, from one moment."""

    def load(self, records: Iterable[Document]) -> int:
        """Take an export into an empty store, all or nothing; return the number of its entries."""

    def check_store(self, *, repair: bool = False) -> list[Fault]:
        """Verify the store; with `repair` make again what follows from its versions."""

    def compact_store(self) -> Compaction:
        """Drop the history that is to be kept no longer, and give its room back."""

    def copy_store(self, source: str, target: str) -> int:
        """Copy all of one store (`tinydb:PATH`, `etcd://…`) into another, which must be empty; return the entries."""

    def close(self) -> None:
        """Let go of everything; operations that still run are left to the next KC process."""
