"""TLS of the server: nothing below 1.2, and certificates that are renewed while it runs."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import NamedTuple

from backend.errors import FailedError, RefusedError, UsageError
from backend.text import sanitise

LOOK_SECONDS = 5.0
_log = logging.getLogger("kc.tls")


class TlsFiles(NamedTuple):
    """PEM files: the chain of certificates, its key, and the authorities of clients (empty: they need none)."""

    certificate: str = ""
    key: str = ""
    client_authorities: str = ""


class Tls:
    """The context that new connections are made with; those that are open stay as they are when it changes."""

    def __init__(self, files: TlsFiles) -> None:
        """Load the files; raise UsageError, RefusedError where they will not do."""
        if not files.certificate or not files.key:
            raise UsageError("TLS", "a certificate and its key belong together", "give --tls-cert and --tls-key")
        self._files = files
        self._seen = self._look()
        self.context = _make_context(files)

    def reload(self, *, force: bool = False) -> bool:
        """Load the files again where they have changed, or always; False where nothing was loaded.

        What will not do is loaded into nothing: the certificate before it stays.
        """
        try:
            seen = self._look()
        except RefusedError as error:
            _log.warning("%s", error)
            return False
        if seen == self._seen and not force:
            return False
        self._seen = seen
        try:
            _make_context(self._files)
            self.context.load_cert_chain(self._files.certificate, self._files.key)
            if self._files.client_authorities:
                self.context.load_verify_locations(self._files.client_authorities)
        except (RefusedError, ssl.SSLError, OSError) as error:
            _log.warning("the certificate before it stays: %s", sanitise(error, 300))
            return False
        _log.info("the certificate was read again")
        return True

    def _look(self) -> tuple[tuple[int, int, int], ...]:
        found = []
        for name in self._files:
            if not name:
                continue
            try:
                status = Path(name).stat()
            except OSError as error:
                raise RefusedError(
                    f"TLS file {name}", str(error.strerror).lower(), "name one that can be read"
                ) from error
            found.append((status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(found)


def _make_context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Nobody is there to be asked for a password.
        context.load_cert_chain(files.certificate, files.key, password=_refuse_password)
        if files.client_authorities:
            context.load_verify_locations(files.client_authorities)
            # A client without one has other credentials.
            context.verify_mode = ssl.CERT_OPTIONAL
    except (ssl.SSLError, OSError, FailedError) as error:
        why = sanitise(getattr(error, "reason", "") or error, 200)
        raise RefusedError(
            f"TLS certificate {files.certificate}", why.lower(), "give PEM files that belong together"
        ) from error
    return context


def _refuse_password() -> str:
    raise FailedError("TLS key", "it has a password", "give a key without one, readable by KC alone")
