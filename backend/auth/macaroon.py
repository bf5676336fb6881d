"""Macaroons: bearer tokens that their holder can narrow, by himself and offline, and nobody can widen.

A chain of HMAC-SHA256 (Birgisson and others, "Macaroons: Cookies with Contextual Caveats", NDSS 2014) in the binary
format of libmacaroons, version 2, with first-party caveats alone:

    2  IDENTIFIER  0  { CAVEAT  0 }  0  SIGNATURE            each field: its type, its length (varints), its bytes

Each is one text, unpadded base64url. What is longer, has other fields, or is written in any other way than this module
writes it, is refused. A location would not be signed, so there is none; that some implementations always write an empty
one is borne with.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from backend.errors import RefusedError

MAXIMUM_CHARACTERS: Final = 4096
MAXIMUM_CAVEATS: Final = 32
_VERSION: Final = 2
_END, _IDENTIFIER, _SIGNATURE = 0, 2, 6
_SIGNATURE_BYTES: Final = 32
_EMPTY_LOCATION: Final = b"\1\0"
# Two bytes of a varint tell every length that there can be.
_LONGEST_SHIFT: Final = 14
# What every implementation derives the first key with, padded with zeros to the length of a key.
_GENERATOR: Final = b"macaroons-key-generator".ljust(32, b"\0")
_TEXT = re.compile(r"[A-Za-z0-9_-]+")
_ONE_BYTE: Final = 0x80


class Macaroon(NamedTuple):
    """A token: which one it is, what narrows it, and the proof of both."""

    identifier: bytes
    caveats: tuple[bytes, ...]
    signature: bytes

    def __repr__(self) -> str:
        """Return a form without the signature, with which anybody could use the token."""
        return f"Macaroon({self.identifier!r}, {self.caveats!r})"


def mint(key: bytes, identifier: bytes) -> Macaroon:
    """Return a new macaroon; `key` are 32 secret bytes of its own."""
    return Macaroon(identifier, (), _sign(_sign(_GENERATOR, key), identifier))


def attenuate(macaroon: Macaroon, caveats: Iterable[bytes]) -> Macaroon:
    """Return a macaroon that holds only where these caveats hold too; needs no key."""
    more = tuple(caveats)
    signature = macaroon.signature
    for caveat in more:
        signature = _sign(signature, caveat)
    return Macaroon(macaroon.identifier, macaroon.caveats + more, signature)


def is_genuine(macaroon: Macaroon, key: bytes) -> bool:
    """Return whether a macaroon was minted with a key, and has all the caveats that were ever put on it."""
    expected = attenuate(mint(key, macaroon.identifier), macaroon.caveats)
    return hmac.compare_digest(expected.signature, macaroon.signature)


def encode(macaroon: Macaroon) -> str:
    """Return a macaroon as a text; raise RefusedError for more than `decode` takes."""
    text = _to_text(_write(macaroon))
    if len(text) > MAXIMUM_CHARACTERS or len(macaroon.caveats) > MAXIMUM_CAVEATS:
        limits = f"{MAXIMUM_CHARACTERS} characters and {MAXIMUM_CAVEATS} caveats"
        raise RefusedError("token", f"it would have more than {limits}", "narrow an earlier one, with less")
    return text


def decode(text: str) -> Macaroon | None:
    """Return the macaroon that a text is; None where it is none, or one that is written in another way."""
    if len(text) > MAXIMUM_CHARACTERS or not _TEXT.fullmatch(text):
        return None
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        bare = data[:1] + data[1:].removeprefix(_EMPTY_LOCATION)
        macaroon = _Reader(bare).read()
    except ValueError:
        return None
    return macaroon if _write(macaroon) == bare and _to_text(data) == text else None


def _write(macaroon: Macaroon) -> bytes:
    fields = [bytes([_VERSION]), _field(_IDENTIFIER, macaroon.identifier), b"\0"]
    for caveat in macaroon.caveats:
        fields += [_field(_IDENTIFIER, caveat), b"\0"]
    return b"".join([*fields, b"\0", _field(_SIGNATURE, macaroon.signature)])


def _to_text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _sign(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def _field(kind: int, data: bytes) -> bytes:
    return bytes([kind]) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    written = bytearray()
    while number >= _ONE_BYTE:
        written.append(number & (_ONE_BYTE - 1) | _ONE_BYTE)
        number >>= 7
    written.append(number)
    return bytes(written)


class _Reader:
    """Reads the one form; every fault is a ValueError, and every length is checked against what is there."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def read(self) -> Macaroon:
        self._expect(_VERSION)
        identifier = self._take_field(_IDENTIFIER)
        self._expect(_END)
        caveats: list[bytes] = []
        while self._peek() == _IDENTIFIER:
            if len(caveats) == MAXIMUM_CAVEATS:
                raise ValueError
            caveats.append(self._take_field(_IDENTIFIER))
            self._expect(_END)
        self._expect(_END)
        signature = self._take_field(_SIGNATURE)
        if self._at != len(self._data) or len(signature) != _SIGNATURE_BYTES:
            raise ValueError
        return Macaroon(identifier, tuple(caveats), signature)

    def _peek(self) -> int:
        if self._at >= len(self._data):
            raise ValueError
        return self._data[self._at]

    def _expect(self, byte: int) -> None:
        if self._peek() != byte:
            raise ValueError
        self._at += 1

    def _take_field(self, kind: int) -> bytes:
        self._expect(kind)
        length = shift = 0
        while True:
            byte = self._peek()
            self._at += 1
            length |= (byte & (_ONE_BYTE - 1)) << shift
            shift += 7
            if byte < _ONE_BYTE:
                break
            if shift == _LONGEST_SHIFT:
                raise ValueError
        data = self._data[self._at : self._at + length]
        if len(data) != length:
            raise ValueError
        self._at += length
        return data
