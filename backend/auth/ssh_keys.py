"""Who a public SSH key stands for: a file of keys, each with the name of its subject.

The file has the form of sshd's authorized_keys (sshd(8)), a key a line: `TYPE BASE64 SUBJECT [GROUP,GROUP…]`. Options
before a key are refused: what a session may do is said by KC's grants and nowhere else. A line that cannot be used
takes away its own access alone, and is told of. sshd has proved by then that the client holds the key.
"""

from __future__ import annotations

import base64
import binascii
import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from backend.auth.protocol import ABSTAIN, API_VERSION, AuthRequest, CacheScope, Decision, fail
from backend.auth.tables import COMMON_SETTINGS, Table
from backend.auth.watched_files import WatchedFile
from backend.errors import ConflictError, FailedError, KCError, NotFoundError, RefusedError
from backend.paths import Paths, make_private, write_atomically
from backend.text import sanitise

if TYPE_CHECKING:
    from backend.auth.context import AuthContext

TYPE: Final = "ssh-keys"
FILE_NAME: Final = "ssh-keys"
_LONGEST_LINE: Final = 16 << 10
_RSA_BITS: Final = (2048, 16384)
_SUBJECT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")
_MOST_FIELDS: Final = 4
_ED25519_BYTES: Final = 32
# It costs a look at a file's times.
_REVALIDATE_SECONDS: Final = 10.0
_POINT_BYTES: Final = {"nistp256": 65, "nistp384": 97, "nistp521": 133}
_UNCOMPRESSED: Final = 4


class Key(NamedTuple):
    """One key: `blob` is its base64, `fingerprint` is as ssh-keygen -l prints it."""

    type: str
    blob: str
    fingerprint: str
    subject: str
    groups: tuple[str, ...] = ()

    @property
    def public(self) -> str:
        """The key itself, as it stands in a file."""
        return f"{self.type} {self.blob}"

    @property
    def line(self) -> str:
        """Its whole line."""
        return " ".join([self.public, self.subject, *([",".join(self.groups)] if self.groups else [])])


class KeyFile(NamedTuple):
    """What is in a file: the keys that can be used, and a line for each thing that cannot."""

    keys: tuple[Key, ...]
    problems: tuple[str, ...]

    def find(self, fingerprint: str) -> Key | None:
        """Return the key of a fingerprint."""
        return next((key for key in self.keys if key.fingerprint == fingerprint), None)


# --- one key


def parse_key(text: str, subject: str = "", groups: Sequence[str] = ()) -> Key:
    """Return the key of one line; a `subject` that is given takes the place of the comment. Raises RefusedError."""
    words = text.split()
    if len(text) > _LONGEST_LINE or "\n" in text.strip():
        raise _refuse("it is not one line of one key")
    if len(words) < 2 or words[0] not in _CHECKS:  # noqa: PLR2004 - type and key
        raise _refuse(_say_unknown(words))
    named = words[2:_MOST_FIELDS]
    if not subject:
        if not named or len(words) > _MOST_FIELDS:
            raise _refuse("the subject, and groups joined by commas where there are some, is what follows the key")
        subject, groups = named[0], tuple(named[1].split(",")) if len(named) > 1 else ()
    for name in (subject, *groups):
        if not _SUBJECT.fullmatch(name):
            raise _refuse(f"{sanitise(name, 40)!r} is no name", "letters, digits and ._@+- make one, 100 at most")
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError) as error:
        raise _refuse("its second word is no base64") from error
    _check_blob(words[0], blob)
    return Key(words[0], words[1], make_fingerprint(blob), subject, tuple(groups))


def make_fingerprint(blob: bytes) -> str:
    """Return `SHA256:…` of a key in SSH's own form (RFC 4253, 6.6)."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def _say_unknown(words: Sequence[str]) -> str:
    if len(words) > 1 and any(word in _CHECKS for word in words[1:]):
        return "options before a key are not taken: KC's grants say what a subject may do"
    known = ", ".join(_CHECKS)
    return f"{sanitise(words[0], 60)!r} is no kind of key that is taken; known are {known}" if words else "it is empty"


def _refuse(why: str, hint: str = "") -> RefusedError:
    return RefusedError("SSH key", why, hint)


def _check_blob(key_type: str, blob: bytes) -> None:
    parts = list(_split_blob(blob))
    if not parts or parts[0] != key_type.encode():
        raise _refuse("its inside is of another kind than its first word says")
    _CHECKS[key_type](parts[1:])


def _split_blob(blob: bytes) -> Iterator[bytes]:
    """Yield the length-prefixed strings of a key (RFC 4251, 5)."""
    at = 0
    while at < len(blob):
        end = at + 4 + int.from_bytes(blob[at : at + 4], "big")
        if end > len(blob) or at + 4 > len(blob):
            raise _refuse("it is cut short")
        yield blob[at + 4 : end]
        at = end


def _check_ed25519(parts: Sequence[bytes]) -> None:
    if [len(part) for part in parts] != [_ED25519_BYTES]:
        raise _refuse("it is no whole Ed25519 key")


def _check_rsa(parts: Sequence[bytes]) -> None:
    if len(parts) != 2:  # noqa: PLR2004 - exponent and modulus
        raise _refuse("it is no whole RSA key")
    exponent, modulus = (int.from_bytes(part, "big") for part in parts)
    if not _RSA_BITS[0] <= modulus.bit_length() <= _RSA_BITS[1] or parts[1][0] & 0x80:
        raise _refuse(
            f"RSA keys have {_RSA_BITS[0]} to {_RSA_BITS[1]} bits", "ssh-keygen -t ed25519 makes a better one"
        )
    if exponent < 3 or exponent % 2 == 0:  # noqa: PLR2004 - the least that is a public exponent
        raise _refuse("its RSA exponent is none")


def _check_curve(curve: str) -> Callable[[Sequence[bytes]], None]:
    def check(parts: Sequence[bytes]) -> None:
        if len(parts) != 2 or parts[0] != curve.encode():  # noqa: PLR2004 - curve and point
            raise _refuse(f"it is no whole key on {curve}")
        if len(parts[1]) != _POINT_BYTES[curve] or parts[1][0] != _UNCOMPRESSED:
            raise _refuse(f"its point is none of {curve}")

    return check


def _with_application(check: Callable[[Sequence[bytes]], None]) -> Callable[[Sequence[bytes]], None]:
    def check_all(parts: Sequence[bytes]) -> None:
        if not parts or not parts[-1]:
            raise _refuse("it names no application, as keys on tokens do")
        check(parts[:-1])

    return check_all


_CHECKS: Final[dict[str, Callable[[Sequence[bytes]], None]]] = {
    "ssh-ed25519": _check_ed25519,
    "ecdsa-sha2-nistp256": _check_curve("nistp256"),
    "ecdsa-sha2-nistp384": _check_curve("nistp384"),
    "ecdsa-sha2-nistp521": _check_curve("nistp521"),
    "ssh-rsa": _check_rsa,
    "sk-ssh-ed25519@openssh.com": _with_application(_check_ed25519),
    "sk-ecdsa-sha2-nistp256@openssh.com": _with_application(_check_curve("nistp256")),
}

# --- the file


def find_key_file(paths: Paths, auth: Mapping[str, Any]) -> Path:
    """Return the file that the first `ssh-keys` of `[auth]` names, or the usual one."""
    chain = Table(auth, f"{paths.config_file}: auth").tables("chain")
    values = next((entry for entry in chain if entry.get("type") == TYPE), {})
    return _resolve(paths, Table(values, f"{paths.config_file}: {TYPE}"))


def _resolve(paths: Paths, table: Table) -> Path:
    # A relative one is beside the settings.
    return paths.config / Path(table.text("file") or FILE_NAME).expanduser()


def watch_key_file(path: Path) -> WatchedFile[KeyFile]:
    """Return a file of keys that is read again when it changed."""
    return WatchedFile(path, lambda data: _parse_lines(data.decode("utf-8", "replace")))


def read_key_file(file: WatchedFile[KeyFile]) -> KeyFile:
    """Return what is in a file, nothing where there is none; raise FailedError, or RefusedError for an unsafe one."""
    folder = file.path.parent
    try:
        status = folder.stat()
        file.path.lstat()
    except FileNotFoundError:
        return KeyFile((), ())
    except OSError as error:
        raise FailedError(f"file {file.path}", str(error.strerror).lower()) from error
    # Whoever may write the folder may put another file in the place of this one, as sshd says too.
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise RefusedError(f"folder {folder}", "others may write it", f"chmod go-w {folder}")
    return file.read()


def _parse_lines(text: str) -> KeyFile:
    keys: dict[str, Key] = {}
    problems, twice = [], set()
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            key = parse_key(line)
        except RefusedError as error:
            problems.append(f"line {number}: {error.why}")
            continue
        if key.fingerprint in keys:
            # Whose it is cannot be known: it is nobody's.
            problems.append(f"line {number}: the key is there twice; nobody gets in with it")
            twice.add(key.fingerprint)
        keys.setdefault(key.fingerprint, key)
    return KeyFile(tuple(key for key in keys.values() if key.fingerprint not in twice), tuple(problems))


def add_key(path: Path, key: Key) -> None:
    """Add a key to a file; raise ConflictError where it is there already."""
    with _changing(path) as lines:
        if any(_is_key(line, key.fingerprint) for line in lines):
            raise ConflictError(f"SSH key {key.fingerprint}", "it is there already", "kc ssh-console keys lists it")
        lines.append(key.line)


def remove_key(path: Path, fingerprint: str) -> int:
    """Remove every line with a key from a file and return how many there were; raise NotFoundError for none."""
    with _changing(path) as lines:
        kept = [line for line in lines if not _is_key(line, fingerprint)]
        removed = len(lines) - len(kept)
        if not removed:
            why, hint = "there is no such key", "kc ssh-console keys lists them"
            raise NotFoundError(f"SSH key {sanitise(fingerprint, 80)}", why, hint)
        lines[:] = kept
    return removed


def _is_key(line: str, fingerprint: str) -> bool:
    try:
        return parse_key(line).fingerprint == fingerprint
    except RefusedError:
        return False


@contextmanager
def _changing(path: Path) -> Iterator[list[str]]:
    """Give the lines of a file to change; it is replaced as a whole, and by one process at a time."""
    try:
        folder = _make_folder(path.parent)
        owner = (path if path.exists() else folder).stat()
        lock = os.open(folder / f".{path.name}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            text = path.read_text("utf-8") if path.exists() else ""
            lines = text.splitlines()
            yield lines
            write_atomically(path, "".join(f"{line}\n" for line in lines).encode())
            if os.geteuid() == 0:
                # Root may do it for KC's user, who is to read it.
                os.chown(path, owner.st_uid, owner.st_gid)
                os.fchown(lock, owner.st_uid, owner.st_gid)
        finally:
            os.close(lock)
    except (OSError, UnicodeDecodeError) as error:
        why = str(getattr(error, "strerror", None) or "it is no text").lower()
        raise FailedError(f"file {path}", why) from error


def _make_folder(folder: Path) -> Path:
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    make_private(folder)
    if missing and os.geteuid() == 0:
        owner = missing[-1].parent.stat()
        for each in missing:
            os.chown(each, owner.st_uid, owner.st_gid)
    return folder


# --- the authenticator


class SshKeys:
    """Says whose key an SSH client showed to sshd; setting `file` (usual: `ssh-keys` beside config.toml).

    It is read again whenever it has changed. On a key that is not in it others may know more.
    """

    api_version: int = API_VERSION
    cache_scope: CacheScope = "none"

    def __init__(self, context: AuthContext, settings: Mapping[str, Any]) -> None:
        """Take where the file is; it need not be there yet."""
        table = Table(settings, f"{context.paths.config_file}: {TYPE}")
        table.check_keys(COMMON_SETTINGS | {"file"})
        self.name = table.text("name") or TYPE
        self._file = watch_key_file(_resolve(context.paths, table))

    def accepts(self, request: AuthRequest) -> bool:
        """Return whether a key was shown."""
        return request.client.transport == "ssh" and bool(request.client.ssh_fingerprint)

    async def decide(self, request: AuthRequest) -> Decision:
        """Say who it is; KC's grants say what they may do."""
        try:
            key = read_key_file(self._file).find(request.client.ssh_fingerprint)
        except KCError as error:
            return fail(str(error))
        if key is None:
            return ABSTAIN
        return Decision(
            "allow",
            subject=key.subject,
            groups=key.groups,
            revalidate_after=_REVALIDATE_SECONDS,
            authenticator=self.name,
        )

    async def check_health(self) -> str:
        """Return why the file cannot be used, or what in it cannot."""
        try:
            return "; ".join(read_key_file(self._file).problems)
        except KCError as error:
            return str(error)

    async def close(self) -> None:
        """Hold nothing."""
