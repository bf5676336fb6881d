"""An HTTP server that decides: the convention of nginx's auth_request, Traefik's ForwardAuth, Caddy's forward_auth.

It is sent a GET with the credential in its header and what is asked in others, made here from nothing: no header, no
body and no cookie of the client's is ever handed on. Its answer's status decides:

    2xx     allow: who it is stands in a header (`Remote-User` and the like), what they may do in KC's grants
    401     challenge, its WWW-Authenticate handed on
    403, 3xx  deny: a client of an API cannot follow a redirect to a page; an https one is shown
    429     deny, with its Retry-After
    else, no answer in time, or one of more than 64 KiB: error
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote, urlsplit

from backend.auth.basic import CHALLENGE, read_basic
from backend.auth.cache import MAXIMUM_TTL
from backend.auth.claims import is_own_token, is_plain
from backend.auth.links import DEFAULT_TIMEOUT, MAXIMUM_TIMEOUT
from backend.auth.protocol import API_VERSION, AuthRequest, CacheScope, Decision, Scope, challenge, deny, fail
from backend.auth.tables import COMMON_SETTINGS, Table

if TYPE_CHECKING:
    import httpx

    from backend.auth.context import AuthContext

MAXIMUM_ANSWER: Final = 64 << 10
SUBJECT_HEADERS: Final = ("Remote-User", "X-Auth-Request-User", "X-Forwarded-User")
GROUPS_HEADERS: Final = ("Remote-Groups", "X-Auth-Request-Groups", "X-Forwarded-Groups")
_SETTINGS = COMMON_SETTINGS | {
    *("url", "ca", "insecure", "header", "claims", "cache"),
    *("subject", "subjectHeaders", "groupsHeaders", "scopesHeader"),
}
_CACHES: Final[Mapping[str, CacheScope]] = {"none": "none", "credential": "credential", "request": "request"}
_UNIX = re.compile(r"http://unix:(/[^:]+):(/.*)")
_HEADER = re.compile(r"[A-Za-z0-9-]{1,100}")
_HOST = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}")
_LOOPBACK_NAMES = ("localhost",)
_CONNECTIONS = 32
_SUCCESS, _REDIRECT, _CLIENT_FAULT = 200, 300, 400
_UNAUTHENTICATED, _FORBIDDEN, _TOO_MANY = 401, 403, 429


class _Target(NamedTuple):
    """Where the server is: its URL, and the path of its unix socket where it has one."""

    url: str
    socket: str = ""


class _Reply(NamedTuple):
    """What of an answer decides."""

    status: int
    headers: httpx.Headers


class Forward:
    """Settings: `url` (`https://…`, `http://` on loopback, `http://unix:/SOCKET:/PATH`), `ca` (a file of certificates).

    `claims`: the schemes whose credentials it is shown (basic, bearer), never KC's own tokens. `header`: under which it
    expects them. `subject = "basic"`: who it is says the credential, where the answer does not; for servers that check
    passwords and say no more. `subjectHeaders`, `groupsHeaders`; `scopesHeader`: a header with a JSON list of
    `{"actions": […], "selector": "…"}`, believed only if it is named here. `cache`: `request` (an answer holds for the
    same question), `credential` (for all questions), `none`. `insecure`: credentials go over a network in the clear.
    """

    api_version: int = API_VERSION

    def __init__(self, context: AuthContext, settings: Mapping[str, Any]) -> None:
        """Take the settings; nothing is connected yet."""
        table = Table(settings, "auth.chain (forward)")
        table.check_keys(_SETTINGS)
        self.name = table.text("name") or "forward"
        self.cache_scope: CacheScope = _CACHES[_choose(table, "cache", "request", tuple(_CACHES))]
        self._target = _read_target(table)
        self._claims = frozenset(scheme.lower() for scheme in table.texts("claims", ("basic", "bearer")))
        self._header = _read_header(table, "header", "Authorization")
        self._is_basic_subject = _choose(table, "subject", "answer", ("answer", "basic")) == "basic"
        self._subject_headers = table.texts("subjectHeaders", SUBJECT_HEADERS)
        self._groups_headers = table.texts("groupsHeaders", GROUPS_HEADERS)
        self._scopes_header = _read_header(table, "scopesHeader", "")
        self._timeout = table.number("timeout", DEFAULT_TIMEOUT, 0.05, MAXIMUM_TIMEOUT)
        ca = table.text("ca")
        self._transport = _open_transport(table, str(context.paths.config / ca) if ca else "", self._target.socket)
        self.challenges = tuple(
            CHALLENGE if scheme == "basic" else f'{scheme.capitalize()} realm="KC"' for scheme in sorted(self._claims)
        )

    def accepts(self, request: AuthRequest) -> bool:
        """Return whether the credential is of a scheme that it is shown, and is none of KC's own tokens."""
        return request.scheme in self._claims and is_plain(request) and not is_own_token(request)

    async def decide(self, request: AuthRequest) -> Decision:
        """Ask the server."""
        reply = await self._ask([(self._header.encode(), request.credential), *_describe(request)])
        return reply if isinstance(reply, Decision) else self._judge(request, reply)

    async def check_health(self) -> str:
        """Return why the server does not answer; empty where it does, whatever it says to nobody's request."""
        reply = await self._ask([(b"X-KC-Action", b"auth.check")])
        return reply.detail if isinstance(reply, Decision) else ""

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def _ask(self, headers: list[tuple[bytes, bytes]]) -> _Reply | Decision:
        import httpx  # noqa: PLC0415 - a slow import, which only those pay who ask a server

        # The transport alone: what a client would add is headers, cookies of earlier answers, and redirects.
        timeout = httpx.Timeout(self._timeout).as_dict()
        host = urlsplit(self._target.url).netloc.encode()
        request = httpx.Request(
            "GET", self._target.url, headers=[(b"Host", host), *headers], extensions={"timeout": timeout}
        )
        try:
            response = await self._transport.handle_async_request(request)
            try:
                size = 0
                # As it was sent: an answer that unpacks to a thousand times its size is not unpacked.
                async for block in response.aiter_raw():
                    size += len(block)
                    if size > MAXIMUM_ANSWER:
                        return fail(f"the server's answer is longer than {MAXIMUM_ANSWER} bytes")
            finally:
                await response.aclose()
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as error:
            # Not the text of it, which quotes headers that it found wrong.
            return fail(f"the server does not answer: {type(error).__name__}")
        return _Reply(response.status_code, response.headers)

    def _judge(self, request: AuthRequest, reply: _Reply) -> Decision:
        status, headers = reply
        if _SUCCESS <= status < _REDIRECT:
            return self._allow(request, headers)
        if status == _UNAUTHENTICATED:
            values = headers.get_list("WWW-Authenticate")
            found = challenge("", "the credential is not accepted", "the server answered 401")
            return Decision(found.outcome, challenges=tuple(values) or self.challenges, reason=found.reason)
        if status == _TOO_MANY:
            seconds = headers.get("Retry-After", "")
            wait = float(seconds) if seconds.isdecimal() and len(seconds) < 10 else 0.0  # noqa: PLR2004 - bounded later
            return Decision("deny", status=status, retry_after=wait, reason="too many requests")
        if _REDIRECT <= status < _CLIENT_FAULT:
            place = headers.get("Location", "")
            return deny(f"log in at {place} first" if place.startswith("https://") else "log in first")
        if status == _FORBIDDEN:
            return deny("this is not allowed", "the server answered 403")
        return fail(f"the server answered {status}")

    def _allow(self, request: AuthRequest, headers: httpx.Headers) -> Decision:
        subject = _find_header(headers, self._subject_headers)
        if not subject and self._is_basic_subject:
            basic = read_basic(request)
            subject = basic.user if basic else ""
        if not subject:
            return fail("the server's answer does not say who it is")
        scopes: tuple[Scope, ...] | None = None
        if self._scopes_header:
            scopes = _parse_scopes(headers.get(self._scopes_header, "[]"))
            if scopes is None:
                return fail("the server's answer has scopes that are none")
        groups = _find_header(headers, self._groups_headers)
        names = tuple(dict.fromkeys(name for part in groups.split(",") if (name := part.strip())))
        return Decision("allow", subject=subject, groups=names, scopes=scopes, ttl=_read_ttl(headers))


def _describe(request: AuthRequest) -> list[tuple[bytes, bytes]]:
    """Return the headers that tell what is asked; those of nginx and Authelia beside those of Traefik and Caddy."""
    client, resource = request.client, request.resource
    scheme = "https" if client.transport == "tls" else "http"
    host = request.host if _HOST.fullmatch(request.host) else ""
    uri = _escape(request.path or "/") + (f"?{_escape(request.query, '?')}" if request.query else "")
    fields = {
        "X-Forwarded-Method": _escape(request.method),
        "X-Forwarded-Proto": scheme,
        "X-Forwarded-Host": host,
        "X-Forwarded-Uri": uri,
        "X-Forwarded-For": _escape(client.address),
        "X-Original-Method": _escape(request.method),
        "X-Original-URI": uri,
        "X-Original-URL": f"{scheme}://{host}{uri}",
        "X-KC-Action": request.action,
        "X-KC-Resource": f"{resource.kind}/{_escape(resource.name)}" if resource else "",
        "X-KC-Resource-Uid": _escape(resource.uid) if resource else "",
        "X-Request-Id": _escape(request.request_id),
    }
    return [(name.encode(), value.encode()) for name, value in fields.items() if value]


def _escape(text: str, further: str = "") -> str:
    """Return a text of which nothing can leave its header; escapes that it has already stay."""
    return quote(text, safe="/%:@!$&'()*+,;=~-._" + further, errors="replace")[:8192]


def _find_header(headers: httpx.Headers, names: tuple[str, ...]) -> str:
    """Return the first header that there is; several of one name are no answer to anything."""
    for name in names:
        values = headers.get_list(name)
        if values:
            return values[0].strip() if len(values) == 1 else ""
    return ""


def _read_ttl(headers: httpx.Headers) -> float:
    """Return for how many seconds an answer may be kept: what Cache-Control's max-age says, else none."""
    words = [word.strip().lower() for word in headers.get("Cache-Control", "").split(",")]
    if {"no-store", "no-cache"} & set(words):
        return 0.0
    found = next((word.partition("=")[2].strip('"') for word in words if word.startswith("max-age=")), "")
    return min(float(found), MAXIMUM_TTL) if found.isdecimal() and len(found) < 10 else 0.0  # noqa: PLR2004 - of 60


def _parse_scopes(text: str) -> tuple[Scope, ...] | None:
    """Return the scopes of a header, None where they have another form; the chain checks what they say."""
    try:
        items = json.loads(text)
        scopes = [(item["actions"], item.get("selector", "")) for item in items]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    for actions, selector in scopes:
        if not isinstance(actions, list) or not isinstance(selector, str):
            return None
        if not all(isinstance(action, str) for action in actions):
            return None
    return tuple(Scope(tuple(actions), selector) for actions, selector in scopes)


def _read_target(table: Table) -> _Target:
    url = table.text("url")
    if found := _UNIX.fullmatch(url):
        return _Target(f"http://localhost{found[2]}", found[1])
    hint = "write it as https://HOST/PATH, http://127.0.0.1:PORT/PATH or http://unix:/SOCKET:/PATH"
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        parts.port  # noqa: B018 - raises for one that is none
    except ValueError as error:
        raise table.refuse("url", "is no URL", hint) from error
    if parts.scheme not in ("http", "https") or not host or parts.username is not None or parts.fragment:
        raise table.refuse("url", "is missing, or is no plain URL of HTTP", hint)
    if parts.scheme == "http" and not _is_loopback(host) and not table.flag("insecure"):
        why = "would carry credentials over a network in the clear"
        raise table.refuse("url", why, "write https, or insecure = true where the network is KC's own")
    return _Target(url)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host in _LOOPBACK_NAMES


def _read_header(table: Table, key: str, default: str) -> str:
    name = table.text(key, default)
    if name and not _HEADER.fullmatch(name):
        raise table.refuse(key, "is no name of a header", "write letters, digits and -")
    return name


def _choose(table: Table, key: str, default: str, known: tuple[str, ...]) -> str:
    value = table.text(key, default)
    if value not in known:
        raise table.refuse(key, "is none of them", f"write {' or '.join(known)}")
    return value


def _open_transport(table: Table, ca: str, socket: str) -> httpx.AsyncHTTPTransport:
    import httpx  # noqa: PLC0415 - as above

    try:
        context = ssl.create_default_context(cafile=ca or None)
    except (OSError, ssl.SSLError) as error:
        raise table.refuse("ca", "cannot be read", "name a file of certificates in PEM") from error
    limits = httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS // 4)
    return httpx.AsyncHTTPTransport(verify=context, trust_env=False, limits=limits, uds=socket or None)
