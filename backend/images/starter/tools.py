"""The programs of other Debian packages that the builder runs, and how it runs them."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from backend.errors import FailedError, RefusedError, TimedOutError
from backend.text import sanitise

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

WHAT = "starter image"

PACKAGE_OF_TOOL = {
    "apt-cache": "apt",
    "apt-get": "apt",
    "depmod": "kmod",
    "dpkg-deb": "dpkg",
    "mcopy": "mtools",
    "mkfs.vfat": "dosfstools",
    "mmd": "mtools",
    "syslinux": "syslinux",
}

# An ordinary user's PATH leaves out where file system and module tools live.
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/bin", "/bin"])

# Fixed, so that two builds from the same packages are the same to the byte; not 0, which FAT cannot express.
EPOCH = 1_700_000_000
_ENVIRONMENT = {
    "PATH": _PATH,
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "SOURCE_DATE_EPOCH": str(EPOCH),
    "MTOOLS_SKIP_CHECK": "1",
}
# What the package manager needs of the caller's environment to reach its mirror.
_INHERITED = ("HOME", "TMPDIR", "APT_CONFIG", "http_proxy", "https_proxy", "ftp_proxy", "no_proxy")


def missing_tools() -> list[str]:
    """Return the Debian packages that must still be installed here before the image can be built; sorted."""
    return sorted({package for tool, package in PACKAGE_OF_TOOL.items() if shutil.which(tool, path=_PATH) is None})


def require_tools() -> None:
    """Raise `RefusedError` where a tool is missing, with the command that installs it."""
    missing = missing_tools()
    if not {"apt", "dpkg"}.isdisjoint(missing):
        raise RefusedError(
            WHAT,
            "it is made of Debian packages, and this machine has no apt",
            "Run `kc init` on a Debian machine, or upload an image with `kc image upload`",
        )
    if missing:
        raise RefusedError(WHAT, f"missing here: {', '.join(missing)}", f"apt-get install {' '.join(missing)}")


def run_tool(tool: str, *arguments: str | Path, seconds: float, folder: Path | None = None, hint: str = "") -> str:
    """Run a tool to its end and return its standard output; `FailedError` or `TimedOutError` carry its last words."""
    program = shutil.which(tool, path=_PATH)
    if program is None:
        package = PACKAGE_OF_TOOL.get(tool, tool)
        raise RefusedError(WHAT, f"missing here: {package}", f"apt-get install {package}")
    try:
        ended = subprocess.run(
            [program, *map(str, arguments)],
            cwd=folder,
            env=_environment(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TimedOutError(WHAT, f"{tool} did not end within {seconds:g} seconds", hint) from error
    if ended.returncode != 0:
        raise FailedError(
            WHAT, f"{tool} ended with {ended.returncode}: {_last_words(ended.stderr or ended.stdout)}", hint
        )
    return ended.stdout


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    return _ENVIRONMENT | {name: ours[name] for name in _INHERITED if name in ours}


def _last_words(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # apt's own errors are the lines that begin so; what follows them is advice.
    errors = [line for line in lines if line.startswith("E:")] or lines[-1:]
    return sanitise(errors[0] if errors else "nothing said", 300).rstrip(".")
