"""What a service that is held to a decision stands on: what may be seen, what may be done, and in which words not.

An object that may not be seen does not exist: whoever names it gets the very words that a missing one gets.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from backend.actor import Actor, acting_as
from backend.auth.hiding import hide_in_error, list_words
from backend.auth.scopes import asks_spec, matches, may_some, permits, restriction
from backend.errors import DeniedError, KCError, NotFoundError
from backend.model.actions import ACTIONS, name_action
from backend.model.kinds import OPERATION, TRASH, VM, Kind, find_kind

if TYPE_CHECKING:
    from backend.audit import AuditTrail
    from backend.auth.protocol import Decision, Scope
    from backend.model.documents import Document
    from backend.service import Service

_HINT = "whoever manages this KC can allow it"


class Guard:
    """An inner service, the decision that it is held to, and who acts; `decision` may be replaced at any time.

    `audit` is told of what is refused here, beyond what the decision itself says; it may be left out.
    """

    def __init__(self, inner: Service, decision: Decision, actor: Actor, *, audit: AuditTrail | None = None) -> None:
        self.inner = inner
        self.decision = decision
        self.actor = actor
        self._audit = audit

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """What may be done; nothing where the decision does not say."""
        return self.decision.scopes or () if self.decision.allowed else ()

    @property
    def may_everything(self) -> bool:
        """Whether nothing is hidden or forbidden."""
        return any("*" in scope.actions and not scope.selector.strip() for scope in self.scopes)

    def sees_all(self, kind: Kind) -> bool:
        """Return whether every object of a kind may be seen."""
        return restriction(self.scopes, f"{kind.command}.read") is None

    def sees(self, document: Document) -> bool:
        """Return whether a document may be seen.

        An operation shows where `op.read` allows it, or what it is on may be seen, by the metadata that it had then;
        a deleted object where `trash.read` allows it, or the object itself could be seen. The host's foreign domains
        are nobody's: they show to whoever sees all VMs.
        """
        if self.may_everything:
            return True
        if is_foreign(document):
            return self.sees_all(VM)
        return self.allows("read", document)

    def allows(self, verb: str, document: Document) -> bool:
        """Return whether `KIND.VERB` is allowed on a document as it is; see `sees` for operations and the trash."""
        kind = document["kind"]
        if permits(self.scopes, f"{_command(kind)}.{verb}", document):
            return True
        if kind == TRASH.name and verb in ("read", "delete"):
            thing = _describe_deleted(document)
            return permits(self.scopes, f"{_command(thing['kind'])}.{verb}", thing)
        if kind == OPERATION.name and verb in ("read", "cancel"):
            return self._allows_operation(verb, document)
        return False

    def _allows_operation(self, verb: str, operation: Document) -> bool:
        spec = operation["spec"]
        target = {**spec["target"], "metadata": operation.get("metadata", {})}
        begun_by = name_action(spec["type"])
        action = begun_by if verb == "cancel" else f"{_command(target['kind'])}.read"
        if permits(self.scopes, action, target):
            return True
        removed = spec.get("parameters", {}) if spec["type"] == "trash.purge" else {}
        if not {"kind", "name"} <= removed.keys():
            return False
        thing = {"kind": removed["kind"], "name": removed["name"], "metadata": target["metadata"]}
        return permits(self.scopes, f"{_command(thing['kind'])}.{'read' if verb == 'read' else 'delete'}", thing)

    # --- one object
    def find(self, kind: Kind, name: str) -> Document:
        """Return an object as it is stored, if it may be seen; raise NotFoundError."""
        try:
            document = self.inner.get(kind.name, name, observe=False)
        except NotFoundError:
            raise missing(kind, name) from None
        if not self.sees(document):
            self._tell(f"{kind.command}.read", document, "it may not be seen")
            raise missing(kind, name)
        return document

    def demand(self, kind: Kind, name: str, verb: str) -> Document:
        """Return an object as it is stored, if `KIND.VERB` is allowed on it; raise NotFoundError, DeniedError."""
        document = self.find(kind, name)
        self.check_allowed(verb, document)
        return document

    def check_allowed(self, verb: str, document: Document) -> None:
        """Raise DeniedError where `KIND.VERB` is not allowed on a document as it is, or as it would become."""
        if not self.allows(verb, document):
            raise self.deny(f"{_command(document['kind'])}.{verb}", document)

    def check_gain(self, verb: str, before: Document, after: Document) -> None:
        """Raise DeniedError where whoever changes an object's name or metadata would gain a right on it.

        Somebody with several scopes could otherwise label an object of one so that it is another one's too.
        """
        kind = _command(before["kind"])
        old, new = ({key: value for key, value in each.items() if key != "spec"} for each in (before, after))
        for each in ACTIONS.get(kind, ()):
            action = f"{kind}.{each}"
            if permits(self.scopes, action, new) and not permits(self.scopes, action, old):
                raise self.deny(f"{kind}.{verb}", before, f"with that name and metadata you would gain {action} on it")

    def deny(self, action: str, document: Document, why: str = "") -> DeniedError:
        """Return the error that says what is not allowed, once the audit trail has it."""
        why = why or f"{action} is not allowed on it"
        self._tell(action, document, why)
        kind = find_kind(document["kind"])
        return DeniedError(f"{kind.title} {document['name']}", why, _HINT, action=action)

    def demand_all(self, action: str) -> None:
        """Raise DeniedError where an action, which is about no single object, is not allowed without a selector."""
        if restriction(self.scopes, action) is None:
            return
        why = f"{action} is not allowed"
        if may_some(self.scopes, action):
            why += ": it is about everything, and what is allowed is not"
        self._tell(action, {}, why)
        raise DeniedError(action, why, _HINT, action=action)

    def asks_spec(self, action: str) -> bool:
        """Return whether the specs of documents matter to whether an action is allowed."""
        return any(matches(scope.actions, action) and asks_spec(scope.selector) for scope in self.scopes)

    def _tell(self, action: str, document: Document, why: str) -> None:
        if self._audit is None:
            return
        who = {"subject": self.actor.subject, "requestId": self.actor.request_id, "via": self.actor.via}
        what = {field: document.get(field, "") for field in ("kind", "name", "uid")}
        entry = {"event": "refusal", **who, "action": action, **what, "outcome": "deny", "reason": why}
        self._audit.record(entry, durable=False)

    # --- calls
    @contextmanager
    def calling(self, *said: Any) -> Iterator[None]:
        """Have a call of the inner service happen in the actor's name, and hide what may not be seen in its errors.

        `said` is what the caller asked with: those words are no secret to them.
        """
        with acting_as(self.actor):
            try:
                yield
            except KCError as error:
                if not self.may_everything:
                    hide_in_error(self, error, list_words(said))
                raise


def missing(kind: Kind, name: str) -> NotFoundError:
    """Return the error of an object that is not there, in the words that the service itself has for it."""
    return NotFoundError(f"{kind.title} {name}", f"no such {kind.title}", f"see kc {kind.command} list")


def is_foreign(document: Document) -> bool:
    """Return whether a document stands for a domain of the host's that this KC does not manage."""
    return document["kind"] == VM.name and bool(document.get("status", {}).get("foreign"))


def _command(kind: str) -> str:
    """Return the word of a kind in actions; one that allows nothing for a kind that a newer KC has."""
    try:
        return find_kind(kind).command
    except NotFoundError:
        return "unknown"


def _describe_deleted(entry: Document) -> Document:
    """Return the object that an entry of the trash holds."""
    spec = entry["spec"]
    return {**spec["target"], "metadata": entry["metadata"], **spec["document"]}
