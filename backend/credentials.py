"""Where the credentials of remote profiles are kept: the system's keyring; or, asked for, a file of the user's own.

`credentials.toml` says of each profile where its credential is and for which server it was given; one that was given
for another server is never found, and no keyring is asked where none has anything. Only keyrings that keep secrets
from others, and that ask nothing on the terminal, are used.
"""

from __future__ import annotations

import json
import os
import stat
import threading
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar, cast

from backend.errors import FailedError, RefusedError
from backend.paths import Paths, write_atomically
from backend.text import sanitise

FILE_NAME: Final = "credentials.toml"
SERVICE: Final = "kc"
LIMIT_SECONDS: Final = 2.0
KEYRINGS: Final[tuple[str, ...]] = (
    "keyring.backends.macOS.Keyring",
    "keyring.backends.Windows.WinVaultKeyring",
    "keyring.backends.SecretService.Keyring",
    "keyring.backends.libsecret.Keyring",
    "keyring.backends.kwallet.DBusKeyring",
)
"""Named one by one: what else is installed may write secrets in the clear, or ask for a password on the terminal."""
_CHOICE: Final = "PYTHON_KEYRING_BACKEND"
_HEAD: Final = "# Written by kc login; kc logout takes entries out. Whoever can read this file can act in your name.\n"
Result = TypeVar("Result")


class Keyring(Protocol):
    """What is asked of a keyring."""

    def get_password(self, service: str, username: str) -> str | None:
        """Return a secret, or None."""

    def set_password(self, service: str, username: str, password: str) -> None:
        """Keep a secret."""

    def delete_password(self, service: str, username: str) -> None:
        """Forget a secret."""


class Credentials:
    """The values of headers that were given for profiles; an `origin` is a scheme, host and port."""

    def __init__(self, paths: Paths) -> None:
        self._path = paths.config / FILE_NAME

    def find(self, profile: str, origin: str) -> str:
        """Return the header's value that was given for a profile's server; empty where none was.

        Raises FailedError where the keyring that has it does not answer, RefusedError for an unsafe file.
        """
        entry = self._read().get(profile)
        if entry is None or entry.get("origin") != origin:
            return ""
        if entry.get("place") == "file":
            return str(entry.get("value", ""))
        user = _name_user(profile, origin)
        value = _limited(lambda: open_keyring().get_password(SERVICE, user), f"kc login {profile}")
        if value is None:
            raise FailedError("keyring", f"it has no credential for {profile} any more", f"kc login {profile}")
        return value

    def keep(self, profile: str, origin: str, value: str, *, in_file: bool) -> str:
        """Keep a header's value for a profile's server; return where, in words.

        Raises FailedError, with nothing kept, where there is no keyring that can be used.
        """
        entries = self._read()
        if in_file:
            entries[profile] = {"origin": origin, "place": "file", "value": value}
            self._write(entries)
            return str(self._path)
        name = _limited(lambda: _store(_name_user(profile, origin), value), self._name_other_way(profile))
        entries[profile] = {"origin": origin, "place": "keyring"}
        self._write(entries)
        return f"the keyring ({name})"

    def check_keyring(self, profile: str) -> None:
        """Raise FailedError where there is no keyring that can be used."""
        _limited(open_keyring, self._name_other_way(profile))

    def _name_other_way(self, profile: str) -> str:
        return f"kc login {profile} --file keeps it in {self._path}, which only you can read"

    def remove(self, profile: str) -> bool:
        """Forget what is kept for a profile; return whether anything was."""
        entries = self._read()
        entry = entries.pop(profile, None)
        if entry is None:
            return False
        if entry.get("place") == "keyring":
            user = _name_user(profile, str(entry.get("origin", "")))
            _limited(lambda: _delete(user), "unlock it, then try again")
        self._write(entries)
        return True

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise self._refuse(str(error.strerror).lower()) from error
        import tomllib  # noqa: PLC0415 - most homes have no such file

        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO) or status.st_uid != os.getuid():
                raise self._refuse("others can read it", f"chmod 600 {self._path}, and log in anew")
            try:
                found = tomllib.loads(file.read().decode("utf-8"))
            except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
                # What is wrong in it is not shown: it may stand beside a secret.
                raise self._refuse("it cannot be read") from error
        return {name: dict(entry) for name, entry in found.items() if isinstance(entry, dict)}

    def _refuse(self, why: str, hint: str = "move it away, and log in anew") -> RefusedError:
        return RefusedError(f"credentials {self._path}", why, hint)

    def _write(self, entries: dict[str, dict[str, str]]) -> None:
        if not entries:
            self._path.unlink(missing_ok=True)
            return
        tables = (
            f"\n[{_quote(name)}]\n" + "".join(f"{key} = {_quote(value)}\n" for key, value in entry.items())
            for name, entry in sorted(entries.items())
        )
        write_atomically(self._path, (_HEAD + "".join(tables)).encode())


def _quote(text: str) -> str:
    return json.dumps(text).replace("\x7f", "\\u007f")


def _name_user(profile: str, origin: str) -> str:
    return f"{profile} {origin}"


def _store(user: str, value: str) -> str:
    keyring = open_keyring()
    keyring.set_password(SERVICE, user, value)
    # Some take all and keep nothing.
    if keyring.get_password(SERVICE, user) != value:
        raise FailedError("keyring", "it did not keep the credential")
    return type(keyring).__module__.rpartition(".")[2]


def _delete(user: str) -> None:
    keyring = open_keyring()
    if keyring.get_password(SERVICE, user) is not None:
        keyring.delete_password(SERVICE, user)


def open_keyring() -> Keyring:
    """Return the first keyring of the list that works here; raise FailedError where none does."""
    from importlib import import_module  # noqa: PLC0415 - for a login alone

    wish = os.environ.get(_CHOICE, "")
    for name in KEYRINGS:
        if wish and wish != name:
            continue
        module, _, word = name.rpartition(".")
        found: Any = getattr(import_module(module), word)
        if found.viable:
            return cast("Keyring", found())
    raise FailedError("keyring", "there is none here that keeps secrets")


def _limited(work: Callable[[], Result], hint: str) -> Result:
    """Return what `work` gives; raise FailedError for whatever it raises, and where it takes too long."""
    results: list[Result] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:  # noqa: BLE001 - a keyring is somebody else's program, and raises what it wants
            errors.append(error)

    thread = threading.Thread(target=run, name="kc-keyring", daemon=True)
    thread.start()
    thread.join(LIMIT_SECONDS)
    if results:
        return results[0]
    if not errors:
        raise FailedError("keyring", f"it did not answer within {LIMIT_SECONDS:g} s", hint)
    error = errors[0]
    why = error.why if isinstance(error, FailedError) else sanitise(f"{type(error).__name__}: {error}", 200)
    raise FailedError("keyring", why, hint) from error
