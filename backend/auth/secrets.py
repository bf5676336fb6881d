"""The texts of tokens: how they are made, what they look like, and what of them is kept.

    kcg_…   may do everything: 43 characters of base64url, 6 of a checksum; its SHA-256 is kept, and is its uid too
    kct_…   may do what its document says: a macaroon, which its holder can narrow
    kcs_…   a session, a macaroon as well

Found in files or logs by `kc[gts]_[A-Za-z0-9_-]{40,}`.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import uuid
import zlib
from typing import TYPE_CHECKING, Final

from backend.auth import macaroon
from backend.auth.macaroon import Macaroon

if TYPE_CHECKING:
    from backend.auth.keys import MasterKey

PREFIXES: Final = {"god": "kcg_", "limited": "kct_", "session": "kcs_"}
"""How a token of each type begins."""
_TYPES: Final = {prefix: word for word, prefix in PREFIXES.items()}
_SECRET_BYTES: Final = 32
_CHECKSUM_DIGITS: Final = 6
_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_GOD = re.compile(r"kcg_[A-Za-z0-9_-]{43}[0-9A-Za-z]{6}")
_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def make_god_token() -> str:
    """Return a new god token."""
    body = PREFIXES["god"] + base64.urlsafe_b64encode(os.urandom(_SECRET_BYTES)).rstrip(b"=").decode()
    return body + _checksum(body)


def make_token(key: MasterKey, kind: str, uid: str) -> str:
    """Return the limited or session token of a uid; the same one each time."""
    return PREFIXES[kind] + macaroon.encode(macaroon.mint(find_root_key(key, uid), uid.encode()))


def find_root_key(key: MasterKey, uid: str) -> bytes:
    """Return the key that the macaroon of a uid is minted with."""
    return key.derive("token", uid)


def digest_of(token: str) -> str:
    """Return what is kept of a god token."""
    return hashlib.sha256(token.encode()).hexdigest()


def uid_of_god(token: str) -> str:
    """Return the uid of a god token's document: a uuid made of the digest, so that one look finds it."""
    return str(uuid.UUID(bytes=hashlib.sha256(token.encode()).digest()[:16], version=5))


def type_of(token: str) -> str:
    """Return the type that a token begins like, empty where it is none."""
    return _TYPES.get(token[:4], "")


def has_checksum(token: str) -> bool:
    """Return whether a god token is whole, as far as its checksum tells."""
    return bool(_GOD.fullmatch(token)) and _checksum(token[:-_CHECKSUM_DIGITS]) == token[-_CHECKSUM_DIGITS:]


def read_macaroon(token: str) -> Macaroon | None:
    """Return the macaroon of a limited or session token; None where it is not written as one."""
    if type_of(token) not in ("limited", "session"):
        return None
    found = macaroon.decode(token[4:])
    return found if found is not None and uid_of(found) else None


def uid_of(found: Macaroon) -> str:
    """Return the uid of the document that a macaroon belongs to, empty where it names none."""
    text = found.identifier.decode("latin-1")
    return text if _UID.fullmatch(text) else ""


def _checksum(text: str) -> str:
    number = zlib.crc32(text.encode())
    digits = ""
    for _ in range(_CHECKSUM_DIGITS):
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits
