"""Who has which one-time codes: TOTP seeds (RFC 6238), the codes that were used, and recovery codes.

Each is a document of the kind `Enrolment`, which no list, feed or command shows; its `spec` is `{"subject", "seed":
sealed, base64, "digits", "interval": seconds, "lastTimecode", "active", "recovery": [SHA-256, hex]}`. A code counts
once: that it was used is written against the version that was read, so of any who come with it at once, in whatever
process, one comes in.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
import secrets
import time
import uuid
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from backend.actor import current_actor
from backend.errors import ConflictError, NotFoundError, RefusedError, TimedOutError
from backend.model.documents import API_VERSION, Document, format_time
from backend.model.kinds import ENROLMENT
from backend.text import sanitise

if TYPE_CHECKING:
    from backend.auth.keys import MasterKey
    from backend.settings import Settings
    from backend.store.protocol import Store

ISSUER: Final = "KC"
DRIFT: Final = 30.0
"""How far a clock may be off, in seconds, when nothing else is configured."""
RECOVERY_CODES: Final = 10
_CODE: Final = r"[0-9]{6}"
_RECOVERY: Final = r"[a-z2-7]{4}(?:-[a-z2-7]{4}){3}"
_ANY_CODE: Final = re.compile(rf"{_CODE}|{_RECOVERY}")
_DIGITS: Final = 6
_INTERVAL: Final = 30
_RECOVERY_LENGTH: Final = 19
_LONGEST_SUBJECT: Final = 200
# Only other codes of the same person's can stand between two looks, and there are not many.
_ATTEMPTS: Final = 20


class Invitation(NamedTuple):
    """What an authenticator app is told: `uri` (otpauth://, a QR code's text) or `secret` (base32)."""

    subject: str
    uri: str
    secret: str

    def __repr__(self) -> str:
        """Name the subject, and nothing that is secret."""
        return f"Invitation({self.subject!r})"


class Enrolled(NamedTuple):
    """One enrolment; `used_at` is empty before the first code, `recovery_codes` how many are left."""

    subject: str
    active: bool
    created_at: str
    used_at: str
    recovery_codes: int


def is_code(text: bytes) -> bool:
    """Return whether a text has the form of a one-time or a recovery code."""
    return _ANY_CODE.fullmatch(text.decode("latin-1")) is not None


def split_code(password: bytes) -> tuple[bytes, bytes] | None:
    """Return a password without the one-time or recovery code that it ends in, and the code; None where it has none."""
    for length in (_DIGITS, _RECOVERY_LENGTH):
        if is_code(password[-length:]):
            return password[:-length], password[-length:]
    return None


class Enrolments:
    """The enrolments of one store, their seeds sealed with its KC's key; every method blocks, and raises KCErrors."""

    def __init__(self, store: Store, key: MasterKey) -> None:
        self._store = store
        self._key = key

    def begin(self, subject: str, issuer: str = ISSUER) -> Invitation:
        """Make a seed for somebody, of no account until `activate`; one that never came to that is replaced."""
        import pyotp  # noqa: PLC0415 - lists and health need none

        _check_subject(subject)
        earlier = self._store.find(ENROLMENT, subject)
        if earlier is not None and earlier["spec"]["active"]:
            hint = f"kc auth otp remove {subject} first, if the old one is lost"
            raise ConflictError(f"one-time codes of {subject}", "they are in use already", hint)
        secret = pyotp.random_base32()
        now, uid = format_time(), earlier["uid"] if earlier else str(uuid.uuid4())
        spec = {
            "subject": subject, "seed": self._seal(subject, secret), "digits": _DIGITS, "interval": _INTERVAL,
            "lastTimecode": 0, "active": False, "recovery": [],
        }  # fmt: skip
        body = {
            "apiVersion": API_VERSION, "kind": ENROLMENT, "name": subject, "uid": uid, "metadata": {}, "spec": spec,
            "createdAt": now, "updatedAt": now, "updatedBy": current_actor().subject,
        }  # fmt: skip
        with self._store.transaction() as transaction:
            transaction.put(body, expect=earlier["version"] if earlier else 0)
        uri = pyotp.TOTP(secret, digits=_DIGITS, interval=_INTERVAL, name=subject, issuer=issuer).provisioning_uri()
        return Invitation(subject, uri, secret)

    def activate(self, subject: str, code: str, *, now: float | None = None) -> list[str]:
        """Put a begun enrolment in force with one good code, and return its recovery codes: nothing shows them again.

        Raises NotFoundError, ConflictError where it is in force already, RefusedError for a wrong code.
        """
        document = self._require(subject)
        if document["spec"]["active"]:
            raise ConflictError(f"one-time codes of {subject}", "they are in use already")
        timecode = self._match(document, code, DRIFT, time.time() if now is None else now)
        if timecode is None:
            hint = "is the clock of the telephone right? codes change each 30 seconds"
            raise RefusedError(f"one-time codes of {subject}", "the code is wrong", hint)
        codes = [_make_recovery_code() for _ in range(RECOVERY_CODES)]
        digests = [_digest(each) for each in codes]
        self._write(document, active=True, lastTimecode=timecode, recovery=digests)
        return codes

    def list_all(self) -> list[Enrolled]:
        """Return all enrolments, in the order of their subjects."""
        return [_describe(document) for document in self._store.list_documents(ENROLMENT).items]

    def check(self) -> None:
        """Raise KCErrors where enrolments or their key cannot be read."""
        for document in self._store.list_documents(ENROLMENT, limit=1).items:
            self._open(document)

    def remove(self, subject: str) -> None:
        """Remove an enrolment, in force or not, and the seed from its history; raise NotFoundError."""
        document = self._require(subject)
        with self._store.transaction() as transaction:
            body = _change(document, seed="", recovery=[], active=False)
            emptied = transaction.put(body, expect=document["version"])
            by = current_actor().subject
            transaction.delete(ENROLMENT, document["uid"], expect=emptied["version"], by=by)

    def use(self, subject: str, code: str, *, drift: float = DRIFT, now: float | None = None) -> bool:
        """Return whether a code is somebody's and was never used before; from now on it was.

        `drift` is how many seconds a clock may be off. Raises KCErrors where that cannot be told, or be written.
        """
        at = time.time() if now is None else now
        for _attempt in range(_ATTEMPTS):
            document = self._store.find(ENROLMENT, subject)
            if document is None or not document["spec"]["active"]:
                return False
            spent = self._spend(document, code, drift, at)
            if spent is None:
                return False
            try:
                self._write(document, **spent)
            except ConflictError as error:
                if error.details.get("reason") != "version":
                    raise
                continue
            return True
        raise TimedOutError(f"one-time codes of {sanitise(subject, 80)}", "others use them all the time")

    def _spend(self, document: Document, code: str, drift: float, at: float) -> dict[str, Any] | None:
        """Return what a good code changes in the spec; None where it is not good."""
        spec = document["spec"]
        if len(code) == _DIGITS:
            timecode = self._match(document, code, drift, at)
            return None if timecode is None else {"lastTimecode": timecode}
        digest = _digest(code)
        left = [each for each in spec["recovery"] if not hmac.compare_digest(each, digest)]
        return {"recovery": left} if len(left) < len(spec["recovery"]) else None

    def _match(self, document: Document, code: str, drift: float, at: float) -> int | None:
        """Return the newest timecode that a code is of, later than the last one used; None where it is of none."""
        import pyotp  # noqa: PLC0415 - as above

        spec = document["spec"]
        totp = pyotp.TOTP(self._open(document), digits=spec["digits"], interval=spec["interval"])
        now, window = int(at // spec["interval"]), int(drift // spec["interval"])
        given = code.encode("utf-8", "replace")
        # All are made and compared, so that the time that it takes tells nothing.
        good = [
            timecode
            for timecode in range(max(0, now - window), now + window + 1)
            if hmac.compare_digest(totp.generate_otp(timecode).encode(), given)
        ]
        return max((timecode for timecode in good if timecode > spec["lastTimecode"]), default=None)

    def _require(self, subject: str) -> Document:
        document = self._store.find(ENROLMENT, subject)
        if document is None:
            raise NotFoundError(f"one-time codes of {sanitise(subject, 80)}", "there are none", "see kc auth otp list")
        return document

    def _write(self, document: Document, **changes: Any) -> None:
        with self._store.transaction() as transaction:
            transaction.put(_change(document, **changes), expect=document["version"])

    def _seal(self, subject: str, secret: str) -> str:
        return base64.b64encode(self._key.seal(secret.encode(), bound_to=f"otp {subject}")).decode()

    def _open(self, document: Document) -> str:
        subject = document["spec"]["subject"]
        if subject != document["name"]:
            raise RefusedError(f"one-time codes of {sanitise(document['name'], 80)}", "they are somebody else's")
        try:
            sealed = base64.b64decode(document["spec"]["seed"], validate=True)
        except binascii.Error as error:
            raise RefusedError(f"one-time codes of {sanitise(subject, 80)}", "their seed is damaged") from error
        return self._key.open(sealed, bound_to=f"otp {subject}").decode()


def open_enrolments(settings: Settings) -> tuple[Enrolments, Store]:
    """Return the enrolments of an embedded KC, and its store, which is the caller's to close."""
    from backend.auth.keys import open_master_key  # noqa: PLC0415 - the authenticator is given its own
    from backend.store.opening import open_store  # noqa: PLC0415 - as above

    key = open_master_key(settings)
    store = open_store(settings.store_url, retentions=settings.retentions, etcd=settings.etcd)
    return Enrolments(store, key), store


def _change(document: Document, **changes: Any) -> Document:
    body = {key: value for key, value in document.items() if key not in ("version", "status")}
    spec = {**document["spec"], **changes}
    return {**body, "spec": spec, "updatedAt": format_time(), "updatedBy": current_actor().subject}


def _describe(document: Document) -> Enrolled:
    spec = document["spec"]
    used = format_time(spec["lastTimecode"] * spec["interval"]) if spec["lastTimecode"] else ""
    return Enrolled(document["name"], spec["active"], document["createdAt"], used, len(spec["recovery"]))


def _check_subject(subject: str) -> None:
    if not 0 < len(subject) <= _LONGEST_SUBJECT or ":" in subject or sanitise(subject) != subject:
        why = f"it is not 1 to {_LONGEST_SUBJECT} printable characters without a colon"
        raise RefusedError(f"subject {sanitise(subject, 80)!r}", why, "it is the name that somebody logs in with")


def _make_recovery_code() -> str:
    """Return 80 random bits, so that their plain hash is safe: four groups of four letters and digits (base32)."""
    text = base64.b32encode(secrets.token_bytes(10)).decode().lower()
    return "-".join(text[start : start + 4] for start in range(0, len(text), 4))


def _digest(code: str) -> str:
    return sha256(code.encode("utf-8", "replace")).hexdigest()
