"""What an authenticator is asked, and what it answers; the one interface that a plugin implements.

Cheap to import: no pydantic, no asyncio.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    from backend.auth.context import AuthContext
    from backend.model.documents import Document

API_VERSION: Final = 1
ENTRY_POINTS: Final = "kc.authenticators"

Outcome = Literal["allow", "deny", "challenge", "abstain", "error"]
CacheScope = Literal["none", "credential", "request"]


class Peer(NamedTuple):
    """The process at the other end of a unix socket, as the kernel tells it (unix(7), SO_PEERCRED)."""

    pid: int
    uid: int
    gid: int


class Client(NamedTuple):
    """Where a request comes from.

    `transport` is `tcp`, `tls`, `unix` or `ssh`; `address` an ip address (`""` for a unix socket), believed from a
    `X-Forwarded-For` only where a configured proxy wrote it. Fingerprints are `SHA256:…` in base64 without padding,
    those of TLS of the client's certificate in DER.
    """

    transport: str
    address: str = ""
    peer: Peer | None = None
    tls_fingerprint: str = ""
    ssh_fingerprint: str = ""


class Resource(NamedTuple):
    """What an action is on: `uid` is empty and `metadata` None where there is no such object, or none yet."""

    kind: str
    name: str = ""
    uid: str = ""
    metadata: Document | None = None


@dataclass(frozen=True, slots=True)
class AuthRequest:
    """One question; `action` is the resolved operation (`vm.start`), never taken from URL text by an authenticator.

    `credential` are the header's bytes, never parsed, shown or logged by KC itself; empty where there is none. `phase`
    is `renew` where a stream that was let in before is decided upon again.
    """

    request_id: str
    action: str
    client: Client
    credential: bytes = field(default=b"", repr=False)
    resource: Resource | None = None
    method: str = ""
    path: str = ""
    query: str = ""
    host: str = ""
    phase: Literal["request", "renew"] = "request"

    @property
    def scheme(self) -> str:
        """The credential's scheme in lower case (RFC 9110, 11.1), empty where it has none."""
        head, space, _ = self.credential.partition(b" ")
        return head.decode("latin-1").lower() if space else ""

    @property
    def parameters(self) -> bytes:
        """What follows the scheme."""
        return self.credential.partition(b" ")[2].strip()


class Scope(NamedTuple):
    """What somebody may do: actions (`vm.start`, `vm.*`, `*`), on the objects that the selector takes (empty: all)."""

    actions: tuple[str, ...]
    selector: str = ""


EVERYTHING: Final = (Scope(("*",)),)


@dataclass(frozen=True, slots=True)
class Decision:
    """One answer.

    `scopes` None: KC's configured grants say what `subject` and `groups` may do. `ttl` are the seconds for which an
    `allow` may be kept (0: not at all), `expires_at` Unix seconds after which it holds no more (0: no such end);
    `revalidate_after` the seconds after which a stream is decided upon again. `challenges` are values of
    WWW-Authenticate, `status` one of 401, 403, 429, 503 where it is not to follow from the outcome. `reason` may be
    shown to the client, `detail` is for the log alone. `token` is the uid of the token that was used, `narrowed` that
    whoever held it has narrowed it. `from_grants` is KC's own: that the scopes are those of the grants.
    """

    outcome: Outcome
    subject: str = ""
    groups: tuple[str, ...] = ()
    scopes: tuple[Scope, ...] | None = None
    ttl: float = 0.0
    expires_at: float = 0.0
    revalidate_after: float = 30.0
    challenges: tuple[str, ...] = ()
    status: int = 0
    retry_after: float = 0.0
    reason: str = ""
    detail: str = ""
    authenticator: str = ""
    token: str = ""
    narrowed: bool = False
    from_grants: bool = False

    @property
    def allowed(self) -> bool:
        """Whether the request may go on."""
        return self.outcome == "allow"


ABSTAIN: Final = Decision("abstain")


def deny(reason: str, detail: str = "") -> Decision:
    """Return a refusal: known who it is, and no."""
    return Decision("deny", reason=reason, detail=detail)


def challenge(header: str, reason: str, detail: str = "") -> Decision:
    """Return what asks for (another) credential; `header` is a value of WWW-Authenticate."""
    return Decision("challenge", challenges=(header,), reason=reason, detail=detail)


def fail(detail: str) -> Decision:
    """Return what says that it cannot be decided now."""
    return Decision("error", reason="the authenticator does not answer", detail=detail)


class Authenticator(Protocol):
    """Answers for the credentials that it claims; made by a factory (see `AuthenticatorFactory`).

    It may have `challenges`, a tuple of values of WWW-Authenticate, which ask for its kind of credential where a
    request came without any.
    """

    name: str
    """Which one this is, in configuration, logs and audit."""
    cache_scope: CacheScope
    """Whether its `allow` may be kept: for the credential (from wherever), for the whole request, or not at all."""

    def accepts(self, request: AuthRequest) -> bool:
        """Return whether the credential (or client) is of its kind; no I/O. Others never see it."""

    async def decide(self, request: AuthRequest) -> Decision:
        """Decide; never blocks the loop. Raising counts as `error`."""

    async def check_health(self) -> str:
        """Return why it cannot answer now; empty where it can."""

    async def close(self) -> None:
        """Let go of everything."""


class AuthenticatorFactory(Protocol):
    """What an entry point of the group `kc.authenticators` names; its `api_version` must be `API_VERSION`."""

    api_version: int

    def __call__(self, context: AuthContext, settings: Mapping[str, Any]) -> Authenticator:
        """Return the authenticator that a `[[auth.chain]]` table asks for; raise RefusedError for a bad one.

        `settings` is the table, `type` and `name` included.
        """
