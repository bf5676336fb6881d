"""The HTTP application: what happens to a request between its head and its answer.

The head is judged, the operation found, the authenticators asked of that operation and of what it is on; only then is
a byte of the body read, and only a service held to the decision is ever handed to a handler.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from starlette.datastructures import State
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from backend import __version__
from backend.actor import Actor
from backend.api.exchange import Exchange, Surroundings
from backend.api.gate import Caller, Gate, Head, Options
from backend.api.lists import Lists
from backend.api.logs import note_failure, note_request
from backend.api.metrics import Metrics
from backend.api.problems import answer_problem, internal_problem
from backend.api.queries import find_action
from backend.api.routing import Found, Router
from backend.auth.guarded import GuardedService
from backend.auth.protocol import AuthRequest, Decision, Resource
from backend.errors import DeniedError, KCError, TimedOutError, UnreachableError
from backend.text import sanitise

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from starlette.types import Message, Receive, Scope, Send

    from backend.api.rows import Row
    from backend.api.sessions import Sessions
    from backend.audit import AuditTrail
    from backend.auth.chain import Chain
    from backend.service import Service

API_VERSION = "1"
_SAFE = ("GET", "HEAD", "OPTIONS")
_ERROR_STATUS = 500
_PUBLIC = Decision("allow", scopes=())


@dataclass
class _Course:
    """What is known so far of a request that is being answered."""

    scope: Scope
    send: Send
    caller: Caller
    started: float = field(default_factory=time.perf_counter)
    route: str = "none"
    subject: str = ""
    authenticator: str = ""
    status: int = 0
    writes: bool = False

    @property
    def request_id(self) -> str:
        """What joins all that this request does."""
        return self.caller.request_id

    def note(self) -> dict[str, Any]:
        """Return what the log says of it."""
        return {
            "requestId": self.request_id,
            "method": self.scope.get("method", "GET"),
            "route": self.route,
            "subject": self.subject,
            "authenticator": self.authenticator,
            "client": self.caller.client.address or self.caller.client.transport,
        }


class Application:
    """An ASGI application; `open` it on its loop before the first request, `end` it to stop streams, and `close` it."""

    def __init__(
        self,
        service: Service,
        chain: Chain,
        options: Options = Options(),  # noqa: B008 - a tuple cannot change
        *,
        rows: Sequence[Row],
        revision: Callable[[], int] | None = None,
        sessions: Sessions | None = None,
        audit: AuditTrail | None = None,
    ) -> None:
        """Take the service behind every guard; `revision` tells the store's newest where that costs nothing.

        `audit` is told of what is refused beyond what the chain decides.
        """
        self.options = options
        self.state = State()
        self.router = Router(rows)
        self._gate = Gate(options)
        self._audit = audit
        limiter = anyio.CapacityLimiter(options.threads)
        self.server = Surroundings(service, chain, limiter, Metrics(), Lists(service, revision), sessions)
        self._undecided = 0
        self._active = 0
        self._streams = 0
        self._shares: Counter[str] = Counter()

    async def open(self) -> None:
        """Begin what goes on beside the requests."""
        self.server.lists.start()
        if hasattr(self.state, "streams"):
            await self.state.streams.open()

    def end(self) -> None:
        """Have every stream say its last word; requests go on to their ends."""
        if hasattr(self.state, "streams"):
            self.state.streams.end()

    async def close(self) -> None:
        """Let go of everything but service and chain."""
        if hasattr(self.state, "streams"):
            await self.state.streams.close()
        await asyncio.to_thread(self.server.lists.close)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] not in ("http", "websocket"):
            return
        scope["app"] = self
        course = _Course(scope, send, self._gate.identify(scope))
        watched = self._watch_send(course)
        try:
            await self._answer(course, receive, watched)
        except KCError as error:
            await self._refuse(course, receive, watched, answer_problem(error, course.request_id))
        except Exception:  # noqa: BLE001 - the boundary: whatever a handler raises ends in the log, and tells nobody more
            note_failure(course.request_id, course.route)
            await self._refuse(course, receive, watched, internal_problem(course.request_id))
        finally:
            if course.writes:
                self.server.lists.move()
            method = scope.get("method", "GET")
            seconds = time.perf_counter() - course.started
            self.server.metrics.count(
                method if self.router.knows(method) else "other", course.route, course.status, seconds
            )
            note_request(course.note(), course.started, course.status)

    def _watch_send(self, course: _Course) -> Send:
        """Return a `send` that adds what every answer has, and notes what was answered."""
        headers = [
            (b"kc-api", API_VERSION.encode()),
            (b"kc-version", __version__.encode()),
            (b"x-request-id", course.request_id.encode()),
            (b"x-content-type-options", b"nosniff"),
        ]

        async def send(message: Message) -> None:
            kind = message["type"]
            if kind in ("http.response.start", "websocket.http.response.start"):
                course.status = message["status"]
                message["headers"] = [*message.get("headers", []), *headers]
                if course.writes:
                    # Whoever reads this answer may ask for a list next, and is to find there what they wrote.
                    self.server.lists.move()
            elif kind == "websocket.accept":
                course.status = 101
                message["headers"] = [*message.get("headers", []), *headers]
            elif kind == "websocket.close" and not course.status:
                course.status = 403
            await course.send(message)

        return send

    async def _refuse(self, course: _Course, receive: Receive, send: Send, response: Response) -> None:
        """Send an error, unless the answer has begun: then the connection ends, so that nobody takes it for whole."""
        if course.scope["type"] == "websocket":
            if course.status:
                await send({"type": "websocket.close", "code": 1011, "reason": ""})
            else:
                await WebSocket(course.scope, receive, send).send_denial_response(response)
        elif not course.status:
            await response(course.scope, receive, send)
        else:
            msg = "the answer had begun"
            raise ConnectionAbortedError(msg)

    async def _answer(self, course: _Course, receive: Receive, send: Send) -> None:
        scope = course.scope
        head = self._gate.read(scope, course.caller)
        found = self.router.find(scope)
        if isinstance(found, Response):
            await found(scope, receive, send)
            return
        course.route = found.row.path
        row = found.row
        # Who is not known yet, and waits for a slow authenticator, takes no place of those who are, nor of /healthz.
        with _Room(self, "_undecided", math.inf if row.public else self.options.undecided):
            exchange = await self._admit(course, found, head, receive, send)
        with self._room(row, course.subject):
            course.writes = scope.get("method", "GET") not in _SAFE
            if row.socket:
                await row.function(exchange, exchange.connection)
            elif row.streams:
                await self._send_stream(exchange, scope, receive, send)
            else:
                limit = asyncio.timeout(self.options.seconds)
                try:
                    async with limit:
                        response = await row.function(exchange)
                except TimeoutError:
                    if limit.expired():
                        raise TimedOutError("request", f"not done in {self.options.seconds:g} s") from None
                    raise
                await response(scope, receive, send)

    async def _send_stream(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        gauge = self.server.metrics.streams.labels(exchange.row.path)
        gauge.inc()
        try:
            response = await exchange.row.function(exchange)
            await response(scope, receive, send)
        finally:
            gauge.dec()

    @contextmanager
    def _room(self, row: Row, subject: str) -> Iterator[None]:
        if not (row.streams or row.socket):
            with _Room(self, "_active", self.options.concurrency):
                yield
            return
        if self._shares[subject] >= max(1, self.options.streams // 2):
            raise UnreachableError("KC", "too many streams are yours", "end some of them", transient=True)
        with _Room(self, "_streams", self.options.streams):
            self._shares[subject] += 1
            try:
                yield
            finally:
                self._shares[subject] -= 1
                self._shares += Counter()  # forgets those that have none

    async def _admit(self, course: _Course, found: Found, head: Head, receive: Receive, send: Send) -> Exchange:
        """Ask the authenticators, and return what a handler works with; raise what the answer is where it is no."""
        row, scope = found.row, course.scope
        is_open = row.public or (self.options.open_metrics and row.operation_id == "metrics")
        question = AuthRequest(
            request_id=course.request_id,
            action=find_action(row, scope["query_string"].decode("latin-1")),
            client=course.caller.client,
            credential=head.credential,
            resource=None if is_open else await self._find_resource(found),
            method=head.method,
            path=head.path,
            query=scope["query_string"].decode("latin-1"),
            host=head.host,
        )
        # Before it is decided: what is revoked from now on is news to whatever this request begins.
        generation = self.server.chain.generation
        decision = _PUBLIC
        if not is_open:
            decision = await self.server.chain.decide(question)
            self.server.metrics.count_decision(decision)
        course.subject, course.authenticator = decision.subject, decision.authenticator
        if not decision.allowed:
            raise explain_decision(decision)
        actor = Actor(decision.subject, course.request_id, course.caller.client.transport)
        service = GuardedService(self.server.service, decision, actor, audit=self._audit)
        connection: Any = (
            WebSocket(scope, receive, send) if scope["type"] == "websocket" else Request(scope, receive, send)
        )
        exchange = Exchange(connection, row, found.path, question, decision, service, self.server)
        exchange.generation = generation
        return exchange

    async def _find_resource(self, found: Found) -> Resource | None:
        """Return what an operation is on, with its metadata where there is such an object."""
        kind, name = found.row.kind, found.path.get("name", "")
        if kind is None:
            return None
        if not name:
            return Resource(kind.name)
        service, limiter = self.server.service, self.server.limiter
        context = contextvars.copy_context()

        def find() -> Resource:
            try:
                document = service.get(kind.name, name, observe=False)
            except KCError:  # whether there is none, or it cannot be told now: the handler will say
                return Resource(kind.name, name)
            return Resource(kind.name, name, str(document.get("uid", "")), document.get("metadata"))

        return await anyio.to_thread.run_sync(context.run, find, limiter=limiter)


class _Room:
    """A place among the requests, or the streams, that are served at once."""

    def __init__(self, application: Application, counter: str, limit: float) -> None:
        self._application = application
        self._counter = counter
        self._limit = limit

    def __enter__(self) -> None:
        taken: int = getattr(self._application, self._counter)
        if taken >= self._limit:
            raise UnreachableError(
                "KC", "it is busy: too many requests at once", "try again in a moment", transient=True
            )
        self._move(1)

    def __exit__(self, *_: object) -> None:
        self._move(-1)

    def _move(self, by: int) -> None:
        setattr(self._application, self._counter, getattr(self._application, self._counter) + by)
        self._application.server.metrics.active.inc(by)


def explain_decision(decision: Decision) -> KCError:
    """Return the error that a decision against a request is."""
    reason = sanitise(decision.reason, 300)
    if decision.outcome == "error" or decision.status == UnreachableError.http_status:
        return _with_retry(
            UnreachableError("authentication", reason or "it cannot be decided now", "try again", transient=True),
            decision,
        )
    if decision.status == 429:  # noqa: PLR2004 - HTTP's own
        return _with_retry(DeniedError("authentication", reason or "too many attempts", "wait", status=429), decision)
    is_known = decision.outcome == "deny" and decision.status != 401  # noqa: PLR2004 - as above
    if is_known or decision.status == DeniedError.http_status:
        return DeniedError("request", reason or "not allowed", "ask whoever grants it")
    challenges = decision.challenges or ('Bearer realm="kc"',)
    hint = "kc login PROFILE, or KC_AUTH_HEADER"
    error = DeniedError("request", reason or "it needs a credential that holds", hint, status=401)
    error.headers = {"WWW-Authenticate": ", ".join(challenges)}  # type: ignore[attr-defined]
    return error


def _with_retry(error: KCError, decision: Decision) -> KCError:
    seconds = max(1, round(decision.retry_after))
    error.headers = {"Retry-After": str(seconds)}  # type: ignore[attr-defined]
    return error


def create_app(
    service: Service,
    chain: Chain,
    options: Options = Options(),  # noqa: B008 - a tuple cannot change
    *,
    uploads: Path | None = None,
    revision: Callable[[], int] | None = None,
    sessions: Sessions | None = None,
    audit: AuditTrail | None = None,
) -> Application:
    """Return the application; `uploads` is the folder for what is being uploaded, `audit` the trail of refusals."""
    from backend.api.table import ROWS  # noqa: PLC0415 - it is large

    application = Application(service, chain, options, rows=ROWS, revision=revision, sessions=sessions, audit=audit)
    if uploads is not None:
        from backend.api.streaming import Streams  # noqa: PLC0415 - as above

        application.state.streams = Streams(service, chain, uploads)
    return application
