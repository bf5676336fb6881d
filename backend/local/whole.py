"""What concerns a KC as a whole: its health, its store, who may do what, and who has done what."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from backend.actor import current_actor
from backend.local.operating import OperatingHome
from backend.service import Access

if TYPE_CHECKING:
    from backend.model.documents import Document
    from backend.model.upkeep import Compaction, Fault
    from backend.service import DocumentPage, Finding


class WholeHome(OperatingHome):
    """The part of the service that is about no single object."""

    def diagnose(self) -> list[Finding]:
        """Return what works here and what does not."""
        from backend.local.doctor import diagnose  # noqa: PLC0415

        return diagnose(self.store, self.hypervisor, self.settings)

    def export(self) -> Iterator[Document]:
        """Yield the whole store, history included."""
        return self.store.dump()

    def load(self, records: Iterable[Document]) -> int:
        """Take an export into an empty store."""
        from backend.local.importing import check_records  # noqa: PLC0415 - pydantic

        self.audit_call("store.import")
        return self.store.load(check_records(records))

    def check_store(self, *, repair: bool = False) -> list[Fault]:
        """Verify the store."""
        if repair:
            self.audit_call("store.check", parameters={"repair": True})
        return self.store.check(repair=repair)

    def compact_store(self) -> Compaction:
        """Drop the history that is to be kept no longer."""
        self.audit_call("store.compact")
        return self.store.compact()

    def copy_store(self, source: str, target: str) -> int:
        """Copy all of one store into another, which must be empty."""
        from backend.store.opening import open_store  # noqa: PLC0415 - another store than this one's

        self.audit_call("store.copy", parameters={"source": source, "target": target})
        retentions, etcd = self.settings.retentions, self.settings.etcd
        with (
            closing(open_store(source, create=False, retentions=retentions, etcd=etcd)) as old,
            closing(open_store(target, retentions=retentions, etcd=etcd)) as new,
        ):
            return new.load(old.dump())

    def access(self) -> Access:
        """Return who the caller is: whoever runs this process may do everything."""
        return Access(current_actor().subject, (), ((("*",), ""),))

    def list_audit(self, *, selector: str = "", limit: int | None = None, after: str = "") -> DocumentPage:
        """Return entries of the audit trail, the newest first; see the protocol."""
        return self.audit.read(selector, limit, after)
