"""What the hypervisor is seen to have, joined with what the documents say."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from backend.errors import KCError
from backend.hypervisor.plan import Address, ObservedDomain
from backend.local.views import running_operations, show_foreign, show_vm
from backend.model.documents import Document, is_readable
from backend.model.kinds import KINDS, NETWORK, OPERATION, VM
from backend.model.networks import libvirt_name
from backend.service import DocumentPage, Event

if TYPE_CHECKING:
    from backend.hypervisor.protocol import Hypervisor
    from backend.model.selectors import Selector
    from backend.store.protocol import Store

Predicate = Callable[[Document], bool]
TICK_SECONDS = 0.1
ADDRESS_SECONDS = 2.0
LOST_SECONDS = 2.0
PROBE_SECONDS = 3.0
# The store keeps kinds besides that nobody is shown.
KIND_NAMES = frozenset(kind.name for kind in KINDS)
# The uuid of no domain: to ask for it is the cheapest question that a host can be asked.
NOBODY = "00000000-0000-0000-0000-000000000000"


class Observer:
    """Joins documents with observations, for one process."""

    def __init__(self, store: Store, hypervisor: Hypervisor) -> None:
        self.store = store
        self.hypervisor = hypervisor
        self._networks: tuple[int, list[str]] = (-1, [])
        self._unsubscribers: dict[Callable[[str, str], None], Callable[[], None]] = {}

    def close(self) -> None:
        """End every subscription."""
        while self._unsubscribers:
            self._unsubscribers.popitem()[1]()

    def _network_names(self) -> list[str]:
        """Return the libvirt networks behind the documents; read again only after the store has moved."""
        revision = self.store.revision()
        if self._networks[0] != revision:
            names = [
                libvirt_name(network)
                for network in self.store.list_documents(NETWORK.name).items
                if is_readable(network) and not network["spec"]["uplink"].startswith("bridge:")
            ]
            self._networks = (revision, names)
        return self._networks[1]

    def _leases(self) -> dict[str, list[Address]]:
        by_mac: dict[str, list[Address]] = {}
        for lease in self.hypervisor.leases(self._network_names()):
            by_mac.setdefault(lease.mac.lower(), []).append(lease)
        return by_mac

    def list_vms(
        self, accepts: Selector | None, *, limit: int | None, after: str, everything: bool, observe: bool
    ) -> DocumentPage:
        """Return VMs with their live states; see the service's `list_documents`."""
        if not observe:
            return self._list_stored(accepts, limit=limit, after=after, everything=everything)
        # Filters speak of live states too, so they see documents as they are shown.
        stored = _stored_part(accepts)
        page = self.store.list_documents(VM.name, where=stored)
        domains, leases, warnings = self._look(page.items)
        operations = running_operations(self.store)
        shown = []
        for document in page.items:
            if document["spec"].get("hidden") and not everything:
                continue
            uid = document["uid"]
            addresses = [address for nic in _nics(document) for address in leases.get(nic["mac"], ())]
            shown.append(
                show_vm(
                    document,
                    observed=domains.get(uid) if domains is not None else None,
                    answered=domains is not None,
                    addresses=addresses,
                    operation=operations.get(uid),
                )
            )
        managed = {document["uid"] for document in page.items}
        strangers = [
            domain
            for uid, domain in (domains or {}).items()
            if uid not in managed and (stored is None or self.store.get(VM.name, uid) is None)
        ]
        shown.extend(show_foreign(domain) for domain in sorted(strangers, key=lambda domain: domain.name))
        if accepts is not None:
            shown = [document for document in shown if accepts(document)]
        items, following = _cut(shown, limit, after)
        return DocumentPage(items, following, page.revision, warnings)

    def _list_stored(
        self, accepts: Selector | None, *, limit: int | None, after: str, everything: bool
    ) -> DocumentPage:
        """Return VMs as the store has them, a page at a time however many there are."""

        def show(document: Document) -> Document:
            return show_vm(document, observed=None, answered=False, operation=operations.get(document["uid"]))

        def belongs(document: Document) -> bool:
            if document["spec"].get("hidden") and not everything:
                return False
            return accepts is None or accepts(show(document))

        operations = running_operations(self.store)
        page = self.store.list_documents(VM.name, where=belongs, limit=limit, after=after)
        return DocumentPage([show(document) for document in page.items], page.next, page.revision, [])

    def _look(
        self, documents: Sequence[Document]
    ) -> tuple[dict[str, ObservedDomain] | None, dict[str, list[Address]], list[str]]:
        try:
            domains = {domain.uid: domain for domain in self.hypervisor.inventory()}
            running = any(
                document["uid"] in domains and domains[document["uid"]].power == "running" for document in documents
            )
            return domains, self._leases() if running else {}, []
        except KCError as error:
            return None, {}, [str(error)]

    def show(self, document: Document, *, thorough: bool = False) -> Document:
        """Return one VM with its live state; `thorough` asks the guest agent and the host's neighbours too."""
        operation = running_operations(self.store).get(document["uid"])
        try:
            observed = self.hypervisor.observe(document["uid"])
            addresses: list[Address] = []
            if observed is not None and observed.power == "running":
                if thorough:
                    addresses = self.hypervisor.addresses(document["uid"])
                else:
                    leases = self._leases()
                    addresses = [found for nic in _nics(document) for found in leases.get(nic["mac"], ())]
        except KCError:
            return show_vm(document, observed=None, answered=False, operation=operation)
        return show_vm(document, observed=observed, answered=True, addresses=addresses, operation=operation)

    def find_foreign(self, name: str) -> Document | None:
        """Return the host's domain of that name that this KC does not manage, or None."""
        domain = self.hypervisor.find_domain(name)
        return None if domain is None or self.store.get(VM.name, domain.uid) is not None else show_foreign(domain)

    def is_ready(self, document: Document) -> bool:
        """Return whether a shown VM has every address it is to have, and its guest agent answers."""
        return not self.missing(document) and self.hypervisor.agent_answers(document["uid"])

    def missing(self, document: Document) -> list[str]:
        """Return the NICs that are to get an IPv4 address, or any, and have none yet."""
        have = {entry["nic"] for entry in document["status"]["addresses"]}
        return [nic["id"] for nic in _nics(document) if nic["id"] not in have and self._gets_address(nic)]

    def _gets_address(self, nic: dict[str, Any]) -> bool:
        network = self.store.get(NETWORK.name, nic["network"]["uid"])
        for family in ("ipv4", "ipv6"):
            mode = nic[family]["mode"]
            if mode == "network":
                mode = network["spec"][family]["mode"] if network is not None and is_readable(network) else "none"
            if mode == "static" and not nic[family]["address"]:
                mode = "none"
            if mode != "none":
                return True
        return False

    def why(self, document: Document) -> str:
        """Return what a shown VM still lacks to be ready."""
        if document["status"]["power"] != "running":
            return f"it is {document['status']['power']}"
        missing = self.missing(document)
        if missing:
            return f"{', '.join(missing)} has no address yet"
        return "its guest agent does not answer; has the image qemu-guest-agent?"

    def watch(
        self, kinds: Sequence[str], since: int | None, accepts: Predicate | None = None
    ) -> Iterator[Event | None]:
        """Yield changes of documents and live states, of those that `accepts` takes; see the service's `watch`."""
        events = _Watch(self, kinds, self.store.revision() if since is None else since).events()
        return events if accepts is None else self._choose(events, accepts)

    def _choose(self, events: Iterator[Event | None], accepts: Predicate) -> Iterator[Event | None]:
        """Yield the events of documents that `accepts` takes, and `left` for one that it takes no more."""
        taken: set[str] = set()
        for event in events:
            if event is None:
                yield None
                continue
            uid = event.document["uid"]
            if accepts(event.document):
                taken.add(uid)
                yield event
            elif uid in taken or (event.type == "updated" and self._was_taken(event.document, accepts)):
                taken.discard(uid)
                yield event if event.type == "deleted" else event._replace(type="left")

    def _was_taken(self, document: Document, accepts: Predicate) -> bool:
        """Return whether a document was taken before its newest version; its history knows, whoever watched then."""
        earlier = [
            version.document
            for version in self.store.history(document["kind"], document["uid"])
            if version.version < document["version"]
        ]
        return bool(earlier and earlier[-1] is not None and accepts(earlier[-1]))

    def subscribe(self, hint: Callable[[str, str], None]) -> None:
        """Subscribe to the hypervisor until the hint is dropped, or the observer closed."""
        self._unsubscribers[hint] = self.hypervisor.subscribe(hint)

    def drop(self, hint: Callable[[str, str], None]) -> None:
        """End a subscription, where there is one."""
        unsubscribe = self._unsubscribers.pop(hint, None)
        if unsubscribe is not None:
            unsubscribe()


class _Watch:
    """One follower of the feed: the store's changes, the host's events, and addresses that are still missing."""

    def __init__(self, observer: Observer, kinds: Sequence[str], since: int) -> None:
        self.observer = observer
        self.store = observer.store
        self.kinds = kinds
        self.since = since
        self.hints: deque[tuple[str, str]] = deque(maxlen=100_000)
        self.shown: dict[str, Document] = {}
        self.quiet = time.monotonic()
        self.addressed = 0.0
        self.probed = time.monotonic()
        self.answers = True

    def wants(self, kind: str) -> bool:
        return kind in (self.kinds or KIND_NAMES)

    def events(self) -> Iterator[Event | None]:
        try:
            yield from self._follow()
        finally:
            self.observer.drop(self._hint)

    def _hint(self, kind: str, uid: str) -> None:
        self.hints.append((kind, uid))

    def _follow(self) -> Iterator[Event | None]:
        subscribed = False
        tried = -LOST_SECONDS
        while True:
            if not subscribed and self.wants(VM.name) and time.monotonic() - tried >= LOST_SECONDS:
                tried = time.monotonic()
                subscribed = self._subscribe()
            batch = [*self._stored(), *self._observed(), *self._probed()]
            yield from batch
            if batch:
                self.quiet = time.monotonic()
            elif time.monotonic() - self.quiet >= 1.0:
                self.quiet = time.monotonic()
                yield None

    def _subscribe(self) -> bool:
        try:
            self.observer.subscribe(self._hint)
        except KCError:
            return False
        return True

    def _stored(self) -> Iterator[Event]:
        """Yield what moved in the store; an operation that moved shows in its VM too."""
        wait = 0.0 if self.hints else TICK_SECONDS
        moved: set[str] = set()
        for change in self.store.changes(self.since, wait=wait):
            self.since = change.revision
            kind = change.document["kind"]
            if kind == OPERATION.name and change.document["spec"]["target"]["kind"] == VM.name:
                moved.add(change.document["spec"]["target"]["uid"])
            if not self.wants(kind):
                continue
            if kind == VM.name and change.type != "deleted":
                yield Event(change.revision, change.type, self._remember(self.observer.show(change.document)))
            else:
                self.shown.pop(change.document["uid"], None)
                yield Event(change.revision, change.type, change.document)
        if self.wants(VM.name):
            for uid in moved:
                yield from self._show(uid)

    def _remember(self, document: Document) -> Document:
        self.shown[document["uid"]] = document
        return document

    def _show(self, uid: str) -> Iterator[Event]:
        """Yield a VM whose live state moved; its revision is that of the store, so that the feed never goes back."""
        document = self.store.get(VM.name, uid)
        if document is None:
            return
        before = self.shown.get(uid)
        after = self._remember(self.observer.show(document))
        if after != before:
            yield Event(self.since, "status", after)

    def _observed(self) -> Iterator[Event]:
        """Yield the VMs that the host has hinted at, and those whose address has come."""
        domains: dict[str, None] = {}
        while self.hints:
            kind, uid = self.hints.popleft()
            if kind == "domain":
                domains[uid] = None
            elif kind == "connection":
                domains |= dict.fromkeys(item["uid"] for item in self.store.list_documents(VM.name).items)
        for uid in domains:
            if self.store.get(VM.name, uid) is not None:
                yield from self._show(uid)
            else:
                yield from self._show_foreign(uid)
        # libvirt has no event for a lease; ask only while a running VM still lacks an address.
        if time.monotonic() - self.addressed >= ADDRESS_SECONDS:
            self.addressed = time.monotonic()
            for uid, document in list(self.shown.items()):
                status = document["status"]
                if status["power"] == "running" and document["spec"] and self.observer.missing(document):
                    yield from self._show(uid)

    def _probed(self) -> Iterator[Event]:
        """Yield every VM as stale once the host answers no more, and as it is once it does again.

        A daemon that stands still ends no connection, and so gives no hint.
        """
        if not self.wants(VM.name) or time.monotonic() - self.probed < PROBE_SECONDS:
            return
        try:
            self.observer.hypervisor.observe(NOBODY)
            answers = True
        except KCError:
            answers = False
        self.probed = time.monotonic()
        if answers == self.answers:
            return
        self.answers = answers
        if answers:
            self.hints.append(("connection", "back"))
            return
        operations = running_operations(self.store)
        for document in self.store.list_documents(VM.name).items:
            stale = show_vm(document, observed=None, answered=False, operation=operations.get(document["uid"]))
            if stale != self.shown.get(document["uid"]):
                yield Event(self.since, "status", self._remember(stale))

    def _show_foreign(self, uid: str) -> Iterator[Event]:
        try:
            observed = self.observer.hypervisor.observe(uid)
        except KCError:
            return
        if observed is not None:
            yield Event(self.since, "status", self._remember(show_foreign(observed)))
        elif uid in self.shown:
            yield Event(self.since, "deleted", self.shown.pop(uid))


def _nics(document: Document) -> list[dict[str, Any]]:
    """Return the NICs of a VM, as far as this KC can read its document."""
    return document["spec"]["nics"] if is_readable(document) else []


def _stored_part(selector: Selector | None) -> Selector | None:
    """Return what a selector says of documents as the store has them; None where it says nothing of them."""
    if selector is None:
        return None
    terms = tuple(term for term in selector.terms if not term.speaks_of("status"))
    return type(selector)(terms) if terms else None


def _cut(shown: list[Document], limit: int | None, after: str) -> tuple[list[Document], str]:
    """Return one page of a list that is held whole; the cursor is the position of its end and the name there."""
    start = 0
    if after:
        position, _, name = after.partition(":")
        start = next(
            (index + 1 for index, document in enumerate(shown) if document["name"] == name), int(position or 0)
        )
    if limit is None:
        return shown[start:], ""
    items = shown[start : start + limit]
    end = start + len(items)
    return items, f"{end}:{items[-1]['name']}" if items and end < len(shown) else ""
