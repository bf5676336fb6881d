"""Changes under a decision: what is changed must be allowed as it was and as it becomes; see `backend.auth.guarded`."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from backend.auth.guard import missing
from backend.auth.guarded_reading import GuardedReading
from backend.auth.hiding import hide_in_document, hide_in_preview
from backend.auth.references import check_host_matters, check_lending, check_references, list_token_scopes
from backend.auth.scopes import covers, may_some, restriction
from backend.errors import ConflictError, NotFoundError
from backend.model.actions import ACTIONS
from backend.model.documents import Document
from backend.model.kinds import KINDS, NETWORK, OPERATION, TOKEN, TRASH, Kind, find_kind
from backend.service import Accepted, Preview

_LONGEST_KEY: Final = 200
_ATTEMPTS: Final = 5


class GuardedChanges(GuardedReading):
    """The part of the service that writes documents."""

    # --- new documents
    def create(self, document: Document, *, key: str = "") -> Accepted:
        """Accept a new document; `KIND.create` must be allowed on it as it is written. See the protocol."""
        self._check_new(document)
        with self.calling(document, key):
            return self.show_accepted(self.inner.create(document, key=self.own_key(key)), key)

    def check(self, document: Document) -> Document:
        """Return the document that `create` would accept; for whoever may create it."""
        self._check_new(document)
        with self.calling(document):
            return self.inner.check(document)

    def _check_new(self, document: Document) -> None:
        kind = find_kind(str(document.get("kind", "")))
        name = str(document.get("name", ""))
        if "create" not in ACTIONS[kind.command]:
            return  # it is not made from a document, which the inner service says
        self._check_becoming(
            "create", kind, {**head_of(kind, name), "metadata": document.get("metadata", {})}, document
        )
        self.check_content(kind, document, None)

    def _check_becoming(self, verb: str, kind: Kind, after: Document, document: Document) -> None:
        """Raise DeniedError where an object as it becomes is outside what the verb is allowed on.

        Its spec is worked out only where a selector speaks of it.
        """
        action = f"{kind.command}.{verb}"
        if not may_some(self.scopes, action):
            raise self.deny(action, after, f"{action} is not allowed")
        if self.asks_spec(action):
            from backend.model.schemas import validate_document  # noqa: PLC0415 - pydantic

            with self.calling(document):
                if verb == "create":
                    after = validate_document(document)
                else:
                    wish = {field: value for field, value in document.items() if field != "version"}
                    after = self.inner.preview(wish).after
        if not self.allows(verb, after):
            raise self.deny(action, after, f"{action} is not allowed on what it becomes")

    def check_content(self, kind: Kind, document: Document, live: Document | None) -> None:
        """Raise KCErrors for what a document says anew and its author has no right to say."""
        if kind is TOKEN:
            check_lending(self, document, live)
        if self.may_everything:
            return
        check_references(self, kind, document, live)
        if kind is NETWORK:
            check_host_matters(self, document, live)
        if kind is TOKEN and not covers(self.scopes, list_token_scopes(document, live)):
            verb = "update" if live is not None else "create"
            raise self.deny(
                f"token.{verb}", {**head_of(kind, str(document.get("name", "")))}, "it allows more than you may"
            )

    # --- changes
    def update(
        self, document: Document, *, if_version: int | None = None, message: str = "", key: str = ""
    ) -> Accepted:
        """Accept another metadata and spec; `KIND.update` must be allowed before and after. See the protocol."""
        attempts = _ATTEMPTS if if_version is None and not document.get("version") else 1
        while True:
            attempts -= 1
            live = self._check_update(document)
            # What is looked at here is what is changed: who was given the object meanwhile keeps it.
            expected = {**document, "version": document.get("version") or live.get("version")}
            try:
                return self._update(expected, if_version, message, key)
            except ConflictError as error:
                if error.details.get("reason") != "version" or not attempts:
                    raise

    def _update(self, document: Document, if_version: int | None, message: str, key: str) -> Accepted:
        with self.calling(document, message, key):
            accepted = self.inner.update(document, if_version=if_version, message=message, key=self.own_key(key))
            return self.show_accepted(accepted, key)

    def _check_update(self, document: Document) -> Document:
        """Return the object as it is stored, if it may become what a document says; raise KCErrors."""
        kind = find_kind(str(document.get("kind", "")))
        live = self.find(kind, str(document.get("name", "")))
        if "update" in ACTIONS[kind.command]:
            self.check_allowed("update", live)
            metadata = document.get("metadata", live["metadata"])
            after = {**head_of(kind, live["name"]), "uid": live["uid"], "metadata": metadata}
            self._check_becoming("update", kind, after, document)
            self.check_gain("update", live, {**live, "metadata": metadata})
            self.check_content(kind, document, live)
        return live

    def preview(self, document: Document) -> Preview:
        """Return what `create` or `update` would do; for whoever may do that. See the protocol."""
        kind = find_kind(str(document.get("kind", "")))
        name = str(document.get("name", ""))
        if self._is_there(kind, name):
            self._check_update(document)
        else:
            self._check_new(document)
            if self._is_taken(kind, name):
                hint = f"choose another, or see kc {kind.command} show"
                raise ConflictError(f"{kind.title} {name}", "the name is taken", hint)
        with self.calling(document):
            preview = self.inner.preview(document)
            if self.may_everything:
                return preview
            before = hide_in_document(self, preview.before) if preview.before is not None else None
            preview = preview._replace(before=before, after=hide_in_document(self, preview.after))
            return hide_in_preview(self, preview, document)

    def _is_there(self, kind: Kind, name: str) -> bool:
        try:
            self.find(kind, name)
        except NotFoundError:
            return False
        return True

    def _is_taken(self, kind: Kind, name: str) -> bool:
        try:
            self.inner.get(kind.name, name, observe=False)
        except NotFoundError:
            return False
        return True

    def rollback(
        self, kind: str, name: str, version: int, *, if_version: int | None = None, message: str = ""
    ) -> Accepted:
        """Write a new version that is as an old one; `KIND.update` must be allowed on both. See the protocol."""
        which = find_kind(kind)
        live = self.demand(which, name, "update")
        # What is looked at here is what is rolled back, or nothing is.
        expected = live["version"] if if_version is None else if_version
        if not self.may_everything:
            self.check_old("update", which, live, self.find_version(which, name, version))
        with self.calling(kind, name, message):
            return self.show_accepted(self.inner.rollback(kind, name, version, if_version=expected, message=message))

    def undo(self, kind: str, name: str, *, if_version: int | None = None) -> Accepted:
        """Take the newest change back; `KIND.update` must be allowed on both versions. See the protocol."""
        which = find_kind(kind)
        live = self.demand(which, name, "update")
        # As for a rollback.
        expected = live["version"] if if_version is None else if_version
        if not self.may_everything:
            kept = self.inner.history(which.name, name)
            earlier = [entry.document for entry in kept if entry.version < live["version"] and entry.document]
            if earlier:
                self.check_old("update", which, live, earlier[-1])
        with self.calling(kind, name):
            return self.show_accepted(self.inner.undo(kind, name, if_version=expected))

    def check_old(self, verb: str, kind: Kind, live: Document, old: Document) -> None:
        """Raise KCErrors where an object may not become what it was."""
        after = {**live, **{field: old[field] for field in ("name", "metadata", "spec")}}
        self.check_allowed(verb, after)
        self.check_gain(verb, live, after)
        self.check_content(kind, after, live)

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
        """Delete an object; `KIND.delete` is enough for all ways of it. See the protocol.

        A deleted object may be deleted for good by whoever could delete it, or by `trash.delete`.
        """
        which = find_kind(kind)
        try:
            live = self.find(which, name)
        except NotFoundError:
            # A key that was used tells of what is gone by now; only its own subject has it.
            if not key or not self._was_seen(which, name):
                raise
        else:
            if "delete" in ACTIONS[which.command]:
                self.check_allowed("delete", live)
        with self.calling(kind, name, message, key):
            accepted = self.inner.delete(
                kind,
                name,
                if_version=if_version,
                keep_disks=keep_disks,
                now=now,
                message=message,
                key=self.own_key(key),
            )
            return self.show_accepted(accepted, key)

    def _was_seen(self, kind: Kind, name: str) -> bool:
        try:
            kept = self.history(kind.name, name)
        except NotFoundError:
            return False
        return not self._is_taken(kind, name) and bool(kept)

    def restore(self, kind: str, name: str, *, uid: str = "", new_disks: bool = False) -> Accepted:
        """Bring a deleted object back; `KIND.restore` must be allowed on it. See the protocol."""
        which = find_kind(kind)
        if not self.sees_all(which) or restriction(self.scopes, f"{which.command}.restore") is not None:
            deleted = self._find_deleted(which, name, uid)
            self.check_allowed("restore", deleted)
            uid = deleted["uid"]
        with self.calling(kind, name, uid):
            return self.show_accepted(self.inner.restore(kind, name, uid=uid, new_disks=new_disks))

    def _find_deleted(self, kind: Kind, name: str, uid: str) -> Document:
        """Return the object that would be brought back: of those that may be seen, the one deleted last."""
        page = self.list_documents(TRASH.name, selector=f"spec.target.kind={kind.name}")
        entries = [
            entry
            for entry in page.items
            if entry["spec"]["target"]["name"] == name
            and not entry["spec"].get("disk")
            and uid in ("", entry["spec"]["target"]["uid"])
        ]
        if entries:
            newest = max(entries, key=lambda entry: str(entry["createdAt"]))
            return {**newest["spec"]["target"], "metadata": newest["metadata"], **newest["spec"]["document"]}
        try:
            kept = self.history(kind.name, name)
        except NotFoundError:
            kept = []
        documents = [entry.document for entry in kept if entry.document is not None]
        if documents and uid in ("", documents[-1]["uid"]):
            return documents[-1]
        raise NotFoundError(
            f"{kind.title} {name}", f"no deleted {kind.title} of that name is kept", "see kc trash list"
        )

    def empty_trash(self, names: Sequence[str] | None = None) -> list[Accepted]:
        """Remove deleted objects for good: the named ones, or all for which that is allowed. See the protocol."""
        if names is None and restriction(self.scopes, "trash.delete") is not None:
            if not any(may_some(self.scopes, f"{kind.command}.delete") for kind in KINDS if kind is not OPERATION):
                raise self.deny("trash.delete", head_of(TRASH, "all"), "trash.delete is not allowed")
            items = self.list_documents(TRASH.name).items
            names = [entry["name"] for entry in items if self.allows("delete", entry)]
        elif names is not None:
            for name in names:
                self.demand(TRASH, name, "delete")
        with self.calling(names):
            return [self.show_accepted(accepted) for accepted in self.inner.empty_trash(names)]

    # --- what changes share
    def own_key(self, key: str) -> str:
        """Return an idempotency key as nobody else's: two who think of the same one do not meet.

        One that the inner service refuses stays as it is.
        """
        if not 0 < len(key) <= _LONGEST_KEY or not key.isprintable():
            return key
        return sha256(f"{self.decision.subject}\0{key}".encode()).hexdigest()

    def show_accepted(self, accepted: Accepted, key: str = "") -> Accepted:
        """Return what a change gave, as it may be shown.

        A key may tell of what its subject did with other rights than these: what may not be seen now is not there.
        """
        document, operation = accepted
        if key and not self.sees(document):
            raise missing(find_kind(document["kind"]), str(document["name"]))
        shown = hide_in_document(self, document)
        return Accepted(shown, hide_in_document(self, operation) if operation is not None else None)


def head_of(kind: Kind, name: str) -> Document:
    """Return what is known of an object by its name alone."""
    return {"kind": kind.name, "name": name}
