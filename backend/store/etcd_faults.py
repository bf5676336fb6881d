"""What an etcd and the way to it say in their words, as KC's errors."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
from typing import NamedTuple

from backend.errors import DeniedError, FailedError, KCError, RefusedError, UnreachableError
from backend.text import sanitise

_SAFE = "every change that was confirmed is kept"
_USER = "see user in [etcd] of config.toml, and KC_ETCD_PASSWORD"

# The codes of gRPC (https://grpc.github.io/grpc/core/md_doc_statuscodes.html).
_DEADLINE, _NOT_FOUND, _DENIED, _EXHAUSTED, _OUT_OF_RANGE, _UNAVAILABLE, _UNAUTHENTICATED = 4, 5, 7, 8, 11, 14, 16
_MAXIMUM_TEXT = 200
_CUT_OFF = (http.client.RemoteDisconnected, ssl.SSLEOFError, ssl.SSLZeroReturnError)


class RevisionGoneError(FailedError):
    """etcd has compacted the moment of its own history at which something was being read."""


class Verdict(NamedTuple):
    """What to make of a failed request: the error, and whether another try, or a new token, may help."""

    error: KCError
    again: bool = False
    token: bool = False


def judge_answer(what: str, status: int, code: int, text: str) -> Verdict:
    """Return what an error of etcd's means; `code` is gRPC's, -1 where the answer was none of etcd's."""
    said = sanitise(text.removeprefix("etcdserver: ").removeprefix("mvcc: "), _MAXIMUM_TEXT)
    if "HTTP request to an HTTPS server" in text:
        return Verdict(
            UnreachableError(what, "it speaks TLS", "write etcds://, or name its ca in [etcd]", reason="tls")
        )
    if "CommonName of client" in text:
        hint = "make one for KC whose subject has no CN, and name a user besides"
        why = "etcd takes no certificate with a CommonName where KC speaks to it"
        return Verdict(DeniedError(what, why, hint, reason="certificate"))
    if code < 0:
        return Verdict(
            UnreachableError(what, f"what answers there is no etcd of version 3 (HTTP {status})", "see its address")
        )
    if _is_about_tokens(code, text):
        return Verdict(DeniedError(what, "it asks for a user", _USER, reason="password"), token=True)
    if code == _EXHAUSTED and "space exceeded" in text:
        hint = f"compact and defragment it, then: etcdctl alarm disarm; {_SAFE}"
        return Verdict(FailedError(what, "it has reached its quota and takes no writes", hint, reason="full"))
    if code in (_UNAVAILABLE, _DEADLINE, _EXHAUSTED) or "deadline exceeded" in text or "context canceled" in text:
        why = "most of its members are down" if "no leader" in text else said
        return Verdict(UnreachableError(what, why, f"see etcdctl endpoint status --cluster; {_SAFE}"), again=True)
    return Verdict(_explain_refusal(what, code, text, said or str(status)))


def _explain_refusal(what: str, code: int, text: str, said: str) -> KCError:
    if code == _OUT_OF_RANGE and "compacted" in text:
        why = "etcd has dropped the moment that was being read"
        return RevisionGoneError(what, why, "repeat it", reason="compacted")
    if code == _DENIED:
        hint = "grant its role the prefix of KC, or see user in [etcd] of config.toml"
        return DeniedError(what, "its user may not read and write there", hint)
    if "authentication failed" in text or "user name not found" in text:
        return DeniedError(what, "it takes neither this user nor this password", _USER, reason="password")
    if "request is too large" in text or "too many operations" in text:
        return RefusedError(what, f"etcd does not take so much at once: {said}", "change less at a time")
    return FailedError(what, f"etcd says: {said}", "", reason="etcd")


def _is_about_tokens(code: int, text: str) -> bool:
    # etcd takes a request without a token for one of a user without a name.
    words = ("invalid auth token", "revision of auth store is old", "user name is empty")
    return code == _UNAUTHENTICATED or any(each in text for each in words)


def judge_failure(what: str, error: Exception) -> Verdict:
    """Return what a failed connection means."""
    if isinstance(error, ssl.SSLCertVerificationError):
        hint = "see ca in [etcd] of config.toml, and the names in the certificate"
        why = f"its certificate is not to be trusted: {error.verify_message.lower()}"
        return Verdict(UnreachableError(what, why, hint, reason="tls"))
    if isinstance(error, ssl.SSLError) and not isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return Verdict(_explain_tls(what, error))
    if isinstance(error, _CUT_OFF) or (isinstance(error, OSError) and error.errno == errno.ECONNRESET):
        why = "it ends the connection without an answer"
        hint = f"see that it runs, and whether it speaks TLS, as etcds:// and a ca say; {_SAFE}"
        return Verdict(UnreachableError(what, why, hint), again=True)
    if isinstance(error, TimeoutError):
        why = "it does not answer in time"
    elif isinstance(error, socket.gaierror):
        why = "its name is not known here"
    elif isinstance(error, http.client.HTTPException) and not isinstance(error, OSError):
        why = "what answers there is no etcd"
    else:
        why = str(getattr(error, "strerror", None) or "the connection ended").lower()
    return Verdict(UnreachableError(what, why, f"see that it runs, and KC_STORE; {_SAFE}"), again=True)


def _explain_tls(what: str, error: ssl.SSLError) -> KCError:
    reason = (error.reason or "").upper()
    if "WRONG_VERSION" in reason or "HTTP_REQUEST" in reason:
        return UnreachableError(what, "it does not speak TLS", "write etcd://, and name no ca", reason="tls")
    if "CERTIFICATE" in reason:
        hint = "see certificate and key in [etcd] of config.toml"
        return DeniedError(what, "it asks for a certificate that it trusts", hint, reason="certificate")
    why = f"TLS failed: {sanitise(error.reason or str(error), _MAXIMUM_TEXT).lower()}"
    return UnreachableError(what, why, "see [etcd] of config.toml", reason="tls")
