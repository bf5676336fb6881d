"""Debian packages, from the machine's own mirror and with its own trust, unpacked into a folder and never installed."""

from __future__ import annotations

import fnmatch
import os
import pwd
import shutil
from typing import TYPE_CHECKING

from backend.errors import FailedError
from backend.images.starter.tools import WHAT, run_tool

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

_REFRESH = "apt-get update"
_LIBRARIES = ("lib*", "zlib1g*")
_NO_LIBRARIES = ("*-bin", "*-common", "*-data", "*-dev", "*-perl", "*-doc")
_DEPENDS = ("--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks", "--no-replaces", "--no-enhances")


def resolve_kernel(meta_package: str) -> str:
    """Return the name of the kernel package that a meta package stands for today."""
    listing = run_tool("apt-cache", "depends", meta_package, seconds=60, hint=f"Refresh the package lists: {_REFRESH}")
    stem, _, flavour = meta_package.partition("-cloud-")
    kernels = fnmatch.filter(_dependencies(listing).get(meta_package, []), f"{stem}-[0-9]*-cloud-{flavour}")
    if not kernels:
        raise FailedError(WHAT, f"{meta_package} names no kernel", f"Refresh the package lists: {_REFRESH}")
    return kernels[0]


def resolve_libraries(packages: Collection[str]) -> list[str]:
    """Return the library packages that `packages` depend on, directly or through other libraries; sorted."""
    listing = run_tool(
        "apt-cache",
        "depends",
        "--recurse",
        *_DEPENDS,
        *packages,
        seconds=60,
        hint=f"Refresh the package lists: {_REFRESH}",
    )
    depends = _dependencies(listing)
    found: set[str] = set()
    waiting = list(packages)
    while waiting:
        libraries = {name for name in depends.get(waiting.pop(), []) if _is_library(name)} - found
        found |= libraries
        waiting += libraries
    return sorted(found.difference(packages))


def _is_library(name: str) -> bool:
    def matches(patterns: Iterable[str]) -> bool:
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)

    return matches(_LIBRARIES) and not matches(_NO_LIBRARIES)


def _dependencies(listing: str) -> dict[str, list[str]]:
    """Read what `apt-cache depends` prints: packages at the margin, relations below; the first choice counts."""
    depends: dict[str, list[str]] = {}
    current: list[str] = []
    alternative = False
    for line in listing.splitlines():
        if line and not line[0].isspace():
            current = depends.setdefault(line.strip(), [])
            alternative = False
            continue
        relation, colon, name = line.strip().partition(": ")
        if not colon or relation.lstrip("|") not in {"Depends", "PreDepends"}:
            continue
        if not alternative and not name.startswith("<"):
            current.append(name)
        alternative = relation.startswith("|")
    return depends


def download(packages: Collection[str], folder: Path) -> list[Path]:
    """Fetch packages into an empty private folder and return the files, sorted by name; apt checks their signatures."""
    folder.mkdir(mode=0o755)
    if os.geteuid() == 0:
        _give_to_downloader(folder)
    run_tool(
        "apt-get",
        "download",
        "--quiet=2",
        *packages,
        seconds=600,
        folder=folder,
        hint=f"Refresh the package lists and try again: {_REFRESH}",
    )
    files = sorted(folder.glob("*.deb"))
    if len(files) != len(packages):
        raise FailedError(
            WHAT, f"the mirror gave {len(files)} of {len(packages)} packages", f"Try again after: {_REFRESH}"
        )
    return files


def _give_to_downloader(folder: Path) -> None:
    """Let apt fetch as its own unprivileged user, which it does only where that user may write."""
    try:
        owner = pwd.getpwnam("_apt")
    except KeyError:
        return
    folder.parent.chmod(0o711)
    shutil.chown(folder, owner.pw_uid)


def unpack(files: Iterable[Path], folder: Path) -> None:
    """Unpack packages into one folder with a merged /usr; none of their scripts runs."""
    folder.mkdir()
    for file in files:
        run_tool("dpkg-deb", "--extract", file, folder, seconds=120)
    # Whether a package says /bin or /usr/bin, it lands in one place, as on every current Debian.
    for name in ("bin", "sbin", "lib", "lib64"):
        apart, merged = folder / name, folder / "usr" / name
        merged.mkdir(parents=True, exist_ok=True)
        if apart.is_dir():
            shutil.copytree(apart, merged, symlinks=True, dirs_exist_ok=True, copy_function=os.replace)
            shutil.rmtree(apart)
        apart.symlink_to(f"usr/{name}")
