"""One request on its way through KC: who asks, and the service as they may use it."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import anyio.to_thread

from backend.api.bodies import LARGE_BYTES, parse_body, read_body, read_row_body
from backend.api.queries import read_query

if TYPE_CHECKING:
    from anyio import CapacityLimiter
    from starlette.requests import HTTPConnection

    from backend.api.lists import Lists
    from backend.api.metrics import Metrics
    from backend.api.rows import Row
    from backend.api.sessions import Sessions
    from backend.auth.chain import Chain
    from backend.auth.guarded import GuardedService
    from backend.auth.protocol import AuthRequest, Decision
    from backend.service import Service

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class Surroundings:
    """What all requests to one server share.

    `limiter` bounds the threads of calls that answer at once; whoever holds a thread for long brings a limiter of its
    own. `service` is the one behind every guard.
    """

    def __init__(
        self,
        service: Service,
        chain: Chain,
        limiter: CapacityLimiter,
        metrics: Metrics,
        lists: Lists,
        sessions: Sessions | None,
    ) -> None:
        self.service = service
        self.sessions = sessions
        self.chain = chain
        self.limiter = limiter
        self.metrics = metrics
        self.lists = lists


class Exchange:
    """What a handler works with; made once its request has been let in, before any of its body is read.

    `service` is held to the decision: it filters lists, and raises NotFoundError and DeniedError by itself. `row` is
    the operation that was asked for, `path` what stood in its path (`name`).
    """

    def __init__(
        self,
        connection: HTTPConnection,
        row: Row,
        path: Mapping[str, str],
        question: AuthRequest,
        decision: Decision,
        service: GuardedService,
        server: Surroundings,
    ) -> None:
        self.connection = connection
        self.row = row
        self.path = path
        self.question = question
        self.decision = decision
        self.service = service
        self.server = server
        self.generation = -1
        """That of the chain when `decision` was asked for; where it is another one by now, it may not hold any more."""
        self._query: dict[str, Any] | None = None

    @property
    def request_id(self) -> str:
        """What joins all that this request does, in answers, logs and the audit trail."""
        return self.question.request_id

    @property
    def name(self) -> str:
        """The name in the path; raises KeyError for an operation whose path has none."""
        return self.path["name"]

    @property
    def kind(self) -> str:
        """The kind of document that the path speaks of; empty for none."""
        return self.row.kind.name if self.row.kind else ""

    @property
    def query(self) -> dict[str, Any]:
        """The query's values by their schemas, defaults filled in; raises UsageError for what the table lacks."""
        if self._query is None:
            self._query = read_query(self.row, self.question.query)
        return self._query

    def header(self, name: str) -> str:
        """Return a header's value, empty where there is none."""
        return self.connection.headers.get(name, "")

    async def json(self) -> Any:
        """Return the body as the JSON value that the table asks for; {} where it may be, and is, left out.

        Raises UsageError (400, 415, 413) for no such JSON, RefusedError (422) for one outside its schema.
        """
        data = await read_row_body(self.connection, self.row)
        if data is None:
            return {}
        # A large one takes its time, in which others are to be answered.
        return parse_body(self.row, data) if len(data) < LARGE_BYTES else await self.call(parse_body, self.row, data)

    async def body(self, limit: int) -> bytes:
        """Return the body, `limit` bytes at most; raise UsageError (413)."""
        return await read_body(self.connection, limit)

    async def call(
        self, function: Callable[Parameters, Result], *args: Parameters.args, **keywords: Parameters.kwargs
    ) -> Result:
        """Return what a blocking call gives, made in one of the server's threads with this request's context."""
        return await self.call_within(self.server.limiter, function, *args, **keywords)

    async def call_within(
        self,
        limiter: CapacityLimiter,
        function: Callable[Parameters, Result],
        *args: Parameters.args,
        **keywords: Parameters.kwargs,
    ) -> Result:
        """Return what a blocking call gives, made in one of the threads of another limiter than the server's."""
        context = contextvars.copy_context()
        return await anyio.to_thread.run_sync(
            lambda: context.run(function, *args, **keywords), limiter=limiter, abandon_on_cancel=False
        )

    async def renew(self) -> bool:
        """Ask again whether this request may go on, and hold the service to the answer; False where it may not.

        `decision` is the new one, also where it is a refusal.
        """
        self.generation = self.server.chain.generation
        self.decision = await self.server.chain.decide(replace(self.question, phase="renew"))
        if self.decision.allowed:
            self.service.decision = self.decision
        return self.decision.allowed
