"""One conversation with an LDAP server: it ends at its deadline, whatever the server does or does not.

python-ldap blocks, so this runs on threads of its authenticator's; it lets go of the interpreter while it waits.
"""

from __future__ import annotations

import time
from contextlib import suppress
from importlib import import_module
from typing import Any, Final, NamedTuple, Self

from backend.errors import RefusedError, TimedOutError, UnreachableError
from backend.text import sanitise

# The dn and the attributes of what a search found.
Found = tuple[str, dict[str, list[bytes]]]
_LEAST_SECONDS: Final = 0.01
# What servers say to a password, or to a name, that is not right.
_WRONG: Final = ("INVALID_CREDENTIALS", "INAPPROPRIATE_AUTH", "INVALID_DN_SYNTAX", "NO_SUCH_OBJECT")


class Server(NamedTuple):
    """How to reach a server: `ca` is a file, empty for the system's; `seconds` is how long a conversation may take."""

    url: str
    start_tls: bool
    ca: str
    seconds: float


def load_library() -> Any:
    """Return python-ldap; raise RefusedError where it is not installed."""
    try:
        return import_module("ldap")
    except ModuleNotFoundError as error:
        raise RefusedError("LDAP", "python-ldap is not installed", "pip install kc-tui[ldap]") from error


class Link:
    """A connection, open inside a `with` block; raises UnreachableError and TimedOutError."""

    def __init__(self, server: Server) -> None:
        self._ldap = load_library()
        self._server = server
        self._ends = time.monotonic() + server.seconds
        self._connection: Any = None

    def __enter__(self) -> Self:
        """Connect, and begin TLS where that is asked for; certificates are always verified."""
        library = self._ldap
        try:
            self._connection = library.initialize(self._server.url)
            self._set_options()
            if self._server.start_tls:
                self._connection.start_tls_s()
        except library.LDAPError as error:
            self._close()
            raise self._explain(error) from None
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up."""
        self._close()

    def bind(self, dn: str, password: bytes) -> bool:
        """Return whether the server takes a password for a dn; neither may be empty."""
        library = self._ldap
        if not dn or not password:
            # The server would let in anybody, as nobody (RFC 4513, 5.1.2).
            return False
        try:
            self._wait(lambda: self._connection.simple_bind(dn, password))
        except tuple(getattr(library, name) for name in _WRONG):
            return False
        except library.LDAPError as error:
            raise self._explain(error) from None
        return True

    def greet(self) -> None:
        """Ask what needs no name, to see whether the server answers; that it refuses is an answer."""
        library = self._ldap
        try:
            self._wait(lambda: self._connection.search_ext("", library.SCOPE_BASE, "(objectClass=*)", ["1.1"]))
        except (library.INSUFFICIENT_ACCESS, library.INAPPROPRIATE_AUTH, library.STRONG_AUTH_REQUIRED):
            return
        except library.LDAPError as error:
            raise self._explain(error) from None

    def search(
        self, base: str, text: str, attributes: list[str], *, most: int, here: bool = False
    ) -> list[Found] | None:
        """Return what a filter finds below a dn, or `here` at it, never a referral; None for more than `most`."""
        library = self._ldap
        scope = library.SCOPE_BASE if here else library.SCOPE_SUBTREE
        try:
            found = self._wait(lambda: self._connection.search_ext(base, scope, text, attributes, sizelimit=most))
        except library.NO_SUCH_OBJECT:
            return []
        except library.SIZELIMIT_EXCEEDED:
            return None
        except library.LDAPError as error:
            raise self._explain(error) from None
        entries = [(dn, values) for dn, values in found or () if dn]
        return entries if len(entries) <= most else None

    def _set_options(self) -> None:
        library, connection = self._ldap, self._connection
        connection.set_option(library.OPT_PROTOCOL_VERSION, library.VERSION3)
        connection.set_option(library.OPT_REFERRALS, 0)
        connection.set_option(library.OPT_DEREF, library.DEREF_NEVER)
        connection.set_option(library.OPT_RESTART, 0)
        self._remaining()
        if not self._server.start_tls and not self._server.url.startswith("ldaps:"):
            return
        # Each is set, so that no ldap.conf, .ldaprc or LDAPTLS_ variable of the machine's weakens it.
        connection.set_option(library.OPT_X_TLS_REQUIRE_CERT, library.OPT_X_TLS_DEMAND)
        connection.set_option(library.OPT_X_TLS_PROTOCOL_MIN, library.OPT_X_TLS_PROTOCOL_TLS1_2)
        if self._server.ca:
            connection.set_option(library.OPT_X_TLS_CACERTFILE, self._server.ca)
        try:
            connection.set_option(library.OPT_X_TLS_NEWCTX, 0)
        except ValueError as error:  # all that the library says of a file that it cannot use
            self._close()
            raise RefusedError(self._name(), "its CA's file cannot be read", "mend ca in [[auth.chain]]") from error

    def _wait(self, ask: Any) -> Any:
        """Return the data of what a question is answered with; it is asked and answered before the deadline."""
        self._remaining()
        number = ask()
        return self._connection.result3(number, all=1, timeout=self._remaining())[1]

    def _remaining(self) -> float:
        """Return the seconds that are left, and have the library keep to them; raise TimedOutError for none."""
        left = self._ends - time.monotonic()
        if left < _LEAST_SECONDS:
            raise self._late()
        self._connection.set_option(self._ldap.OPT_NETWORK_TIMEOUT, left)
        self._connection.set_option(self._ldap.OPT_TIMEOUT, left)
        return left

    def _late(self) -> TimedOutError:
        return TimedOutError(self._name(), f"it did not answer within {self._server.seconds:g} s")

    def _explain(self, error: Any) -> UnreachableError | TimedOutError:
        if isinstance(error, self._ldap.TIMEOUT):
            return self._late()
        said = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
        parts = [str(said[key]) for key in ("desc", "info") if said.get(key)]
        return UnreachableError(self._name(), sanitise(": ".join(parts) or type(error).__name__, 300))

    def _name(self) -> str:
        return f"LDAP server {sanitise(self._server.url, 200)}"

    def _close(self) -> None:
        if self._connection is not None:
            with suppress(self._ldap.LDAPError):
                self._connection.unbind_ext_s()
