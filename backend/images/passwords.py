"""Passwords in cloud-config: only hashes, and only one for the default user.

Source: cloud-init's modules `users_groups` and `set_passwords`. The latter takes a text for a hash only where it has
one of the older forms, and else for the password itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from backend.errors import RefusedError
from backend.images.cloud_config import WHAT
from backend.text import sanitise

_HINT: Final = "make a hash with openssl passwd -6, and give it as --password-hash or as hashed_passwd"
_HASH: Final = re.compile(r"\$(?:y|gy|7|2[abxy]|6|5|sha1|1)\$[./0-9A-Za-z=,+-]*(?:\$[./0-9A-Za-z=,+-]+)+")
# What begins so locks the account.
_LOCKS: Final = ("!", "*")
_OLDER_HASH: Final = re.compile(r"\$(?:1|2a|2y|5|6)\$[^$:\s]+\$[^:\s]+")
_HASHED: Final = ("passwd", "hashed_passwd")
_PLAIN: Final = "plain_text_passwd"


def check_passwords(config: dict[str, Any]) -> None:
    """Raise RefusedError naming the first password in a cloud-config that is no hash."""
    for path, text in _find_plain(config):
        raise RefusedError(WHAT, f"{sanitise(path, 80)}: {text}", _HINT)


def check_no_default_password(config: dict[str, Any]) -> None:
    """Raise RefusedError where a cloud-config leaves no place for a password hash of the default user's.

    It may set one itself: beside another, one of the two would be lost without a word, so one has to go.
    """
    own = [path for path, account in _accounts(config) if _is_default(path, account) and _sets_password(account)]
    if config.get("password") is not None:
        own.append("password")
    if own:
        why = f"{own[0]} stands against the VM's password hash"
        raise RefusedError(WHAT, why, "leave one of them out", field="passwordHash")
    if not isinstance(config.get("users"), list | None):
        why = "users is no list, so the default user's password hash cannot join it"
        raise RefusedError(WHAT, why, "write users: [NAME, …]", field="passwordHash")


def _is_default(path: str, account: dict[str, Any]) -> bool:
    return path in ("user", "users.default") or account.get("name") == "default"


def _sets_password(account: dict[str, Any]) -> bool:
    return account.get("lock_passwd") is True or any(account.get(key) is not None for key in (*_HASHED, _PLAIN))


def _find_plain(config: dict[str, Any]) -> Iterator[tuple[str, str]]:
    password = config.get("password")
    if password is not None and not _OLDER_HASH.fullmatch(str(password)):
        yield "password", "it is in plain text, or no hash that cloud-init knows there"
    for path, account in _accounts(config):
        if account.get(_PLAIN) is not None:
            yield f"{path}.{_PLAIN}", "a password in plain text"
        for key in _HASHED:
            value = account.get(key)
            if value is not None and not _is_hash(str(value)):
                yield f"{path}.{key}", "it is no hash of crypt(5)"
    yield from _find_plain_changes(config.get("chpasswd"))


def _is_hash(text: str) -> bool:
    return bool(_HASH.fullmatch(text)) or text.startswith(_LOCKS)


def _find_plain_changes(chpasswd: Any) -> Iterator[tuple[str, str]]:
    """Yield the faults of `chpasswd`; a random password is written to the console, so it is a plain one."""
    if not isinstance(chpasswd, dict):
        return
    lines = chpasswd.get("list")
    for index, line in enumerate(lines if isinstance(lines, list) else str(lines or "").splitlines()):
        text = str(line).strip()
        if text and not _OLDER_HASH.fullmatch(text.partition(":")[2]):
            yield f"chpasswd.list.{index}", "it is in plain text, or no hash that cloud-init knows there"
    users = chpasswd.get("users")
    for index, user in enumerate(users if isinstance(users, list) else []):
        if not isinstance(user, dict):
            continue
        if user.get("type", "hash") != "hash":
            yield f"chpasswd.users.{index}.type", f"{sanitise(user['type'], 20)} puts the password there in plain text"
        elif user.get("password") is not None and not _is_hash(str(user["password"])):
            yield f"chpasswd.users.{index}.password", "it is no hash of crypt(5)"


def _accounts(config: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each account that a cloud-config sets up, once, with its path; cloud-init takes `-` in a key for `_`."""
    users = config.get("users")
    entries: list[tuple[str, Any]] = [("user", config.get("user"))]
    if isinstance(users, list):
        entries += [(f"users.{index}", user) for index, user in enumerate(users)]
    elif isinstance(users, dict):
        entries += [(f"users.{name}", user) for name, user in users.items()]
    # Aliases of YAML can name one account as often as there are bytes.
    seen: set[int] = set()
    for path, account in entries:
        if isinstance(account, dict) and id(account) not in seen:
            seen.add(id(account))
            yield path, {str(key).replace("-", "_").strip(): value for key, value in account.items()}
