"""Where a remote KC is: a URL of HTTP or HTTPS, or a unix socket of this machine."""

from __future__ import annotations

from ipaddress import ip_address
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from backend.errors import RefusedError
from backend.text import sanitise

PORTS = {"http": 80, "https": 443}


class Address(NamedTuple):
    """`path` comes before KC's own paths and has no slash at its end; `socket` is a unix socket's file, or empty."""

    scheme: str
    host: str
    port: int
    path: str = ""
    socket: str = ""

    @property
    def is_secure(self) -> bool:
        """Whether TLS is spoken."""
        return self.scheme == "https"

    @property
    def is_own_machine(self) -> bool:
        """Whether nothing that is sent leaves this machine."""
        if self.socket or self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def authority(self) -> str:
        """Host and port as a Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """What a credential is meant for: a scheme, a host and a port, or a socket."""
        return f"unix:{self.socket}" if self.socket else f"{self.scheme}://{self.authority}"

    @property
    def url(self) -> str:
        """The URL that KC's own paths follow."""
        return f"{self.scheme}://{self.authority}{self.path}"

    @property
    def label(self) -> str:
        """What people are told: the host and its port, or the socket."""
        return sanitise(self.socket or self.authority, 200)


def parse_address(url: str) -> Address:
    """Return the address in a URL: `http(s)://HOST[:PORT][/PATH]`, `unix:/PATH` or `http+unix://PATH`.

    Raises RefusedError for anything else, and for one with a name or a password in it.
    """
    scheme, _, rest = url.partition(":")
    if scheme in ("unix", "http+unix"):
        path = unquote(rest.removeprefix("//"))
        if not path.startswith("/") or "\0" in path:
            raise _refuse(url, "a socket's path begins with a slash")
        return Address("http", "localhost", PORTS["http"], socket=path)
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("idna" if not url.isascii() else "ascii").decode()
    except (ValueError, UnicodeError) as error:
        raise _refuse(url, "it cannot be read") from error
    if parts.scheme not in PORTS or not host or not url.isprintable() or " " in url:
        raise _refuse(url, "it is no URL of HTTP")
    if "@" in parts.netloc:
        raise RefusedError("URL", "it has a name or a password in it", "leave them out; kc login keeps a credential")
    if parts.query or parts.fragment:
        raise _refuse(url, "it has more than a path at its end")
    return Address(parts.scheme, host, port or PORTS[parts.scheme], parts.path.rstrip("/"))


def _refuse(url: str, why: str) -> RefusedError:
    shown = sanitise(url.rpartition("@")[2], 200)
    return RefusedError(f"URL {shown}", why, "write https://HOST[:PORT] or unix:/PATH")
