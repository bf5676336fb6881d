"""Several authenticators of which every one must allow: a password and a one-time code, say.

    [[auth.chain]]
    type = "all"
    of = [{type = "htpasswd", file = "users"}, {type = "otp"}]

A password and a code travel in one Basic credential, as `user:PASSWORDCODE`; `enrolment.split_code` parts them. The
part of type `otp` is shown `user:CODE`, every other part `user:PASSWORD`. The code's part is asked last whatever the
order, so that nobody without the password can try codes, or use one up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from backend.auth.basic import CHALLENGE, WRONG, read_basic, write_basic
from backend.auth.claims import is_own_token
from backend.auth.enrolment import split_code
from backend.auth.protocol import API_VERSION, Authenticator, AuthRequest, CacheScope, Decision, deny, fail
from backend.auth.tables import COMMON_SETTINGS, Table

if TYPE_CHECKING:
    from backend.auth.context import AuthContext

CODE_TYPE: Final = "otp"
_LEAST_PARTS = 2
_SCOPES: Final[tuple[CacheScope, ...]] = ("none", "request", "credential")


class _Part(NamedTuple):
    authenticator: Authenticator
    is_code: bool


class All:
    """Settings: `of`, the tables of at least two authenticators; the first one names the subject, the others agree."""

    api_version: int = API_VERSION

    def __init__(self, context: AuthContext, settings: Mapping[str, Any]) -> None:
        """Make the parts; raise RefusedError for settings that one of them refuses."""
        table = Table(settings, "auth.chain (all)")
        table.check_keys(COMMON_SETTINGS | {"of"})
        self.name = table.text("name") or "all"
        tables = table.tables("of")
        if len(tables) < _LEAST_PARTS:
            raise table.refuse("of", "has fewer than two authenticators", "name two, or use the one by itself")
        parts = [
            _Part(context.build({"name": f"{self.name}.{part.get('type')}", **part}), part.get("type") == CODE_TYPE)
            for part in tables
        ]
        self._parts = sorted(parts, key=lambda part: part.is_code)
        if sum(part.is_code for part in parts) > 1:
            raise table.refuse("of", f"has more than one {CODE_TYPE}", "there is one code in a credential")
        if self._parts[0].is_code:  # pragma: no cover - a lone code is fewer than two parts
            raise table.refuse("of", "has nothing but codes", "name what checks the password")
        scopes = {part.authenticator.cache_scope for part in parts}
        self.cache_scope: CacheScope = next(scope for scope in _SCOPES if scope in scopes)
        self.challenges = _list_challenges(self._parts)

    def accepts(self, request: AuthRequest) -> bool:
        """Return whether every part takes its share of the credential for one of its kind."""
        if self._has_code and (request.scheme != "basic" or is_own_token(request)):
            return False
        shares = self._split(request)
        if shares is None:
            # It is ours by its scheme, and cannot be right.
            return self._has_code
        return all(part.authenticator.accepts(share) for part, share in zip(self._parts, shares, strict=True))

    async def decide(self, request: AuthRequest) -> Decision:
        """Ask one part after the other, until one does not allow."""
        shares = self._split(request)
        if shares is None:
            return WRONG
        answers: list[Decision] = []
        for part, share in zip(self._parts, shares, strict=True):
            answer = await part.authenticator.decide(share)
            if answer.outcome == "abstain" and answers:
                return replace(WRONG, detail=f"{part.authenticator.name} does not know {answers[0].subject}")
            if not answer.allowed:
                return replace(answer, detail=f"{part.authenticator.name}: {answer.detail or answer.reason}")
            if answers and answer.subject != answers[0].subject:
                return deny("the parts of the credential are of different subjects")
            answers.append(answer)
        return _join(answers)

    async def check_health(self) -> str:
        """Return why a part cannot answer now."""
        found = [(part.authenticator.name, await part.authenticator.check_health()) for part in self._parts]
        return "; ".join(f"{name}: {health}" for name, health in found if health)

    async def close(self) -> None:
        """Close every part."""
        for part in self._parts:
            await part.authenticator.close()

    @property
    def _has_code(self) -> bool:
        return self._parts[-1].is_code

    def _split(self, request: AuthRequest) -> list[AuthRequest] | None:
        """Return what each part is shown; None where the credential cannot be split."""
        if not self._has_code:
            return [request] * len(self._parts)
        basic = read_basic(request)
        if basic is None:
            return None
        secrets = split_code(basic.password)
        if secrets is None or not secrets[0]:
            return None
        first, last = (replace(request, credential=write_basic(basic.user, secret)) for secret in secrets)
        return [last if part.is_code else first for part in self._parts]


def _list_challenges(parts: list[_Part]) -> tuple[str, ...]:
    found = [challenge for part in parts for challenge in getattr(part.authenticator, "challenges", ())]
    return tuple(dict.fromkeys(found)) or (CHALLENGE,)


def _join(answers: list[Decision]) -> Decision:
    """Return what several answers that allow come to: the shortest times, all groups, the one list of scopes."""
    first = answers[0]
    told = [answer.scopes for answer in answers if answer.scopes is not None]
    if any(scopes != told[0] for scopes in told):
        return fail("two parts say different scopes")
    ends = [answer.expires_at for answer in answers if answer.expires_at]
    return replace(
        first,
        groups=tuple(dict.fromkeys(group for answer in answers for group in answer.groups)),
        scopes=told[0] if told else None,
        ttl=min(answer.ttl for answer in answers),
        expires_at=min(ends, default=0.0),
        revalidate_after=min(answer.revalidate_after for answer in answers),
        token=next((answer.token for answer in answers if answer.token), ""),
    )
