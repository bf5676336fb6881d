"""What a server's answer means: KC's own errors, those of what stands before it, and what is not KC at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from backend.errors import (
    ConflictError,
    DeniedError,
    FailedError,
    KCError,
    NotFoundError,
    UnreachableError,
    from_problem,
)
from backend.remote.options import RemoteOptions
from backend.text import sanitise, sanitise_tree

API_VERSION = "1"


class LineLostError(UnreachableError):
    """No answer came; unlike an answer that says that something behind the server is not to be reached."""


_PROBLEM = "application/problem+json"
_UNAUTHORISED, _FORBIDDEN, _MISSING, _GONE, _TOO_MANY = 401, 403, 404, 410, 429
_REDIRECTS = range(300, 400)
_GATEWAY = (502, 503, 504)
# What an error's constructor calls its own.
_RESERVED = frozenset({"self", "what", "why"})


def decode(data: bytes) -> Any:
    """Return the JSON value of an answer; raise FailedError for what is none."""
    import msgspec  # noqa: PLC0415 - nothing is decoded where nothing is asked

    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FailedError("answer", "it is no JSON", "see that KC, and not something else, answers there") from error


def check_answer(options: RemoteOptions, status: int, headers: Mapping[str, str], body: bytes) -> None:
    """Raise the error that an answer tells of; return for one that tells of none."""
    spoken = headers.get("kc-api")
    if spoken is not None and spoken != API_VERSION:
        theirs, what = sanitise(headers.get("kc-version", "another version"), 40), options.address.label
        why = f"it is KC {theirs} and speaks version {sanitise(spoken, 20)} of the interface, this one {API_VERSION}"
        raise UnreachableError(what, why, "have the same KC on both sides", version=theirs)
    if status < _REDIRECTS.start and spoken is not None:
        return
    raise read_error(options, status, headers, body)


def read_error(options: RemoteOptions, status: int, headers: Mapping[str, str], body: bytes) -> KCError:
    """Return the error that an answer tells of."""
    problem = _read_problem(headers, body)
    where = options.address.label
    if status == _UNAUTHORISED:
        why = str(problem.get("detail") or "it wants a credential that holds")
        return DeniedError(str(problem.get("title") or where), sanitise(why, 400), options.login_hint)
    if problem:
        error = make_error(problem)
        if status == _GONE and isinstance(error, ConflictError):
            error.details.setdefault("compacted", True)
        return error
    if status in _GATEWAY:
        return LineLostError(where, f"what stands before it says {status}", "see that kc serve runs", transient=True)
    if status == _TOO_MANY:
        return UnreachableError(where, "it is asked too much", "try again in a moment", transient=True)
    if status == _FORBIDDEN:
        return DeniedError(where, "what stands before it does not let this through", options.login_hint)
    if status in _REDIRECTS:
        elsewhere = sanitise(headers.get("location", "nowhere"), 200)
        return UnreachableError(where, f"it sends to {elsewhere}", "name that place in the profile, where it is right")
    if headers.get("kc-api") is None:
        kind = sanitise(headers.get("content-type", "no type").partition(";")[0], 60)
        return UnreachableError(where, f"what answers there is not KC: {status}, {kind}", "see the URL and its port")
    if status == _MISSING:
        return NotFoundError(where, "there is no such thing")
    return FailedError(where, f"it answered {status} and no more", "see its log")


def make_error(problem: Mapping[str, Any]) -> KCError:
    """Return the error of a problem object that a server sent."""
    clean = sanitise_tree({key: value for key, value in problem.items() if key not in _RESERVED})
    error = from_problem(clean)
    if clean.get("status") not in (None, error.http_status):
        # HTTP has finer words for some errors than KC has kinds of them.
        error.details["status"] = clean["status"]
    return error


def _read_problem(headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    if not headers.get("content-type", "").startswith(_PROBLEM):
        return {}
    try:
        problem = decode(body)
    except FailedError:
        return {}
    return problem if isinstance(problem, dict) else {}
