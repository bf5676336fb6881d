"""What a `[[auth.chain]]` table of the type `ldap` says, checked before anything is asked."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from backend.auth.ldap_link import Server
from backend.auth.tables import COMMON_SETTINGS, Table
from backend.errors import RefusedError

_TIMEOUT: Final = 2.0
_LONGEST_TIMEOUT: Final = 30.0
_TTL: Final = 60.0
_LONGEST_TTL: Final = 3600.0
_KNOWN: Final = {"url", "startTls", "ca", "bindDn", "attribute", "ttl", "search", "groups"}


class Search(NamedTuple):
    """Whom a search finds: `filter` with `{user}` below `base`, asked as `bind_dn`, as nobody where that is empty."""

    base: str
    filter: str
    bind_dn: str
    password_file: Path | None


class Groups(NamedTuple):
    """Where groups come from.

    Either the `memberOf` of the user's entry, of those only that lie below `base`; or `filter` with `{dn}` or `{user}`
    below `base`, the group's name in `attribute`.
    """

    member_of: bool
    base: str
    filter: str
    attribute: str


class LdapSettings(NamedTuple):
    """All of it; one of `bind_dn` (a template with `{user}`) and `search` is there. `attribute` has a user's name."""

    server: Server
    bind_dn: str
    search: Search | None
    groups: Groups | None
    attribute: str
    ttl: float


def read_settings(table: Table, folder: Path) -> LdapSettings:
    """Return the settings; paths are from `folder`. Raises RefusedError."""
    table.check_keys(COMMON_SETTINGS | _KNOWN)
    search, groups = _read_search(table, folder), _read_groups(table)
    bind_dn = table.text("bindDn")
    if bool(bind_dn) == (search is not None):
        hint = 'write bindDn = "uid={user},ou=people,…", or a [auth.chain.search] with base and filter'
        raise table.refuse("bindDn", "or search is to say who a user is, one of both", hint)
    if bind_dn:
        _check_template(table, "bindDn", bind_dn)
    attribute = table.text("attribute") or (bind_dn.partition("=")[0].strip() if bind_dn else "uid")
    ttl = table.number("ttl", _TTL, 0, _LONGEST_TTL)
    return LdapSettings(_read_server(table, folder), bind_dn, search, groups, attribute, ttl)


def _read_server(table: Table, folder: Path) -> Server:
    url, start_tls, ca = table.text("url"), table.flag("startTls"), table.text("ca")
    scheme = url.partition("://")[0]
    if scheme not in ("ldap", "ldaps", "ldapi") or any(sign.isspace() for sign in url):
        raise table.refuse("url", "is no address of one LDAP server", "write ldaps://HOST, ldap://HOST or ldapi://PATH")
    if start_tls and scheme != "ldap":
        raise table.refuse("startTls", f"does not go with {scheme}://", "leave it out")
    if scheme == "ldap" and not start_tls and not _is_loopback(table, url):
        hint = "write startTls = true, or ldaps://"
        raise table.refuse("url", "would send passwords over the network in the clear", hint)
    seconds = table.number("timeout", _TIMEOUT, 0.1, _LONGEST_TIMEOUT)
    return Server(url, start_tls, str(folder / Path(ca).expanduser()) if ca else "", seconds)


def _is_loopback(table: Table, url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
    except ValueError as error:
        raise table.refuse("url", "is no address of an LDAP server", "write ldaps://HOST") from error
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _read_search(table: Table, folder: Path) -> Search | None:
    inner = _inner(table, "search", {"base", "filter", "bindDn", "passwordFile"})
    if inner is None:
        return None
    text, bind_dn, file = inner.text("filter", "(uid={user})"), inner.text("bindDn"), inner.text("passwordFile")
    _check_template(inner, "filter", text)
    if bool(bind_dn) != bool(file):
        raise inner.refuse("bindDn", "and passwordFile go together", "the file, of mode 0600, has its password")
    return Search(_base(inner), text, bind_dn, folder / Path(file).expanduser() if file else None)


def _read_groups(table: Table) -> Groups | None:
    inner = _inner(table, "groups", {"memberOf", "base", "filter", "attribute"})
    if inner is None:
        return None
    attribute = inner.text("attribute", "cn")
    if inner.flag("memberOf"):
        if inner.text("filter"):
            raise inner.refuse("filter", "does not go with memberOf", "leave out one of both")
        return Groups(member_of=True, base=inner.text("base"), filter="", attribute=attribute)
    text = inner.text("filter", "(member={dn})")
    if "{dn}" not in text and "{user}" not in text:
        raise inner.refuse("filter", "has neither {dn} nor {user}", 'write "(member={dn})"')
    return Groups(member_of=False, base=_base(inner), filter=text, attribute=attribute)


def _inner(table: Table, key: str, known: set[str]) -> Table | None:
    value: Any = table.values.get(key)
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise table.refuse(key, "is no table", f"write it under [auth.chain.{key}]")
    inner = Table(value, f"{table.where} {key}")
    inner.check_keys(known)
    return inner


def _base(inner: Table) -> str:
    base = inner.text("base")
    if not base:
        raise inner.refuse("base", "is missing", 'write the dn to search below, such as "ou=people,dc=example,dc=org"')
    return base


def _check_template(table: Table, key: str, text: str) -> None:
    if "{user}" not in text:
        raise table.refuse(key, "has no {user}", "that is where the name goes")


def read_password(data: bytes) -> bytes:
    """Return the password in a file: all of it but the line's end."""
    password = data.rstrip(b"\r\n")
    if not password or b"\0" in password:
        raise RefusedError("LDAP password file", "it has no password")
    return password
