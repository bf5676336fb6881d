"""From `[auth]` in the settings to a chain of authenticators; nothing is loaded that the settings do not name.

    [auth]
    header = "authorization"            which header has the credential
    trustedProxies = ["10.0.0.0/24"]    whose X-Forwarded-For is believed; "unix": who comes over the unix socket
    keyFile = "/etc/kc/auth.key"        instead of `auth.key` among the data

    [[auth.chain]]                      in their order; without any: tokens, ssh-keys, peer
    type = "htpasswd"                   an entry point of the group `kc.authenticators`
    name = "staff"                      in logs and audit; left out: the type
    timeout = 2                         seconds, at most 10
    concurrency = 16                    questions at one time
    …                                   what else the authenticator asks for

`[[auth.grants]]` is in `grants.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from backend.auth.chain import Chain, Look
from backend.auth.changes import FileWatch, RevocationWatch, find_files
from backend.auth.context import AuthContext
from backend.auth.grants import Grants, read_grants
from backend.auth.links import DEFAULT_CONCURRENCY, DEFAULT_TIMEOUT, MAXIMUM_TIMEOUT, Lineup, Link, Origin
from backend.auth.protocol import API_VERSION, ENTRY_POINTS, Authenticator, AuthenticatorFactory
from backend.auth.proxies import parse_proxies
from backend.auth.tables import Table
from backend.errors import RefusedError
from backend.settings import Settings, read_auth_table
from backend.text import sanitise

if TYPE_CHECKING:
    from backend.audit import AuditTrail
    from backend.auth.keys import MasterKey
    from backend.store.protocol import Store

KEYS: Final = frozenset({"header", "trustedProxies", "keyFile", "chain", "grants"})
DEFAULT_CHAIN: Final[tuple[Mapping[str, Any], ...]] = (
    {"type": "tokens"},
    {"type": "ssh-keys"},
    {"type": "peer"},
)
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]{1,100}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,49}")
_MAXIMUM_CONCURRENCY = 256
_MAXIMUM_DEPTH = 3
# What a distribution's code, which is anybody's, may raise while it is loaded or made.
_FAULTS = (
    *(ArithmeticError, AssertionError, AttributeError, ImportError, LookupError),
    *(OSError, RuntimeError, SyntaxError, TypeError, ValueError),
)


class AuthSettings(NamedTuple):
    """What `[auth]` says; `chain` has the tables as they are written, `header` is in lower case."""

    header: str
    trusted_proxies: tuple[str, ...]
    chain: tuple[Mapping[str, Any], ...]
    grants: Grants


def load_auth_settings(settings: Settings) -> AuthSettings:
    """Return what `[auth]` says; raise RefusedError naming the file and the key that is wrong."""
    return _read_settings(settings.auth, str(settings.paths.config_file))


def open_chain(settings: Settings, store: Store, audit: AuditTrail | None) -> Chain:
    """Return the chain that the settings ask for, which follows the file from now on; raise RefusedError."""
    source = _Source(settings, store)
    return Chain(source.build_from(settings.auth), audit=audit, source=source)


def load_factory(kind: str, where: str) -> tuple[AuthenticatorFactory, Origin]:
    """Return the factory of a type of authenticator and where it is from; raise RefusedError where there is none."""
    point = _find_entry_point(kind, where)
    distribution = point.dist
    origin = Origin(kind, distribution.name if distribution else "", distribution.version if distribution else "")
    try:
        factory = point.load()
    except _FAULTS as error:
        raise RefusedError(
            f"settings {where}", f"type {kind!r} cannot be loaded: {_word(error)}", _hint(point)
        ) from error
    if getattr(factory, "api_version", None) != API_VERSION:
        found = sanitise(getattr(factory, "api_version", "none"), 50)
        why = f"{origin.distribution or kind} speaks version {found} of the protocol, and KC version {API_VERSION}"
        raise RefusedError(f"settings {where}", why, f"install a version of {origin.distribution or kind} for this KC")
    return factory, origin


class _Source:
    """The settings' file and the store, and what has been seen of them."""

    def __init__(self, settings: Settings, store: Store) -> None:
        from backend.auth.keys import open_master_key  # noqa: PLC0415 - with cryptography, which a client never needs

        self._settings = settings
        self._store = store
        self._key: MasterKey = open_master_key(settings)
        self._file = str(settings.paths.config_file)
        self._config = FileWatch((self._file,))
        self._files = FileWatch(())
        self._revocations = RevocationWatch(store)
        self._had_table = bool(settings.auth)

    def look(self) -> Look:
        """Return what has happened; see `chain.Source`."""
        # First what may fail: a look at files is told once, and would be lost with it.
        revoked = self._revocations.look()
        settings, files = self._config.look(), self._files.look()
        return Look(settings, revoked or files)

    def build(self) -> Lineup:
        """Return the authenticators that the file asks for now."""
        table = read_auth_table(self._settings.paths)
        if self._had_table and not table:
            # A file that is being written looks like this, and no chain at all lets other people in than the old one.
            raise RefusedError(f"settings {self._file}", "[auth] has gone", "write it again, or start KC anew without")
        return self.build_from(table)

    def build_from(self, table: Mapping[str, Any]) -> Lineup:
        """Return the authenticators that a table asks for."""
        found = _read_settings(table, self._file)
        links: list[Link] = []
        for index, values in enumerate(found.chain, 1):
            links.append(self._make_link(Table(values, f"{self._file}: auth.chain[{index}]"), links))
        self._files = FileWatch(find_files(found.chain, self._settings.paths.config))
        self._had_table = self._had_table or bool(table)
        return Lineup(tuple(links), found.grants, found.header)

    def _make_link(self, table: Table, others: list[Link]) -> Link:
        name = table.text("name") or table.text("type")
        if not _NAME.fullmatch(name):
            raise table.refuse("name", "is none of letters, digits, - . and _", "write a shorter, plainer one")
        if any(link.name == name for link in others):
            raise table.refuse("name", f"{name!r} is another one's too", "give each authenticator a name of its own")
        timeout = table.number("timeout", DEFAULT_TIMEOUT, 0.05, MAXIMUM_TIMEOUT)
        concurrency = int(table.number("concurrency", DEFAULT_CONCURRENCY, 1, _MAXIMUM_CONCURRENCY))
        authenticator, origin = self._make({**table.values, "name": name}, table.where, 1)
        return Link(authenticator, name, origin, timeout=timeout, concurrency=concurrency)

    def _make(self, values: Mapping[str, Any], where: str, depth: int) -> tuple[Authenticator, Origin]:
        kind = Table(values, where).text("type")
        if not kind:
            raise RefusedError(f"settings {where}", "type is missing", "name the type of authenticator")
        if depth > _MAXIMUM_DEPTH:
            raise RefusedError(f"settings {where}", "authenticators stand too deep in one another", "write fewer")
        factory, origin = load_factory(kind, where)

        def build(part: Mapping[str, Any]) -> Authenticator:
            return self._make(part, f"{where} ({kind})", depth + 1)[0]

        context = AuthContext(self._settings.paths, self._store, self._key, build)
        try:
            authenticator = factory(context, dict(values))
        except RefusedError as error:
            # An authenticator does not know its place in the file; what it says of another thing stands.
            what = f"settings {where}" + ("" if error.what.startswith("settings ") else f", {error.what}")
            raise RefusedError(what, error.why, error.hint, **error.details) from error
        except _FAULTS as error:
            why = f"type {kind!r} cannot be made: {_word(error)}"
            raise RefusedError(f"settings {where}", why, _hint(_find_entry_point(kind, where))) from error
        return authenticator, origin


def _read_settings(values: Mapping[str, Any], file: str) -> AuthSettings:
    table = Table(values, f"{file}: auth")
    table.check_keys(KEYS)
    header = table.text("header", "authorization").lower()
    if not _HEADER.fullmatch(header):
        raise table.refuse("header", "is no name of a header", 'write it as header = "authorization"')
    proxies = table.texts("trustedProxies")
    try:
        parse_proxies(proxies)
    except RefusedError as error:
        raise table.refuse("trustedProxies", f"has {error.why}", error.hint) from error
    chain = tuple(table.tables("chain")) if "chain" in values else DEFAULT_CHAIN
    if not chain:
        raise table.refuse("chain", "is empty: nobody could do anything", "name an authenticator, or leave it out")
    return AuthSettings(header, proxies, chain, read_grants(table.tables("grants"), f"{file}: auth.grants"))


def _find_entry_point(kind: str, where: str) -> EntryPoint:
    # Several paths to one installed distribution show each of its entry points several times.
    found = {
        (point.dist.name if point.dist else "", point.value): point
        for point in entry_points(group=ENTRY_POINTS, name=kind)
    }
    if not found:
        known = ", ".join(sorted({point.name for point in entry_points(group=ENTRY_POINTS)}))
        hint = f"install the package that brings it into KC's environment; there are {known}"
        raise RefusedError(f"settings {where}", f"no authenticator of type {sanitise(kind, 80)!r} is installed", hint)
    if len(found) > 1:
        names = " and ".join(sorted(name or value for name, value in found))
        raise RefusedError(f"settings {where}", f"{names} both bring a type {kind!r}", "uninstall one of both")
    return next(iter(found.values()))


def _hint(point: EntryPoint) -> str:
    """Return what to install for an authenticator that does not load."""
    if point.dist is None:
        return "install it anew"
    extras = point.dist.metadata.get_all("Provides-Extra") or []
    package = f"{point.dist.name}[{point.name}]" if point.name in extras else point.dist.name
    return f"install what it needs: pip install '{package}'"


def _word(error: BaseException) -> str:
    return sanitise(f"{type(error).__name__}: {error}", 300)
