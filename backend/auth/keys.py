"""The key that KC's own secrets come from: root keys of tokens, and what OTP seeds are sealed with.

32 random bytes in one file of its owner's alone. Whoever has it and the store can make tokens; without it limited
tokens, sessions and OTP enrolments made so far are worth nothing, while documents stay what they are.
"""

from __future__ import annotations

import hmac
import os
import stat
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from backend.errors import FailedError, RefusedError
from backend.paths import make_private

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import aead

    from backend.settings import Settings

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_SEALED_VERSION: Final = b"\x01"


class MasterKey:
    """The key in a file, read when it is first needed, and made where there is none; safe to use from threads."""

    def __init__(self, path: Path) -> None:
        """Name the file; nothing is read or made yet."""
        self.path = path
        self._guard = threading.Lock()
        self._secret = b""

    def __repr__(self) -> str:
        """Name the file, and nothing of what is in it."""
        return f"MasterKey({str(self.path)!r})"

    def derive(self, purpose: str, ident: str) -> bytes:
        """Return 32 bytes that follow from the key, for one purpose and one thing.

        One block of HKDF-Expand (RFC 5869) with SHA-256, of a key that is uniform already; each part of the info has
        its length before it, so that no two pairs give the same.
        """
        parts = (b"kc/v1", purpose.encode(), ident.encode())
        info = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return hmac.digest(self._read(), info + b"\x01", "sha256")

    def seal(self, data: bytes, *, bound_to: str = "") -> bytes:
        """Return `data` encrypted and authenticated (AES-256-GCM); to be opened with the same `bound_to` alone."""
        nonce = os.urandom(_NONCE_BYTES)
        return _SEALED_VERSION + nonce + self._cipher().encrypt(nonce, data, bound_to.encode())

    def open(self, sealed: bytes, *, bound_to: str = "") -> bytes:
        """Return what `seal` was given; raise RefusedError for what this key did not seal, or somebody changed."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - a list of VMs opens nothing

        nonce, rest = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        if sealed[:1] == _SEALED_VERSION and len(nonce) == _NONCE_BYTES:
            with suppress(InvalidTag):
                return self._cipher().decrypt(nonce, rest, bound_to.encode())
        hint = "bring back the key file that it was made with, or make it anew"
        raise RefusedError("sealed secret", f"the key in {self.path} does not open it", hint)

    def _cipher(self) -> aead.AESGCM:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - as above

        return AESGCM(self.derive("seal", ""))

    def _read(self) -> bytes:
        if not self._secret:
            with self._guard:
                self._secret = self._secret or _load(self.path)
        return self._secret


def open_master_key(settings: Settings) -> MasterKey:
    """Return the key of a KC: `auth.key` among its data, or the file that `[auth] keyFile` names."""
    named = settings.auth.get("keyFile", "")
    if not isinstance(named, str):
        raise RefusedError(f"settings {settings.paths.config_file}", "auth.keyFile is no text", "write a path")
    return MasterKey(Path(named).expanduser() if named else settings.paths.data / "auth.key")


def _load(path: Path) -> bytes:
    """Return the key in a file, made where there is none; raise KCErrors."""
    try:
        try:
            return _read_file(path)
        except FileNotFoundError:
            _make_file(path)
            return _read_file(path)
    except OSError as error:
        why = str(error.strerror or error).lower()
        raise FailedError(f"key {path}", why, "name another file with keyFile in [auth]") from error


def _read_file(path: Path) -> bytes:
    # Not blocking, for a pipe of that name would never end; the checks are of what was opened, not of a name.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        _check_status(path, os.fstat(descriptor))
        secret = os.read(descriptor, KEY_BYTES + 1)
    finally:
        os.close(descriptor)
    if len(secret) != KEY_BYTES:
        hint = "bring back a copy of it, or move it away: KC makes a new one, and tokens have to be made anew"
        raise RefusedError(f"key {path}", f"it has not the {KEY_BYTES} bytes of a key", hint)
    return secret


def _check_status(path: Path, status: os.stat_result) -> None:
    """Raise RefusedError for what is no file of this user's alone."""
    if not stat.S_ISREG(status.st_mode):
        raise RefusedError(f"key {path}", "it is not a file", "move it away; KC makes a new one")
    if status.st_uid != os.geteuid():
        why = f"it belongs to another user (uid {status.st_uid})"
        raise RefusedError(f"key {path}", why, f"chown it to uid {os.geteuid()}, or run KC as its owner")
    if status.st_mode & 0o077:
        why = f"others can get at it (mode {stat.S_IMODE(status.st_mode):04o})"
        raise RefusedError(f"key {path}", why, "chmod 600, and make tokens and OTP enrolments anew if it was read")


def _make_file(path: Path) -> None:
    """Make a key at `path`, whole from its first moment on; of several processes the first one's is everybody's."""
    make_private(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)
            file.write(os.urandom(KEY_BYTES))
            file.flush()
            os.fsync(descriptor)
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Have a new name in a folder survive a loss of power: tokens made with the key are in the store by then."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
