"""What one operation of the HTTP interface is: a row of the table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from backend.model.kinds import Kind

Schema = Mapping[str, Any]
JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
NDJSON = "application/x-ndjson"
EVENTS = "text/event-stream"
PIECE = "application/offset+octet-stream"
OCTETS = "application/octet-stream"
DOCUMENT_BYTES = 1 << 20
"""The most bytes that a body of JSON has; a document has 700 KiB."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a query, or a header; its text is read by its schema's `type`."""

    name: str
    schema: Schema
    description: str
    place: str = "query"


@dataclass(frozen=True, slots=True)
class Body:
    """A request's body: `required` ones may not be left out; one without a schema is no JSON."""

    schema: Schema | None
    example: Any = None
    required: bool = True
    media: tuple[str, ...] = (JSON,)
    limit: int = DOCUMENT_BYTES


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that is no error; `schema` names one of `backend.api.schemas`, or is one."""

    description: str
    schema: Schema | None = None
    example: Any = None
    media: str = JSON
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Row:
    """One operation: what `method` on `path` does.

    `action` is what the authenticators are asked; it is empty for a `public` one alone, which nobody is asked of.
    `handler` is MODULE.FUNCTION below `backend.api`, imported when it is first needed. `verb` tells operations apart
    that share a handler. A `streams` one lasts for as long as somebody reads, a `socket` is a WebSocket.
    """

    method: str
    path: str
    operation_id: str
    summary: str
    action: str
    handler: str
    kind: Kind | None = None
    verb: str = ""
    query: tuple[Parameter, ...] = ()
    headers: tuple[Parameter, ...] = ()
    body: Body | None = None
    answers: Mapping[int, Answer] = field(default_factory=dict)
    errors: tuple[int, ...] = ()
    public: bool = False
    streams: bool = False
    socket: bool = False
    description: str = ""

    @cached_property
    def function(self) -> Callable[..., Awaitable[Any]]:
        """The handler itself."""
        module, _, name = self.handler.partition(".")
        function: Callable[..., Awaitable[Any]] = getattr(import_module(f"backend.api.{module}"), name)
        return function

    @cached_property
    def parameters(self) -> Mapping[str, Parameter]:
        """The parameters of the query by name."""
        return {parameter.name: parameter for parameter in self.query}

    @cached_property
    def check_body(self) -> Callable[[Any], None]:
        """Raise RefusedError for a JSON value that the body's schema does not take."""
        from backend.api.bodies import compile_check  # noqa: PLC0415 - jsonschema, for writes alone

        return compile_check(self.body.schema if self.body and self.body.schema is not None else {})
