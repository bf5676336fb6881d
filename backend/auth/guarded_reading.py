"""Reading under a decision: lists, single objects, history, the change feed; what may not be seen is not there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from backend.audit import is_chosen
from backend.auth.guard import Guard, is_foreign, missing
from backend.auth.hiding import hide_in_document, hide_in_documents
from backend.auth.protocol import Scope
from backend.auth.scopes import may_some, restriction
from backend.errors import DeniedError, NotFoundError, RefusedError
from backend.model.documents import API_VERSION, Document, complete, format_time
from backend.model.kinds import KINDS, OPERATION, TRASH, VM, Kind, find_kind
from backend.model.selectors import Selector, parse
from backend.service import FILTERED, Access, DocumentPage, Event, Progress, Version

if TYPE_CHECKING:
    from backend.model.samples import Sample

_CHUNK: Final = 500
_CURSOR: Final = "n:"
_LONGEST_NAME: Final = 63

Predicate = Callable[[Document], bool]


class GuardedReading(Guard):
    """The part of the service that changes nothing."""

    # --- lists
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
        """Return what may be seen of a kind; see the protocol.

        The cursor is the last name of the page: the inner service's own could be one that may not be seen.
        """
        which = find_kind(kind)
        if self.sees_all(which):
            with self.calling():
                page = self.inner.list_documents(
                    which.name, selector=selector, limit=limit, after=after, everything=everything, observe=observe
                )
                return page._replace(items=hide_in_documents(self, page.items))
        parse(selector)  # a fault is found in what the caller wrote, not in what it is joined with
        if after and not after.startswith(_CURSOR):
            raise RefusedError("cursor", "it is none of this list's", "begin anew")

        def fetch(text: str, size: int | None, last: str) -> DocumentPage:
            if observe and which is VM and last:
                # Live states are joined for a whole list at once: a part of it costs as much.
                text, size, last = _join(text, f"name>{json.dumps(last)}"), None, ""
            return self.inner.list_documents(
                which.name, selector=text, limit=size, after=last, everything=everything, observe=observe
            )

        with self.calling():
            page = self._gather(which, selector, limit, after.removeprefix(_CURSOR), fetch)
            return page._replace(items=hide_in_documents(self, page.items))

    def _gather(
        self,
        kind: Kind,
        selector: str,
        limit: int | None,
        last: str,
        fetch: Callable[[str, int | None, str], DocumentPage],
    ) -> DocumentPage:
        """Fill a page with what may be seen, fetching on until it is full; one more tells whether there is a next."""
        if not self._sees_some(kind):
            revision = self.inner.list_documents(kind.name, limit=1, observe=False).revision
            return DocumentPage([], "", revision, [FILTERED], filtered=True)
        wanted = None if limit is None else max(0, limit) + 1
        narrowing = self._narrow(kind, selector)
        found: list[Document] = []
        cursor = last
        while True:
            size = None if wanted is None else (wanted - len(found) if narrowing else max(wanted - len(found), _CHUNK))
            page = fetch(_join(selector, narrowing), size, cursor)
            found += [document for document in page.items if self.sees(document)]
            # Foreign domains come last, and whoever reads here sees none.
            if wanted is None or not page.next or len(found) >= wanted or is_foreign(page.items[-1]):
                break
            cursor = str(page.items[-1]["name"])
        items = found if limit is None else found[: max(0, limit)]
        following = str(items[-1]["name"]) if items else last
        cursor = f"{_CURSOR}{following}" if len(found) > len(items) else ""
        return DocumentPage(items, cursor, page.revision, [*page.warnings, FILTERED], filtered=True)

    def _sees_some(self, kind: Kind) -> bool:
        return any(may_some(self.scopes, f"{each.command}.read") for each in _deciding(kind))

    def _narrow(self, kind: Kind, selector: str) -> str:
        """Return a selector that takes all that may be seen of a kind, for the inner service to look by; or none.

        What may be seen of operations and of the trash follows from other kinds too: it says something where all say
        the same, of metadata alone. It is left out where it makes the caller's selector too long.
        """
        found = [restriction(self.scopes, f"{each.command}.read") for each in _deciding(kind)]
        texts = {text for each in found if each is not None for text in each}
        if None in found or len(texts) != 1:
            return ""
        (text,) = texts
        if kind in (OPERATION, TRASH) and not all(term.speaks_of("metadata") for term in parse(text).terms):
            return ""
        try:
            parse(_join(selector, text, f"name>{json.dumps('x' * _LONGEST_NAME)}"))
        except RefusedError:
            return ""
        return text

    # --- one object
    def get(self, kind: str, name: str, *, observe: bool = True, version: int | None = None) -> Document:
        """Return one document; see the protocol."""
        which = find_kind(kind)
        if version is not None and not self.sees_all(which):
            return self.find_version(which, name, version)
        if not self.sees_all(which):
            self.find(which, name)
        with self.calling(name):
            document = self.inner.get(which.name, name, observe=observe, version=version)
        if not self.sees(document):
            raise missing(which, name)
        return hide_in_document(self, document)

    def history(self, kind: str, name: str) -> list[Version]:
        """Return the versions of an object that may be seen, where the newest is among them; see the protocol."""
        which = find_kind(kind)
        try:
            kept = self.inner.history(which.name, name)
        except NotFoundError:
            raise missing(which, name) from None
        newest = next((entry.document for entry in reversed(kept) if entry.document is not None), None)
        if newest is None or not self.sees(newest):
            raise missing(which, name)
        shown: list[Version] = []
        before = True
        for entry in kept:
            # A deletion shows to whoever may see what was deleted.
            before = self.sees(entry.document) if entry.document is not None else before
            shown += [entry] if before else []
        return shown

    def find_version(self, kind: Kind, name: str, version: int) -> Document:
        """Return an object as it was at a version, if that may be seen; raise NotFoundError."""
        kept = self.history(kind.name, name)
        document = next((entry.document for entry in kept if entry.version == version), None)
        if document is None:
            why = f"version {version} is not kept, or is a deletion"
            hint = f"kept are {kept[0].version} to {kept[-1].version}"
            raise NotFoundError(f"{kind.title} {name}", why, hint)
        return complete(document)

    def schema(self, kind: str) -> dict[str, Any]:
        """Return the JSON Schema of a kind's documents, which is no secret."""
        return self.inner.schema(kind)

    def samples(self) -> list[Sample]:
        """Return the counters of the VMs that may be seen."""
        samples = self.inner.samples()
        if self.sees_all(VM):
            return samples
        uids = {vm["uid"] for vm in self.list_documents(VM.name, everything=True, observe=False).items}
        return [sample for sample in samples if sample.uid in uids]

    # --- waiting
    def wait(self, operation: str, *, timeout: float | None = None, progress: Progress | None = None) -> Document:
        """Return an operation once it ended; see the protocol."""
        self.find(OPERATION, operation)
        with self.calling(operation):
            ended = self.inner.wait(operation, timeout=timeout, progress=self._following(OPERATION, progress))
        return hide_in_document(self, ended)

    def wait_until(self, name: str, state: str, *, timeout: float, progress: Progress | None = None) -> Document:
        """Return a VM once it is running or ready; see the protocol."""
        self.find(VM, name)
        with self.calling(name, state):
            document = self.inner.wait_until(name, state, timeout=timeout, progress=self._following(VM, progress))
        return hide_in_document(self, document)

    def _following(self, kind: Kind, progress: Progress | None) -> Progress:
        """Return what passes progress on; it raises NotFoundError where what is waited for may be seen no more."""

        def pass_on(document: Document) -> None:
            if not self.sees(document):
                raise missing(kind, str(document["name"]))
            if progress is not None:
                progress(hide_in_document(self, document))

        return pass_on

    # --- the feed
    def watch(
        self, kinds: Sequence[str] = (), *, since: int | None = None, selector: str = ""
    ) -> Iterator[Event | None]:
        """Yield changes of what may be seen; see the protocol.

        `left` says that a document may be seen no more, too; it then shows the last version that could be. The decision
        may be replaced meanwhile: from then on the new one holds.
        """
        wanted = [find_kind(kind).name for kind in kinds]
        accepts = parse(selector)
        if self.may_everything:
            events = self.inner.watch(wanted, since=since, selector=selector)
            return (self._pass(event) for event in events if event is None or self.sees(event.document))
        return self._choose(self.inner.watch(wanted, since=since), accepts)

    def _choose(self, events: Iterator[Event | None], accepts: Selector) -> Iterator[Event | None]:
        shown: dict[str, str] = {}
        for event in events:
            if event is None:
                yield None
                continue
            document = event.document
            uid = document["uid"]
            is_seen = self.sees(document)
            if is_seen and accepts(document):
                shown[uid] = str(document["name"])
                yield self._pass(event)
                continue
            earlier = None
            if uid in shown or event.type == "updated":
                earlier = self._find_earlier(document, accepts)
            if uid not in shown and earlier is None:
                continue
            name = shown.pop(uid, "")
            if is_seen:
                yield self._pass(event if event.type == "deleted" else event._replace(type="left"))
            else:
                yield event._replace(type="left", document=earlier or _name_alone(document, name))

    def _pass(self, event: Event | None) -> Event | None:
        return event._replace(document=hide_in_document(self, event.document)) if event is not None else None

    def _find_earlier(self, document: Document, accepts: Predicate) -> Document | None:
        """Return the version before a document's newest, where that could be seen and was chosen."""
        try:
            kept = self.inner.history(document["kind"], document["name"])
        except NotFoundError:
            return None
        earlier = [
            entry.document for entry in kept if entry.version < document["version"] and entry.document is not None
        ]
        if not earlier or earlier[-1]["uid"] != document["uid"]:
            return None
        return complete(earlier[-1]) if self.sees(earlier[-1]) and accepts(earlier[-1]) else None

    # --- who, and what happened
    def access(self) -> Access:
        """Return who the caller is, and what they may do."""
        decision = self.decision
        scopes = tuple((tuple(scope.actions), scope.selector) for scope in self.scopes)
        expires_at = format_time(decision.expires_at) if decision.expires_at else ""
        return Access(decision.subject, tuple(decision.groups), scopes, expires_at)

    def list_audit(self, *, selector: str = "", limit: int | None = None, after: str = "") -> DocumentPage:
        """Return entries of the audit trail; see the protocol.

        A selector that goes with all of somebody's rights was written for objects, not for entries: only one that
        stands with `audit.read` itself lets some entries be seen.
        """
        scopes = [scope for scope in self.scopes if not scope.selector.strip() or _names_audit(scope)]
        allowed = restriction(scopes, "audit.read")
        if allowed is None:
            return self.inner.list_audit(selector=selector, limit=limit, after=after)
        if not allowed:
            raise DeniedError("audit", "audit.read is not allowed", "whoever manages this KC can allow it")
        parse(selector)
        chosen = [parse(text) for text in allowed]
        narrowing = allowed[0] if len(allowed) == 1 else ""
        found: list[Document] = []
        while True:
            size = None if limit is None else max(limit - len(found), 1 if narrowing else _CHUNK)
            page = self.inner.list_audit(selector=_join(selector, narrowing), limit=size, after=after)
            found += [item for item in page.items if any(is_chosen(choice, item) for choice in chosen)]
            after = page.next
            if not after or (limit is not None and len(found) >= limit):
                break
        items = found if limit is None else found[:limit]
        following = items[-1]["name"] if items and (after or len(found) > len(items)) else ""
        return page._replace(items=items, next=following, warnings=[*page.warnings, FILTERED], filtered=True)


def _deciding(kind: Kind) -> tuple[Kind, ...]:
    """Return the kinds whose `read` may show an object of a kind."""
    return KINDS if kind in (OPERATION, TRASH) else (kind,)


def _names_audit(scope: Scope) -> bool:
    return any(pattern.startswith("audit.") for pattern in scope.actions)


def _name_alone(document: Document, name: str) -> Document:
    """Return what is left to say of a document whose last version that could be seen is not kept."""
    head = {"apiVersion": API_VERSION, "kind": document["kind"], "name": name, "uid": document["uid"]}
    return {**head, "version": document["version"], "metadata": {}, "spec": {}, "status": {}}


def _join(*selectors: str) -> str:
    """Return a selector that takes what all of these take; each must be one by itself."""
    return ",".join(text for text in selectors if text.strip())
