"""The files of Apache's `htpasswd` and AuthGroupFile, by rules that its tool, Apache and nginx agree on.

A line is `user:hash`, further fields are not looked at; of two lines for one user the first one counts. A line whose
hash is none of the forms below lets nobody in, and spoils no other line: DES and plain text are none of them.
"""

from __future__ import annotations

import re
from collections import Counter
from importlib import import_module
from typing import Any, Final, NamedTuple

# Rounds beyond these would take longer than anybody waits.
_SCHEMES: Final = {
    "bcrypt": re.compile(rb"\$2[aby]\$(0[4-9]|1[0-6])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}"),
    "sha512_crypt": re.compile(rb"\$6\$(?:rounds=([1-9]\d{3,5})\$)?[./A-Za-z0-9]{1,16}\$[./A-Za-z0-9]{86}"),
    "sha256_crypt": re.compile(rb"\$5\$(?:rounds=([1-9]\d{3,5})\$)?[./A-Za-z0-9]{1,16}\$[./A-Za-z0-9]{43}"),
    "apr_md5_crypt": re.compile(rb"\$apr1\$()[./A-Za-z0-9]{1,8}\$[./A-Za-z0-9]{22}"),
    "ldap_sha1": re.compile(rb"\{SHA\}()[A-Za-z0-9+/]{27}="),
}
WEAK: Final = frozenset({"apr_md5_crypt", "ldap_sha1"})
"""Hashes that a graphics card guesses fast."""
# What bcrypt looks at, in Apache and nginx too; libpass's would raise.
_BCRYPT_BYTES: Final = 72
_COMMENT: Final = b"#"


class Entry(NamedTuple):
    """One user's hash: which it is (a name of libpass), its cost as it is written there, and the whole of it."""

    scheme: str
    cost: bytes
    digest: str


class Users(NamedTuple):
    """What is in a file; `unusable` users have a line that lets nobody in, and `usual` has the commonest cost."""

    entries: dict[bytes, Entry | None]
    unusable: int
    weak: int
    usual: Entry | None


def parse_users(data: bytes) -> Users:
    """Return the users of a file of htpasswd's; no line of it is an error."""
    entries: dict[bytes, Entry | None] = {}
    for line in _lines(data):
        user, colon, rest = line.partition(b":")
        if user and colon:
            entries.setdefault(user, _read_hash(rest.partition(b":")[0]))
    usable = [entry for entry in entries.values() if entry is not None]
    kinds = Counter((entry.scheme, entry.cost) for entry in usable)
    usual = max(usable, key=lambda entry: kinds[entry.scheme, entry.cost], default=None)
    return Users(entries, len(entries) - len(usable), sum(entry.scheme in WEAK for entry in usable), usual)


def parse_groups(data: bytes) -> dict[str, tuple[str, ...]]:
    """Return the groups of each user of an AuthGroupFile, whose lines are `group: user user`."""
    groups: dict[str, list[str]] = {}
    for line in _lines(data):
        group, colon, users = line.decode("utf-8", "replace").partition(":")
        if colon and group.strip():
            for user in users.split():
                groups.setdefault(user, []).append(group.strip())
    return {user: tuple(dict.fromkeys(names)) for user, names in groups.items()}


def _lines(data: bytes) -> list[bytes]:
    lines = (line.rstrip(b"\r") for line in data.split(b"\n"))
    return [line for line in lines if line and not line.startswith(_COMMENT)]


def _read_hash(text: bytes) -> Entry | None:
    for scheme, form in _SCHEMES.items():
        if found := form.fullmatch(text):
            return Entry(scheme, found[1] or b"", text.decode())
    return None


def verify(entry: Entry, password: bytes) -> bool:
    """Return whether a password is the one of an entry; takes as long as its cost says, and blocks."""
    # libpass is imported under the name of what it was forked from; a list of VMs has no use for it.
    hashes: Any = import_module("passlib.hash")
    secret = password[:_BCRYPT_BYTES] if entry.scheme == "bcrypt" else password
    return bool(getattr(hashes, entry.scheme).verify(secret, entry.digest))
