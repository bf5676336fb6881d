"""The one tree of errors that KC raises, each with a code, a message and a hint.

    KCError
    ├── FailedError         exit 1   something that should have worked did not
    ├── UsageError          exit 2   the caller asked in a wrong way
    ├── NotFoundError       exit 3   there is no such object
    ├── ConflictError       exit 4   version, name or use stands against it
    ├── DeniedError         exit 5   not allowed
    ├── UnreachableError    exit 6   hypervisor, host or remote instance does not answer
    ├── TimedOutError       exit 7   the wait ended first; the work may go on
    └── RefusedError        exit 8   invalid document, unsafe image, value outside its schema

The exit codes are those of the command line; `problem()` is the HTTP form (RFC 9457).
"""

from __future__ import annotations

from typing import Any, ClassVar


class KCError(Exception):
    """An error with what happened, why, and what to do next.

    `what` names the thing (`vm web`), `why` the cause, `hint` the next step; each one line
    of plain text without a final full stop.
    """

    code: ClassVar[str] = "failed"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, what: str, why: str, hint: str = "", **details: Any) -> None:
        """Keep the three lines and any further `details` (JSON values)."""
        super().__init__(what, why, hint)
        self.what = what
        self.why = why
        self.hint = hint
        self.details = details

    def __str__(self) -> str:
        """Return `WHAT: WHY. HINT` on one line."""
        text = f"{self.what}: {self.why}"
        return f"{text}. {self.hint}" if self.hint else text

    @property
    def is_transient(self) -> bool:
        """Whether the same may work in a moment, without anybody doing anything; a detail that its raiser gives."""
        return bool(self.details.get("transient"))

    def problem(self) -> dict[str, Any]:
        """Return the problem object of RFC 9457."""
        return {
            "type": f"urn:kc:error:{self.code}",
            "title": self.what,
            "status": self.http_status,
            "detail": self.why,
            "hint": self.hint,
            "code": self.code,
            **self.details,
        }


class FailedError(KCError):
    """Something that should have worked did not."""


class UsageError(KCError):
    """The caller asked in a wrong way."""

    code = "usage"
    exit_code = 2
    http_status = 400


class NotFoundError(KCError):
    """There is no such object."""

    code = "not-found"
    exit_code = 3
    http_status = 404


class ConflictError(KCError):
    """A version, a name or a use stands against the change."""

    code = "conflict"
    exit_code = 4
    http_status = 409


class DeniedError(KCError):
    """The caller may not do this."""

    code = "denied"
    exit_code = 5
    http_status = 403


class UnreachableError(KCError):
    """The hypervisor, a host or a remote instance does not answer."""

    code = "unreachable"
    exit_code = 6
    http_status = 503


class TimedOutError(KCError):
    """A wait ended before its condition held; the work itself may go on."""

    code = "timed-out"
    exit_code = 7
    http_status = 504


class RefusedError(KCError):
    """The input is refused: an invalid document, an unsafe image, a value outside its schema."""

    code = "refused"
    exit_code = 8
    http_status = 422


def from_problem(problem: dict[str, Any]) -> KCError:
    """Return the error that a problem object describes; unknown codes become `FailedError`."""
    kinds = {kind.code: kind for kind in KCError.__subclasses__()}
    known = {"type", "title", "status", "detail", "hint", "code"}
    details = {key: value for key, value in problem.items() if key not in known}
    kind = kinds.get(str(problem.get("code")), FailedError)
    return kind(str(problem.get("title", "")), str(problem.get("detail", "")), str(problem.get("hint", "")), **details)
