"""The user's public SSH keys, as they lie in the home folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from backend.text import sanitise
from kc_tui.state.create_vm import PublicKey

_LARGEST: Final = 16 * 1024
_MOST: Final = 8
_KEY: Final = re.compile(r"(ssh-|ecdsa-|sk-)\S+ [A-Za-z0-9+/=]+( .*)?")
# The order in which ssh itself tries them.
_ORDER: Final = ("id_ed25519", "id_ecdsa", "id_rsa")


def find_public_keys(home: Path) -> list[PublicKey]:
    """Return the keys in `~/.ssh/id_*.pub`, the best first; files that hold no public key are passed over."""
    found = []
    folder = home / ".ssh"
    try:
        paths = sorted(folder.glob("id_*.pub"), key=lambda path: (_rank(path), path.name))
    except OSError:
        return []
    for path in paths[:_MOST]:
        text = _read(path)
        if text:
            found.append(PublicKey(f"~/.ssh/{sanitise(path.name, 100)}", text))
    return found


def _rank(path: Path) -> int:
    return _ORDER.index(path.stem) if path.stem in _ORDER else len(_ORDER)


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            text = file.read(_LARGEST).strip()
    except OSError:
        return ""
    line = sanitise(text, _LARGEST)
    return line if _KEY.fullmatch(line) and "\n" not in text else ""
