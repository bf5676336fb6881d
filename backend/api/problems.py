"""Errors as answers: problem objects of RFC 9457, and nothing of what went on inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from backend.errors import DeniedError, KCError, UnreachableError, UsageError

MEDIA = "application/problem+json"
RETRY_SECONDS = 2
_UNAUTHENTICATED, _TOO_MANY = 401, 429
_STATUSES = {"version": 409, "precondition": 412}


class HttpError(UsageError):
    """A request that HTTP itself has a status for (405, 413, 415…), with the headers that go with it."""

    def __init__(
        self, status: int, what: str, why: str, hint: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(what, why, hint, status=status)
        self.headers = dict(headers or {})


class PreconditionError(UsageError):
    """What `If-Match` or `If-None-Match` asks for does not hold."""


def encode(value: Any) -> bytes:
    """Return a value as JSON in UTF-8."""
    import msgspec  # noqa: PLC0415 - a server's alone

    return msgspec.json.encode(value)


def answer_problem(error: KCError, request_id: str = "") -> Response:
    """Return the answer that an error is."""
    problem = error.problem()
    problem.setdefault("requestId", request_id)
    status = int(problem["status"])
    headers = dict(getattr(error, "headers", {}))
    if isinstance(error, UnreachableError) or status in (_TOO_MANY, UnreachableError.http_status):
        headers.setdefault("Retry-After", str(RETRY_SECONDS))
    return Response(encode(problem), status, headers, MEDIA)


def internal_problem(request_id: str) -> Response:
    """Return the answer to a request in which KC itself failed; the log has what happened, under the same id."""
    from backend.errors import FailedError  # noqa: PLC0415 - hoped to be seldom

    error = FailedError("KC", "internal error", f"the server's log tells what happened to request {request_id}")
    return answer_problem(error, request_id)


def as_conditional(error: KCError) -> KCError:
    """Return an error about a version or a name as the failed precondition that it is where the request had one."""
    if error.details.get("reason") in ("version", "name"):
        error.details["status"] = 412
    return error


__all__ = ["DeniedError", "HttpError", "answer_problem", "as_conditional", "encode", "internal_problem"]
