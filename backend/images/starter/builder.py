"""Builds the starter image, with no mount, no loop device, no root, and nothing installed."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from backend.errors import FailedError, RefusedError
from backend.images.starter import content, disk, packages
from backend.images.starter.archive import Tree
from backend.images.starter.tools import EPOCH, WHAT, require_tools

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_ARCH = "x86_64"
_KERNEL = "linux-image-cloud-amd64"
_LOADERS = ("syslinux-common", "systemd-boot-efi")

# The serial line is the last console, hence /dev/console. Emulated on a loaded host, the kernel's timer check can fail.
_COMMAND_LINE = "console=tty0 console=ttyS0,115200 quiet loglevel=3 no_timer_check memhp_default_state=online panic=10"
_SYSLINUX = f"""\
SERIAL 0 115200
DEFAULT starter
PROMPT 0
TIMEOUT 0
LABEL starter
  KERNEL /vmlinuz
  INITRD /initrd
  APPEND {_COMMAND_LINE}
"""
_SYSTEMD_BOOT = "timeout 0\neditor no\n"
_SYSTEMD_BOOT_ENTRY = f"title KC starter\nlinux /vmlinuz\ninitrd /initrd\noptions {_COMMAND_LINE}\n"


def recipe(arch: str = _ARCH) -> str:
    """Return 12 hex digits that change with anything of KC's that shapes the image; packages' versions do not count."""
    here = Path(__file__).parent
    sources = [path for path in here.glob("*.py") if path.name != "__init__.py"]
    guest_files = [path for path in content.GUEST_FILES.rglob("*") if path.is_file()]
    return _digest(arch, {path.relative_to(here).as_posix(): path.read_bytes() for path in [*sources, *guest_files]})


def _digest(arch: str, files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for part in (arch.encode(), *(part for name in sorted(files) for part in (name.encode(), files[name]))):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()[:12]


RECIPE = recipe()


def _say_nothing(_: str) -> None:
    pass


def build(destination: Path, *, arch: str = _ARCH, report: Callable[[str], None] = _say_nothing) -> Path:
    """Write the image, raw and sparse, 64 MiB, at `destination` in one step and return it; `report` hears each stage.

    Works for any user who may read apt's package lists, and takes some 250 MiB of temporary space. Raises
    `RefusedError` where it cannot be built here, `FailedError` or `TimedOutError` where a step did not work.
    """
    if arch != _ARCH:
        raise RefusedError(WHAT, f"it is not made for {arch}", f"Upload an image for {arch} with `kc image upload`")
    require_tools()
    if not os.access(destination.parent, os.W_OK | os.X_OK):
        raise FailedError(WHAT, f"{destination.parent} cannot be written", "Choose another folder for it")
    try:
        with tempfile.TemporaryDirectory(prefix="kc-starter-", ignore_cleanup_errors=True) as name:
            _build_in(Path(name), destination, report)
    except OSError as error:
        raise FailedError(
            WHAT,
            f"{error.filename or destination}: {error.strerror or error}",
            "It takes 250 MiB of temporary space (TMPDIR) and 64 MiB where it is written",
        ) from error
    return destination


def _build_in(work: Path, destination: Path, report: Callable[[str], None]) -> None:
    report("asking apt which packages it takes")
    wanted = [packages.resolve_kernel(_KERNEL), *content.PACKAGES, content.STATIC_SHELL, *_LOADERS]
    wanted += packages.resolve_libraries(content.PACKAGES)
    report(f"fetching {len(wanted)} packages")
    fetched = packages.download(wanted, work / "packages")
    report("unpacking them")
    static = [file for file in fetched if file.name.startswith(f"{content.STATIC_SHELL}_")]
    packages.unpack(static, work / "static")
    packages.unpack([file for file in fetched if file not in static], work / "unpacked")
    report("packing the guest")
    files = _boot_files(work)
    report("writing the disk image")
    _write_in_one_step(destination, work, files)


def _boot_files(work: Path) -> dict[str, Path]:
    """Return what goes on the boot partition, by its path there."""
    unpacked = work / "unpacked"
    tree = Tree()
    content.add_guest_files(tree, RECIPE)
    content.add_programs(tree, unpacked)
    content.add_static_shell(tree, work / "static")
    content.add_modules(tree, unpacked, work / "modules")
    written = {
        "initrd": tree.to_initrd(),
        "syslinux.cfg": _SYSLINUX.encode(),
        "loader/loader.conf": _SYSTEMD_BOOT.encode(),
        "loader/entries/starter.conf": _SYSTEMD_BOOT_ENTRY.encode(),
    }
    files = {}
    for number, (name, data) in enumerate(written.items()):
        files[name] = work / f"file{number}"
        files[name].write_bytes(data)
    files["vmlinuz"] = content.only(unpacked, "boot/vmlinuz-*")
    files["EFI/BOOT/BOOTX64.EFI"] = content.only(unpacked, "usr/lib/systemd/boot/efi/systemd-bootx64.efi")
    for path in files.values():
        os.utime(path, (EPOCH, EPOCH))
    return files


def _write_in_one_step(destination: Path, work: Path, files: dict[str, Path]) -> None:
    boot_code = content.only(work / "unpacked", "usr/lib/syslinux/mbr/mbr.bin").read_bytes()
    descriptor, name = tempfile.mkstemp(dir=destination.parent, prefix=f".{destination.name}.")
    image = Path(name)
    try:
        disk.write_disk(image, boot_code, files)
        image.chmod(0o644)
        # The tools wrote through descriptors of their own; this makes what they wrote durable before the name appears.
        os.fsync(descriptor)
        image.replace(destination)
    finally:
        os.close(descriptor)
        image.unlink(missing_ok=True)
