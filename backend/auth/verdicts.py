"""From an authenticator's answer to the decision that KC acts on: bounded, complete, and closed where in doubt."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from backend.auth.cache import MAXIMUM_TTL
from backend.auth.grants import Grants, find_fault
from backend.auth.protocol import Decision, fail
from backend.text import sanitise

MAXIMUM_SUBJECT: Final = 200
MAXIMUM_GROUPS: Final = 1000
DEFAULT_CHALLENGE: Final = 'Bearer realm="KC"'
_STATUSES: Final = {"deny": (403, 401, 429), "challenge": (401, 429), "error": (503, 429)}
"""The statuses that an answer may ask for; the first one is what it gets otherwise."""
_REASONS: Final = {
    "deny": "this is not allowed",
    "challenge": "no credential that is accepted",
    "error": "it cannot be decided now",
}
_CHALLENGE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,50}(?: [\x20-\x7e]{0,1000})?")
_MAXIMUM_CHALLENGES = 8
_LONGEST_REASON, _LONGEST_DETAIL, _LONGEST_TOKEN = 300, 1000, 100
_RETRY_SECONDS = 2.0
_LONGEST_RETRY = 3600.0
_LONGEST_REVALIDATION = 3600.0


def settle(decision: Decision, grants: Grants) -> Decision:
    """Return a final decision: an `allow` has scopes, anything else a status, and all texts are fit to be shown."""
    if decision.allowed:
        decision = _settle_allow(decision, grants)
    return decision if decision.allowed else _settle_refusal(decision)


def join_challenges(challenges: Iterable[str]) -> tuple[str, ...]:
    """Return those that can stand in a header (RFC 9110, 11.6.1), each once; a default where there is none."""
    sound = [text for text in dict.fromkeys(challenges) if isinstance(text, str) and _CHALLENGE.fullmatch(text)]
    return tuple(sound[:_MAXIMUM_CHALLENGES]) or (DEFAULT_CHALLENGE,)


def is_usable(name: str) -> bool:
    """Return whether a name can be shown as it is.

    Another one is refused and not mended: two names must never become one.
    """
    return isinstance(name, str) and 0 < len(name) <= MAXIMUM_SUBJECT and sanitise(name, MAXIMUM_SUBJECT) == name


def _settle_allow(decision: Decision, grants: Grants) -> Decision:
    if not is_usable(decision.subject):
        detail = f"the subject is empty, longer than {MAXIMUM_SUBJECT} characters, or not printable"
        return replace(decision, outcome="deny", reason="the name of the subject cannot be used", detail=detail)
    if decision.expires_at and decision.expires_at <= time.time():
        return replace(decision, outcome="challenge", reason="the credential has expired")
    groups = tuple(group for group in decision.groups if is_usable(group))[:MAXIMUM_GROUPS]
    scopes = grants.scopes_for(decision.subject, groups) if decision.scopes is None else decision.scopes
    if decision.scopes is not None:
        for scope in decision.scopes:
            if fault := find_fault(scope):
                return replace(fail(f"a scope of its answer is none: {fault}"), authenticator=decision.authenticator)
    return replace(
        decision,
        groups=groups,
        scopes=scopes,
        from_grants=decision.scopes is None,
        challenges=(),
        status=0,
        retry_after=0.0,
        reason="",
        detail=sanitise(decision.detail, _LONGEST_DETAIL),
        token=sanitise(decision.token, _LONGEST_TOKEN),
        ttl=_bound(decision.ttl, 0.0, MAXIMUM_TTL, 0.0),
        revalidate_after=_bound(decision.revalidate_after, 1.0, _LONGEST_REVALIDATION, 30.0),
    )


def _settle_refusal(decision: Decision) -> Decision:
    outcome = decision.outcome
    statuses = _STATUSES[outcome]
    status = decision.status if decision.status in statuses else statuses[0]
    waits = status in (429, 503)
    return replace(
        decision,
        subject=sanitise(decision.subject, MAXIMUM_SUBJECT),
        groups=(),
        scopes=(),
        ttl=0.0,
        status=status,
        challenges=join_challenges(decision.challenges) if status == 401 else (),  # noqa: PLR2004 - RFC 9110, 15.5.2
        retry_after=max(_bound(decision.retry_after, 0.0, _LONGEST_RETRY, 0.0), 1.0) if waits else 0.0,
        reason=sanitise(decision.reason, _LONGEST_REASON) or _REASONS[outcome],
        detail=sanitise(decision.detail, _LONGEST_DETAIL),
        token=sanitise(decision.token, _LONGEST_TOKEN),
    )


def _bound(value: float, least: float, most: float, default: float) -> float:
    """Return a number within bounds; what is none is the default."""
    return min(max(value, least), most) if math.isfinite(value) else default
