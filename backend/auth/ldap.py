"""Basic credentials against an LDAP server: a bind with a name made from a template, or a search and then a bind."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from backend.auth.basic import CHALLENGE, WRONG, Basic, is_basic, read_basic
from backend.auth.ldap_link import Found, Link, load_library
from backend.auth.ldap_settings import Groups, Search, read_password, read_settings
from backend.auth.protocol import API_VERSION, AuthRequest, CacheScope, Decision, fail
from backend.auth.tables import Table
from backend.auth.watched_files import WatchedFile
from backend.auth.workers import Workers
from backend.errors import KCError, UnreachableError
from backend.text import sanitise

if TYPE_CHECKING:
    from backend.auth.context import AuthContext

_THREADS: Final = 4
_WAITING: Final = 60
# The conversation ends by itself; this is for what no option of the library's bounds, such as a name server.
_GRACE: Final = 0.5
_MOST_GROUPS: Final = 1000
_OTHERS: Final = 0o077


class Ldap:
    """Settings: `url`, `startTls`, `ca`; `bindDn` or the table `search`; the table `groups`; `timeout`, `ttl`.

    A user's name is the one in their entry (`attribute`), however they spelt it: servers compare loosely.
    """

    api_version: int = API_VERSION
    cache_scope: CacheScope = "credential"
    challenges: tuple[str, ...] = (CHALLENGE,)

    def __init__(self, context: AuthContext, settings: Mapping[str, Any]) -> None:
        """Take the settings; raise RefusedError for bad ones, and where python-ldap is missing."""
        load_library()
        table = Table(settings, f"auth.chain ({settings.get('name') or 'ldap'})")
        self.name = table.text("name") or "ldap"
        self._settings = read_settings(table, context.paths.config)
        search = self._settings.search
        self._password: WatchedFile[bytes] | None = None
        if search is not None and search.password_file is not None:
            self._password = WatchedFile(search.password_file, read_password, forbidden=_OTHERS)
        self._workers = Workers(f"ldap {self.name}", threads=_THREADS, waiting=_WAITING)

    def accepts(self, request: AuthRequest) -> bool:
        """Return whether the credential is a Basic one."""
        return is_basic(request)

    async def decide(self, request: AuthRequest) -> Decision:
        """Say who it is."""
        credential = read_basic(request)
        if credential is None or not _is_plain(credential.user):
            return WRONG
        return await self._run(lambda: self._judge(credential))

    async def check_health(self) -> str:
        """Return why the server cannot be asked."""
        decision = await self._run(self._greet)
        return decision.detail

    async def close(self) -> None:
        """Let go of the threads; one that still waits for a server ends when its time is over."""
        self._workers.close()

    async def _run(self, call: Any) -> Decision:
        try:
            decision: Decision = await self._workers.run(call, self._settings.server.seconds + _GRACE)
        except KCError as error:
            return fail(str(error))
        return decision

    def _judge(self, credential: Basic) -> Decision:
        """Ask the server; what it says of groups counts only where it takes the password."""
        search = self._settings.search
        with Link(self._settings.server) as link:
            if search is not None:
                self._bind_as_service(link, search)
                entry = self._find(link, search, credential.user)
                groups = self._list_groups(link, credential.user, entry) if entry else ()
                if entry is None or not link.bind(entry[0], credential.password):
                    return WRONG
            else:
                dn = _fill(self._settings.bind_dn, _escape_dn, user=credential.user)
                if not link.bind(dn, credential.password):
                    return WRONG
                found = link.search(dn, "(objectClass=*)", self._attributes(), most=1, here=True)
                entry = found[0] if found else (dn, {})
                groups = self._list_groups(link, credential.user, entry)
        subject = self._name(entry, credential.user)
        return Decision("allow", subject=subject, groups=groups, ttl=self._settings.ttl)

    def _greet(self) -> Decision:
        search = self._settings.search
        with Link(self._settings.server) as link:
            if search is not None and search.bind_dn:
                self._bind_as_service(link, search)
            else:
                link.greet()
        return Decision("abstain")

    def _bind_as_service(self, link: Link, search: Search) -> None:
        if self._password is not None and not link.bind(search.bind_dn, self._password.read()):
            hint = "mend bindDn or passwordFile of its search"
            raise UnreachableError(f"LDAP server of {self.name}", "it refuses KC's own password", hint)

    def _find(self, link: Link, search: Search, user: str) -> Found | None:
        """Return the one entry of a user; None where there is none, or more than one."""
        text = _fill(search.filter, _escape_filter, user=user)
        found = link.search(search.base, text, self._attributes(), most=1)
        return found[0] if found else None

    def _attributes(self) -> list[str]:
        groups = self._settings.groups
        return [self._settings.attribute, *(["memberOf"] if groups and groups.member_of else [])]

    def _name(self, entry: Found, user: str) -> str:
        """Return the name of an entry, of several the one that was meant; without one the user's own word for it."""
        names = _texts(entry[1], self._settings.attribute)
        meant = [name for name in names if name.casefold() == user.casefold()]
        return (meant or names or [user.casefold()])[0]

    def _list_groups(self, link: Link, user: str, entry: Found) -> tuple[str, ...]:
        groups = self._settings.groups
        if groups is None:
            return ()
        if groups.member_of:
            names = [_name_group(dn, groups) for dn in _texts(entry[1], "memberOf")]
        else:
            text = _fill(groups.filter, _escape_filter, dn=entry[0], user=self._name(entry, user))
            found = link.search(groups.base, text, [groups.attribute], most=_MOST_GROUPS)
            if found is None:
                raise UnreachableError(f"LDAP server of {self.name}", f"it has over {_MOST_GROUPS} groups for one user")
            names = [name for each in found for name in _texts(each[1], groups.attribute)]
        return tuple(dict.fromkeys(name for name in names if name))


def _is_plain(user: str) -> bool:
    """Return whether a name is one that servers do not take for another one as well (RFC 4518)."""
    return user == " ".join(user.split()) == unicodedata.normalize("NFKC", user)


def _fill(template: str, escape: Callable[[str], str], **values: str) -> str:
    """Return a template with what stands for {user} and {dn}, escaped."""
    return re.sub(r"\{(user|dn)\}", lambda found: escape(values[found[1]]) if found[1] in values else "", template)


def _escape_dn(text: str) -> str:
    escaped: str = import_module("ldap.dn").escape_dn_chars(text)
    return escaped


def _escape_filter(text: str) -> str:
    escaped: str = import_module("ldap.filter").escape_filter_chars(text)
    return escaped


def _texts(values: Mapping[str, list[bytes]], attribute: str) -> list[str]:
    """Return the values of an attribute that are text, and safe to show; servers choose how they spell its name."""
    raw = next((items for name, items in values.items() if name.lower() == attribute.lower()), [])
    texts = [value.decode("utf-8", "replace") for value in raw[:_MOST_GROUPS]]
    return [text for text in texts if text and sanitise(text) == text and "\N{REPLACEMENT CHARACTER}" not in text]


def _name_group(dn: str, groups: Groups) -> str:
    """Return the name in the dn of a group; empty where it does not lie where groups are."""
    library = import_module("ldap.dn")
    try:
        parts = library.str2dn(dn.casefold())
        base = library.str2dn(groups.base.casefold())
        name: str = library.str2dn(dn)[0][0][1]
    except (load_library().DECODING_ERROR, IndexError):
        return ""
    below = [[pair[:2] for pair in part] for part in parts[1:]]
    within = [[pair[:2] for pair in part] for part in base]
    return name if not within or below[-len(within) :] == within else ""
