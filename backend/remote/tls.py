"""Whom to believe that they are the server: the system's certificate authorities, a file of them, or one certificate.

Nothing is sent, not even a request line, before the certificate has been judged.
"""

from __future__ import annotations

import base64
import hashlib
import re
import socket
import ssl
from typing import Any, NamedTuple

from backend.errors import RefusedError, UnreachableError
from backend.remote.address import Address
from backend.text import sanitise

CONNECT_SECONDS = 5.0
_PREFIX = "SHA256:"
_HEX = re.compile(r"[0-9a-f]{64}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{43}")


class Certificate(NamedTuple):
    """A server's certificate, and why the system's authorities do not vouch for it (`doubt`, empty where they do)."""

    fingerprint: str
    doubt: str = ""


class CertificateChangedError(ssl.SSLError):
    """The certificate is another than the one that was pinned; `found` is its fingerprint."""

    def __init__(self, found: str) -> None:
        super().__init__(f"the certificate is another than the one that was pinned: {found}")
        self.found = found


def format_fingerprint(certificate: bytes) -> str:
    """Return the fingerprint of a certificate in DER: `SHA256:` and base64 without padding."""
    return _PREFIX + base64.b64encode(hashlib.sha256(certificate).digest()).decode().rstrip("=")


def parse_fingerprint(text: str) -> str:
    """Return a fingerprint as KC writes it; also from hexadecimal digits, with colons or without, as OpenSSL does.

    Raises RefusedError.
    """
    bare = text.strip().removeprefix(_PREFIX).removeprefix(_PREFIX.lower())
    digits = bare.replace(":", "").lower()
    if _HEX.fullmatch(digits):
        return _PREFIX + base64.b64encode(bytes.fromhex(digits)).decode().rstrip("=")
    if _BASE64.fullmatch(bare.rstrip("=")):
        return _PREFIX + bare.rstrip("=")
    raise RefusedError(
        f"fingerprint {sanitise(text, 100)}", "it is no SHA-256", "write SHA256:…, as kc profile add shows it"
    )


class _PinnedContext(ssl.SSLContext):
    """Believes one certificate, whoever signed it, and whatever name and dates it has."""

    pinned: str

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
        """Return the socket after its handshake; raise CertificateChangedError before anything is sent."""
        wrapped = super().wrap_socket(*args, **options)
        found = format_fingerprint(wrapped.getpeercert(binary_form=True) or b"")
        if found != self.pinned:
            wrapped.close()
            raise CertificateChangedError(found)
        return wrapped


def make_context(ca: str, fingerprint: str) -> ssl.SSLContext:
    """Return what judges a server's certificate; raise RefusedError for a file of authorities that cannot be read."""
    if fingerprint:
        pinned = _PinnedContext(ssl.PROTOCOL_TLS_CLIENT)
        pinned.minimum_version = ssl.TLSVersion.TLSv1_2
        pinned.check_hostname = False
        # The fingerprint is the check, and a stricter one: see `wrap_socket`.
        pinned.verify_mode = ssl.CERT_NONE
        pinned.pinned = parse_fingerprint(fingerprint)
        return pinned
    try:
        context = ssl.create_default_context(cafile=ca or None)
    except (OSError, ssl.SSLError) as error:
        why = sanitise(getattr(error, "strerror", None) or error, 200).lower()
        raise RefusedError(f"certificates {sanitise(ca, 200)}", why, "name a file of certificates in PEM") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def look_at(address: Address, ca: str = "") -> Certificate:
    """Return the certificate that a server shows, and whether it can be believed; nothing is sent to the server.

    Raises UnreachableError.
    """
    try:
        _shake_hands(address, make_context(ca, ""))
    except ssl.SSLCertVerificationError as error:
        doubt = sanitise(error.verify_message or "it cannot be verified", 200)
    except (OSError, ssl.SSLError) as error:
        raise UnreachableError(address.label, describe_failure(error), "see that it listens there, with TLS") from error
    else:
        doubt = ""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # Only looked at: nothing is said to whoever is there.
    context.verify_mode = ssl.CERT_NONE
    try:
        return Certificate(format_fingerprint(_shake_hands(address, context)), doubt)
    except (OSError, ssl.SSLError) as error:
        raise UnreachableError(address.label, describe_failure(error), "see that it listens there, with TLS") from error


def _shake_hands(address: Address, context: ssl.SSLContext) -> bytes:
    with (
        socket.create_connection((address.host, address.port), CONNECT_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=address.host) as secure,
    ):
        return secure.getpeercert(binary_form=True) or b""


def describe_failure(error: BaseException) -> str:
    """Return in plain words why no connection came about."""
    if isinstance(error, TimeoutError):
        return "it does not answer"
    if isinstance(error, socket.gaierror):
        return "no such host"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not to be trusted: {sanitise(error.verify_message, 200)}"
    text = getattr(error, "strerror", None) or getattr(error, "reason", None) or error
    return sanitise(text, 200).lower() or type(error).__name__
