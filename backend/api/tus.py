"""The headers of tus 1.0: what a request says of an upload, read strictly."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from backend.api.bodies import parse_json
from backend.api.problems import HttpError
from backend.api.staging import Upload
from backend.errors import RefusedError, UsageError
from backend.model.kinds import IMAGE
from backend.model.schemas import check_name
from backend.text import sanitise

if TYPE_CHECKING:
    from backend.api.exchange import Exchange
    from backend.model.documents import Document

VERSION: Final = "1.0.0"
ALGORITHMS: Final = ("sha256", "sha1", "md5")
MEDIA: Final = "application/offset+octet-stream"
CAPABILITIES: Final = {
    "Tus-Resumable": VERSION,
    "Tus-Version": VERSION,
    "Tus-Extension": "creation,creation-with-upload,expiration,checksum,termination",
    "Tus-Checksum-Algorithm": ",".join(ALGORITHMS),
}
_FIGURE: Final = re.compile(r"[0-9]{1,18}")
_KEY: Final = re.compile(r"[!-+\--~]{1,100}")
_DECLARED: Final = ("format", "arch", "sha256", "title")
_LONGEST_NAME: Final = 200


class Checksum(NamedTuple):
    """What the bytes of a piece are to have."""

    algorithm: str
    digest: bytes


def check_version(exchange: Exchange) -> None:
    """Raise HttpError (412) for another version of the protocol, or none."""
    if exchange.header("tus-resumable") != VERSION:
        raise HttpError(412, "upload", "another version of tus", f"Tus-Resumable: {VERSION}", {"Tus-Version": VERSION})


def read_figure(exchange: Exchange, header: str) -> int:
    """Return a header that is a figure; raise UsageError."""
    text = exchange.header(header)
    if not _FIGURE.fullmatch(text):
        raise UsageError("upload", f"{header.title()} is {'no figure' if text else 'missing'}", "send a plain figure")
    return int(text)


def read_creation(exchange: Exchange) -> Upload:
    """Return the upload that a request asks for, not made yet; raise UsageError, RefusedError."""
    for header in ("upload-defer-length", "upload-concat"):
        if exchange.header(header):
            raise UsageError("upload", f"{header.title()} is not spoken here", "send Upload-Length")
    media = exchange.header("content-type")
    if media != MEDIA and (exchange.header("content-length") or "0") != "0":
        raise HttpError(415, "upload", "its type is not that of a piece", f"Content-Type: {MEDIA}")
    length = read_figure(exchange, "upload-length")
    if not length:
        raise RefusedError("upload", "an image is not empty", "send the length of a disk image")
    told = exchange.header("upload-metadata")
    words = read_metadata(told)
    name = words.get("name", "")
    check_name(name, IMAGE)
    declared = {key: words[key] for key in _DECLARED if words.get(key)}
    filename = sanitise(words.get("filename", "").rpartition("/")[2], _LONGEST_NAME)
    if filename:
        declared["source"] = f"file:{filename}"
    metadata = _read_object(words.get("metadata", ""))
    return Upload("", exchange.decision.subject, length, name, metadata, declared, told)


def read_metadata(text: str) -> dict[str, str]:
    """Return the pairs of Upload-Metadata; raise UsageError where they are not well formed."""
    words: dict[str, str] = {}
    for pair in text.split(",") if text.strip() else ():
        key, _, value = pair.strip().partition(" ")
        if not _KEY.fullmatch(key) or key in words:
            raise UsageError("upload", "Upload-Metadata has a bad key, or one twice", "KEY BASE64,KEY BASE64")
        try:
            words[key] = base64.b64decode(value.strip(), validate=True).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            raise UsageError("upload", f"Upload-Metadata: {key} is no text in base64", "KEY BASE64") from None
    return words


def read_checksum(exchange: Exchange) -> Checksum | None:
    """Return what Upload-Checksum says, None where there is none; raise UsageError."""
    text = exchange.header("upload-checksum")
    if not text:
        return None
    algorithm, _, value = text.partition(" ")
    if algorithm not in ALGORITHMS:
        raise UsageError("upload", "Upload-Checksum has an unknown algorithm", f"known are {', '.join(ALGORITHMS)}")
    try:
        digest = base64.b64decode(value.strip(), validate=True)
    except binascii.Error:
        digest = b""
    if len(digest) != hashlib.new(algorithm, usedforsecurity=False).digest_size:
        raise UsageError("upload", f"Upload-Checksum is no {algorithm} in base64", "ALGORITHM BASE64")
    return Checksum(algorithm, digest)


def check_room(exchange: Exchange, room: int) -> None:
    """Raise HttpError for a body that is compressed (415), or longer than what is left of its upload (413)."""
    if exchange.header("content-encoding") not in ("", "identity"):
        raise HttpError(415, "upload", "it is compressed", "send the bytes as they are")
    length = exchange.header("content-length")
    if length.isdecimal() and int(length) > room:
        raise HttpError(413, "upload", "more bytes than its length", "stop at Upload-Length", {"Connection": "close"})


def _read_object(text: str) -> Document:
    if not text:
        return {}
    try:
        # As strictly as a body: metadata is the same wherever it came by.
        value = parse_json(text.encode("utf-8", "surrogatepass"))
    except UsageError:
        value = None
    if not isinstance(value, dict):
        raise UsageError("upload", "Upload-Metadata: metadata is no JSON object", 'as {"tenant": "acme"}')
    return value
