"""The bootable disk: one FAT partition behind a master boot record, started by SYSLINUX (BIOS) or systemd-boot (UEFI).

Both loaders read the same kernel and initrd, so these are on the disk once.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from backend.images.starter.tools import run_tool

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MIB = 1 << 20
SIZE = 64 * MIB
_SECTOR = 512
_START = MIB // _SECTOR
_IDENTITY = 0x4B435354
_BOOT_CODE_LIMIT = 440
_ACTIVE, _FAT16_LBA = 0x80, 0x0E
_NO_CYLINDERS = b"\xfe\xff\xff"


def write_disk(disk: Path, boot_code: bytes, files: Mapping[str, Path]) -> None:
    """Make a raw disk image at `disk`, which must be an empty file, with `files` by their paths on the partition."""
    with disk.open("r+b") as image:
        image.truncate(SIZE)
        image.write(master_boot_record(boot_code))
    run_tool(
        *("mkfs.vfat", "--invariant", "-F", "16", "-s", "4", "-n", "KC-STARTER", "-i", f"{_IDENTITY:08x}"),
        *("-h", str(_START), f"--offset={_START}", disk, str((SIZE - MIB) // 1024)),
        seconds=60,
    )
    partition = f"{disk}@@{MIB}"
    folders = sorted({str(parent) for name in files for parent in _parents(name)})
    if folders:
        run_tool("mmd", "-i", partition, *(f"::{folder}" for folder in folders), seconds=60)
    for name, source in files.items():
        run_tool("mcopy", "-i", partition, "-m", source, f"::{name}", seconds=60)
    run_tool("syslinux", "--offset", str(MIB), "--install", disk, seconds=60)


def _parents(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def master_boot_record(boot_code: bytes) -> bytes:
    """Return the first sector: boot code, a disk identity, and one active partition from 1 MiB to the disk's end."""
    entry = struct.pack("<B3sB3sII", _ACTIVE, _NO_CYLINDERS, _FAT16_LBA, _NO_CYLINDERS, _START, (SIZE - MIB) // _SECTOR)
    code = boot_code[:_BOOT_CODE_LIMIT].ljust(_BOOT_CODE_LIMIT, b"\0")
    return code + struct.pack("<IH", _IDENTITY, 0) + entry + bytes(48) + b"\x55\xaa"
