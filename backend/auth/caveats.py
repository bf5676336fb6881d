"""What narrows a token: each caveat one line of JSON, `[TAG, …]`, and all of them must hold.

    ["expires", SECONDS]  ["not-before", SECONDS]     Unix seconds
    ["actions", [PATTERN, …]]                         of what it may, these alone
    ["selector", TEXT]                                of the objects, those that match too
    ["read-only"]                                     of what it may, reading alone
    ["client", ["192.0.2.0/24", "uid:1000", …]]       from one of these networks, or as one of these users of a socket
    ["bound", "tls" | "ssh", "SHA256:…"]              with this client certificate, or this SSH key, besides

Whatever is not exactly one of these makes the token worth nothing: a caveat that is not understood cannot hold.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Final, NamedTuple

from backend.auth.protocol import Client, Scope
from backend.errors import RefusedError
from backend.model.actions import check_selector, intersect, list_reading
from backend.model.selector_terms import MAXIMUM_TERMS, parse_terms

_MAXIMUM_SELECTOR: Final = 1024
_MAXIMUM_STARS: Final = 16
_MAXIMUM_CLIENTS: Final = 16
_LATEST: Final = 1 << 36
_PATTERN = re.compile(r"\*|[a-z][a-z-]{0,39}\.(\*|[a-z][a-z-]{0,39})")
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
_USER = re.compile(r"uid:(0|[1-9][0-9]{0,9})")


class Limits(NamedTuple):
    """What caveats leave: None of actions where none is left out; `expires_at` 0 where they name no end."""

    actions: tuple[str, ...] | None = None
    selectors: tuple[str, ...] = ()
    expires_at: float = 0.0


def build(tag: str, *values: Any) -> bytes:
    """Return a caveat; raise RefusedError for one that is none."""
    data = json.dumps([tag, *values], ensure_ascii=False, separators=(",", ":")).encode()
    read(data)
    return data


def read(data: bytes) -> tuple[Any, ...]:
    """Return the tag and the values of a caveat, both checked; raise RefusedError."""
    try:
        entry = json.loads(data.decode())
    except (ValueError, RecursionError):
        entry = None
    if not isinstance(entry, list) or not entry or not isinstance(entry[0], str) or entry[0] not in _CHECKS:
        raise RefusedError("token", "it has a caveat that this KC does not know")
    tag, *values = entry
    _CHECKS[tag](values)
    return (tag, *values)


def apply(caveats: Iterable[bytes], client: Client, now: float) -> Limits:
    """Return what a token's caveats leave for a client; raise RefusedError where one does not hold."""
    limits = Limits()
    for data in caveats:
        tag, *values = read(data)
        limits = _APPLY[tag](limits, values, client, now)
    if sum(text.count("*") for text in limits.selectors) > _MAXIMUM_STARS:
        raise RefusedError("token", f"its caveats have more than {_MAXIMUM_STARS} stars")
    return limits


def narrow(scopes: Iterable[Scope], limits: Limits) -> tuple[Scope, ...]:
    """Return what is left of scopes; raise RefusedError where the selectors together are too much for one."""
    extra = ",".join(dict.fromkeys(filter(str.strip, limits.selectors)))
    narrowed: list[Scope] = []
    for scope in scopes:
        actions = scope.actions if limits.actions is None else intersect(scope.actions, limits.actions)
        if actions:
            narrowed.append(Scope(actions, _join(scope.selector, extra)))
    return tuple(dict.fromkeys(narrowed))


def _join(one: str, other: str) -> str:
    """Return the selector that takes what two selectors both take."""
    if not one.strip() or not other or one == other:
        return one.strip() or other
    # A scope's 1024 characters and what a token has room for are within what a selector may have.
    if _count_terms(one) + _count_terms(other) > MAXIMUM_TERMS:
        raise RefusedError("token", "its selectors together are more than one selector can be")
    return f"{one},{other}"


@lru_cache(maxsize=1024)
def _count_terms(text: str) -> int:
    return len(parse_terms(text))


def _refuse(tag: str) -> RefusedError:
    return RefusedError("token", f"its caveat {tag} is none that this KC knows")


def _check_time(values: list[Any]) -> None:
    match values:
        case [int() as seconds] if not isinstance(seconds, bool) and 0 <= seconds < _LATEST:
            return
    raise _refuse("of a time")


def _check_actions(values: list[Any]) -> None:
    match values:
        case [[_, *_] as patterns] if all(isinstance(one, str) and _PATTERN.fullmatch(one) for one in patterns):
            return
    raise _refuse("actions")


def _check_selector(values: list[Any]) -> None:
    match values:
        case [str() as text] if len(text) <= _MAXIMUM_SELECTOR and text.count("*") <= _MAXIMUM_STARS:
            return check_selector(text)
    raise _refuse("selector")


def _check_read_only(values: list[Any]) -> None:
    if values:
        raise _refuse("read-only")


def _check_client(values: list[Any]) -> None:
    match values:
        case [[_, *_] as clients] if len(clients) <= _MAXIMUM_CLIENTS:
            for text in clients:
                if not isinstance(text, str) or (not _USER.fullmatch(text) and _parse_network(text) is None):
                    break
            else:
                return
    raise _refuse("client")


def _check_bound(values: list[Any]) -> None:
    match values:
        case ["tls" | "ssh", str() as fingerprint] if _FINGERPRINT.fullmatch(fingerprint):
            return
    raise _refuse("bound")


def _parse_network(text: str) -> IPv4Network | IPv6Network | None:
    try:
        return ip_network(text)
    except ValueError:
        return None


def _expire(limits: Limits, values: list[Any], _client: Client, now: float) -> Limits:
    until = float(values[0])
    if now >= until:
        raise RefusedError("token", "it has expired")
    return limits._replace(expires_at=min(until, limits.expires_at or until))


def _begin(limits: Limits, values: list[Any], _client: Client, now: float) -> Limits:
    if now < values[0]:
        raise RefusedError("token", "it does not hold yet")
    return limits


def _allow(limits: Limits, values: list[Any], _client: Client, _now: float) -> Limits:
    patterns = tuple(values[0])
    return limits._replace(actions=patterns if limits.actions is None else intersect(limits.actions, patterns))


def _only_read(limits: Limits, _values: list[Any], client: Client, now: float) -> Limits:
    return _allow(limits, [list_reading()], client, now)


def _select(limits: Limits, values: list[Any], _client: Client, _now: float) -> Limits:
    return limits._replace(selectors=(*limits.selectors, values[0]))


def _require_client(limits: Limits, values: list[Any], client: Client, _now: float) -> Limits:
    if not any(_is_from(client, text) for text in values[0]):
        raise RefusedError("token", "it is not for this client")
    return limits


def _is_from(client: Client, text: str) -> bool:
    if _USER.fullmatch(text):
        return client.peer is not None and f"uid:{client.peer.uid}" == text
    try:
        address = ip_address(client.address.partition("%")[0])
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address) in ip_network(text)


def _require_key(limits: Limits, values: list[Any], client: Client, _now: float) -> Limits:
    found = client.tls_fingerprint if values[0] == "tls" else client.ssh_fingerprint
    if found != values[1]:
        raise RefusedError("token", "it is bound to another key")
    return limits


_CHECKS: dict[str, Callable[[list[Any]], None]] = {
    "expires": _check_time, "not-before": _check_time, "actions": _check_actions, "selector": _check_selector,
    "read-only": _check_read_only, "client": _check_client, "bound": _check_bound,
}  # fmt: skip
_APPLY: dict[str, Callable[[Limits, list[Any], Client, float], Limits]] = {
    "expires": _expire, "not-before": _begin, "actions": _allow, "selector": _select,
    "read-only": _only_read, "client": _require_client, "bound": _require_key,
}  # fmt: skip
