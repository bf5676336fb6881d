"""The address of a store in an etcd: `etcd://HOST:PORT[,HOST:PORT…][/prefix]`, `etcds://` where it speaks TLS."""

from __future__ import annotations

import re
from typing import NamedTuple

from backend.errors import RefusedError
from backend.text import sanitise

SCHEMES = ("etcd", "etcds")
HINT = "write etcd://HOST:PORT[,HOST:PORT…][/prefix]"
_DEFAULT_PORT = 2379
_DEFAULT_PREFIX = "kc"
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.%]+)\]|([A-Za-z0-9._-]+))(?::(\d{1,5}))?")
_PREFIX = re.compile(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*")
# One store below another must not lie among its keys.
_FOLDERS = frozenset({"done", "gone", "head", "lease", "lock", "log", "meta", "name", "version"})


class Address(NamedTuple):
    """The members of a cluster as (host, port), the folder of the store's keys, and whether TLS was asked for."""

    endpoints: tuple[tuple[str, int], ...]
    prefix: str
    secure: bool

    @property
    def root(self) -> bytes:
        """What all keys of the store begin with."""
        return f"/{self.prefix}/".encode()

    def __str__(self) -> str:
        hosts = ",".join(join_endpoint(host, port) for host, port in self.endpoints)
        return f"{'etcds' if self.secure else 'etcd'}://{hosts}/{self.prefix}"


def join_endpoint(host: str, port: int) -> str:
    """Return `HOST:PORT`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_address(url: str) -> Address:
    """Return the address that a text says; raise RefusedError for one that is none."""
    what = f"store {sanitise(url, 200)}"
    scheme, _, rest = url.partition("://")
    hosts, _, prefix = rest.partition("/")
    prefix = prefix.strip("/") or _DEFAULT_PREFIX
    if scheme not in SCHEMES or not hosts:
        raise RefusedError(what, "it names no host", HINT)
    if not _PREFIX.fullmatch(prefix) or _FOLDERS.intersection(prefix.split("/")[1:]):
        raise RefusedError(what, "its prefix cannot be used", "make it of letters, digits, dots and dashes")
    endpoints = []
    for text in hosts.split(","):
        match = _HOST.fullmatch(text.strip())
        port = int(match[3] or _DEFAULT_PORT) if match else 0
        if not match or not 0 < port < 1 << 16:
            raise RefusedError(what, f"{sanitise(text, 80) or 'nothing'} is no HOST:PORT", HINT)
        endpoints.append((match[1] or match[2], port))
    return Address(tuple(dict.fromkeys(endpoints)), prefix, scheme == "etcds")
