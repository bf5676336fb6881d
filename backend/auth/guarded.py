"""A service that is held to a decision: the whole protocol, for one who may do some of it.

Whatever is asked for is looked up as it is stored now, and decided by that and not by what a request says of it. What
is changed must be allowed as it was and as it becomes, so that nobody moves an object into or out of what is theirs;
what it refers to anew must be visible. What may not be seen does not exist: see `backend.auth.guard`. Names are shared
by all: that one is taken by somebody else is all that a conflict tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from backend.auth.guarded_changes import GuardedChanges, head_of
from backend.auth.hiding import hide_in_document
from backend.model.actions import ACTIONS
from backend.model.documents import Document
from backend.model.kinds import IMAGE, NETWORK, OPERATION, VM
from backend.service import Accepted, Adoption, ConsoleStream, Finding, Service

if TYPE_CHECKING:
    from pathlib import Path

    from backend.model.upkeep import Compaction, Fault

_POWER: Final = {"start": "running", "stop": "stopped", "pause": "paused", "resume": "running"}


class GuardedService(GuardedChanges):
    """`inner`, as `actor` may use it by a decision; see the module.

    It is cheap to make: one serves one request. Closing it closes the inner one, so whoever shares that does not.
    """

    # --- verbs
    def act(self, name: str, action: str, parameters: dict[str, Any] | None = None, *, key: str = "") -> Accepted:
        """Do something to a VM; `vm.ACTION` must be allowed on it before and after. See the protocol."""
        live = self.find(VM, name)
        if action in ACTIONS["vm"]:
            self.check_allowed(action, live)
            if action in _POWER:
                self.check_allowed(action, {**live, "spec": {**live["spec"], "power": _POWER[action]}})
            if action == "restore-snapshot" and not self.may_everything:
                self._check_snapshot(live, str((parameters or {}).get("snapshot", "")))
        with self.calling(name, action, parameters, key):
            return self.show_accepted(self.inner.act(name, action, parameters, key=self.own_key(key)), key)

    def _check_snapshot(self, live: Document, snapshot: str) -> None:
        """Raise KCErrors where a VM may not become what it was when a snapshot was taken."""
        with self.calling(live["name"], snapshot):
            status = self.inner.get(VM.name, live["name"]).get("status", {})
        version = next((each["version"] for each in status.get("snapshots", ()) if each["name"] == snapshot), None)
        kept = self.inner.history(VM.name, live["name"]) if version is not None else []
        old = next((entry.document for entry in kept if entry.version == version), None)
        if old is not None:
            # Name and metadata stay as they are.
            self.check_old("restore-snapshot", VM, live, {**live, "spec": old["spec"]})

    def act_on_network(self, name: str, action: str, *, key: str = "") -> Accepted:
        """Do something to a network; `network.ACTION` must be allowed on it. See the protocol."""
        live = self.find(NETWORK, name)
        if action in ACTIONS["network"]:
            self.check_allowed(action, live)
        with self.calling(name, action, key):
            return self.show_accepted(self.inner.act_on_network(name, action, key=self.own_key(key)), key)

    def clone(
        self, name: str, new_name: str, *, metadata: Document | None = None, start: bool = False, key: str = ""
    ) -> Accepted:
        """Make a VM like another; `vm.clone` must be allowed on that, `vm.create` on the new one. See the protocol."""
        source = self.demand(VM, name, "clone")
        spec = {**source["spec"], "power": "running" if start else "stopped", "hidden": False}
        made = {**head_of(VM, new_name), "metadata": source["metadata"] if metadata is None else metadata, "spec": spec}
        self.check_allowed("create", made)
        self.check_content(VM, made, None)
        with self.calling(name, new_name, metadata, key):
            accepted = self.inner.clone(name, new_name, metadata=metadata, start=start, key=self.own_key(key))
            return self.show_accepted(accepted, key)

    def rename(self, name: str, new_name: str, *, if_version: int | None = None) -> Accepted:
        """Give a VM another name; `vm.rename` must be allowed under both. See the protocol."""
        live = self.demand(VM, name, "rename")
        renamed = {**live, "name": new_name}
        self.check_allowed("rename", renamed)
        self.check_gain("rename", live, renamed)
        with self.calling(name, new_name):
            return self.show_accepted(self.inner.rename(name, new_name, if_version=if_version))

    def preview_adoption(self, domain: str, *, name: str = "") -> Adoption:
        """Return what `adopt` would do; foreign domains are nobody's, so it takes `vm.adopt` on everything."""
        self.demand_all("vm.adopt")
        with self.calling(domain, name):
            return self.inner.preview_adoption(domain, name=name)

    def adopt(self, domain: str, *, name: str = "", metadata: Document | None = None) -> Accepted:
        """Take a foreign domain under management; it takes `vm.adopt` on everything. See the protocol."""
        self.demand_all("vm.adopt")
        with self.calling(domain, name, metadata):
            return self.show_accepted(self.inner.adopt(domain, name=name, metadata=metadata))

    def upload_image(
        self,
        name: str,
        path: Path,
        *,
        metadata: Document,
        declared: dict[str, str],
        sent: Callable[[int, int], None] | None = None,
    ) -> Accepted:
        """Take the image in a local file; `image.upload` must be allowed on its name and metadata. See the protocol."""
        self.check_allowed("upload", {**head_of(IMAGE, name), "metadata": metadata})
        with self.calling(name, metadata, declared, str(path)):
            return self.show_accepted(
                self.inner.upload_image(name, path, metadata=metadata, declared=declared, sent=sent)
            )

    def cancel(self, operation: str) -> Document:
        """End an operation; for whoever has `op.cancel` on it, or could begin it anew. See the protocol."""
        self.demand(OPERATION, operation, "cancel")
        with self.calling(operation):
            return hide_in_document(self, self.inner.cancel(operation))

    # --- consoles
    def console(self, name: str) -> ConsoleStream:
        """Open a VM's serial console; it takes `vm.console`."""
        self.demand(VM, name, "console")
        with self.calling(name):
            return self.inner.console(name)

    def console_log(self, name: str, *, limit_bytes: int = 1 << 20) -> bytes:
        """Return the last of what a VM's console has said; it takes `vm.console`."""
        self.demand(VM, name, "console")
        with self.calling(name):
            return self.inner.console_log(name, limit_bytes=limit_bytes)

    def display(self, name: str) -> ConsoleStream:
        """Open a VM's screen; it takes `vm.display`."""
        self.demand(VM, name, "display")
        with self.calling(name):
            return self.inner.display(name)

    def screenshot(self, name: str) -> bytes:
        """Return a picture of a VM's screen as PNG; it takes `vm.display`."""
        self.demand(VM, name, "display")
        with self.calling(name):
            return self.inner.screenshot(name)

    # --- the whole; a selector says nothing of it, so none may stand with the right
    def resume(self, *, wait: bool = True, report: Callable[[str], None] | None = None) -> int:
        """Take up what an earlier process left; for whoever may do everything, and nothing happens for others."""
        return self.inner.resume(wait=wait, report=report) if self.may_everything else 0

    def initialise(self, report: Callable[[str], None]) -> list[str]:
        """Make what a newcomer needs; it takes `host.init`."""
        self.demand_all("host.init")
        with self.calling():
            return self.inner.initialise(report)

    def diagnose(self) -> list[Finding]:
        """Return what works here and what does not; it takes `host.read`."""
        self.demand_all("host.read")
        with self.calling():
            return self.inner.diagnose()

    def export(self) -> Iterator[Document]:
        """Yield the whole store, history included; it takes `store.export`."""
        self.demand_all("store.export")
        return self.inner.export()

    def load(self, records: Iterable[Document]) -> int:
        """Take an export into an empty store; it takes `store.import`."""
        self.demand_all("store.import")
        with self.calling():
            return self.inner.load(records)

    def check_store(self, *, repair: bool = False) -> list[Fault]:
        """Verify the store; it takes `store.check`."""
        self.demand_all("store.check")
        with self.calling():
            return self.inner.check_store(repair=repair)

    def compact_store(self) -> Compaction:
        """Drop the history that is to be kept no longer; it takes `store.compact`."""
        self.demand_all("store.compact")
        with self.calling():
            return self.inner.compact_store()

    def copy_store(self, source: str, target: str) -> int:
        """Copy all of one store into another; it takes `store.copy`."""
        self.demand_all("store.copy")
        with self.calling(source, target):
            return self.inner.copy_store(source, target)

    def close(self) -> None:
        """Close the inner service."""
        self.inner.close()


if TYPE_CHECKING:

    def _conforms(service: GuardedService) -> Service:
        return service
