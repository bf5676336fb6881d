"""What a file is, judged by the bytes that stand at fixed places: other formats, and the marks of a bootable disk.

No format is guessed at: a file is raw only if it bears the mark of a disk, or if its owner says so.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

HEAD_BYTES = 1 << 20
TAIL_BYTES = 512

_SECTOR_BYTES = 512


class Known(NamedTuple):
    """A kind of file that is no disk image of ours: its name with an article, and what to do with it."""

    name: str
    hint: str


def _convert(format_name: str) -> str:
    return f"convert it: qemu-img convert -f {format_name} -O qcow2 IN OUT"


_DECOMPRESS = "decompress it first"
_UNPACK = "unpack the disk image from it first"

# Offset, bytes, what they mean.
_SIGNATURES: tuple[tuple[int, bytes, Known], ...] = (
    (0, b"KDMV", Known("a VMDK image", _convert("vmdk"))),
    (0, b"COWD", Known("a VMDK image", _convert("vmdk"))),
    (0, b"# Disk DescriptorFile", Known("a VMDK descriptor", _convert("vmdk"))),
    (0, b"conectix", Known("a VHD image", _convert("vpc"))),
    (0, b"vhdxfile", Known("a VHDX image", _convert("vhdx"))),
    (0x40, b"\x7f\x10\xda\xbe", Known("a VDI image", _convert("vdi"))),
    (0, b"QED\x00", Known("a QED image", _convert("qed"))),
    (0, b"WithoutFreeSpace", Known("a Parallels image", _convert("parallels"))),
    (0, b"WithouFreSpacExt", Known("a Parallels image", _convert("parallels"))),
    (0, b"Bochs Virtual HD Image", Known("a Bochs image", _convert("bochs"))),
    (0, b"#!/bin/sh\n#V2.0 Format", Known("a cloop image", _convert("cloop"))),
    (0, b"MSWIM\x00\x00\x00", Known("a WIM archive", _UNPACK)),
    (0, b"\x3a\xff\x26\xed", Known("an Android sparse image", "convert it with simg2img")),
    (0, b"LUKS\xba\xbe", Known("a LUKS-encrypted disk", "decrypt it first")),
    (0, b"\x1f\x8b", Known("gzip-compressed", _DECOMPRESS)),
    (0, b"\xfd7zXZ\x00", Known("xz-compressed", _DECOMPRESS)),
    (0, b"(\xb5/\xfd", Known("zstd-compressed", _DECOMPRESS)),
    (0, b"BZh", Known("bzip2-compressed", _DECOMPRESS)),
    (0, b"\x04\x22\x4d\x18", Known("lz4-compressed", _DECOMPRESS)),
    (0, b"\x89LZO\x00", Known("lzop-compressed", _DECOMPRESS)),
    (0, b"\x5d\x00\x00", Known("lzma-compressed", _DECOMPRESS)),
    (0, b"PK\x03\x04", Known("a zip archive", _UNPACK)),
    (0, b"7z\xbc\xaf\x27\x1c", Known("a 7-Zip archive", _UNPACK)),
    (0, b"Rar!\x1a\x07", Known("a RAR archive", _UNPACK)),
    (257, b"ustar", Known("a tar archive (an OVA, perhaps)", _UNPACK)),
    (0, b"0707", Known("a cpio archive", _UNPACK)),
    (0, b"!<arch>\n", Known("an ar archive", "")),
    (0, b"\xed\xab\xee\xdb", Known("an RPM package", "")),
    (0, b"\x7fELF", Known("an ELF program", "")),
    (0, b"\xcf\xfa\xed\xfe", Known("a Mach-O program", "")),
    (0, b"\xca\xfe\xba\xbe", Known("a Mach-O program or Java class", "")),
    (0x202, b"HdrS", Known("a Linux kernel", "")),
    (0, b"%PDF-", Known("a PDF document", "")),
    (0, b"\x89PNG\r\n", Known("a PNG picture", "")),
    (0, b"\xff\xd8\xff", Known("a JPEG picture", "")),
    (0, b"SQLite format 3\x00", Known("an SQLite database", "")),
)
_TAIL_SIGNATURES = (
    (b"conectix", Known("a VHD image of fixed size", _convert("vpc"))),
    (b"koly", Known("an Apple disk image", _convert("dmg"))),
)
# Names of oslo.utils -> ours, for what the table above does not know.
_INSPECTED = {
    "vmdk": Known("a VMDK image", _convert("vmdk")),
    "vhd": Known("a VHD image", _convert("vpc")),
    "vhdx": Known("a VHDX image", _convert("vhdx")),
    "vdi": Known("a VDI image", _convert("vdi")),
    "qed": Known("a QED image", _convert("qed")),
    "luks": Known("a LUKS-encrypted disk", "decrypt it first"),
}
OTHER_DISC = Known("a disc image of UDF, not ISO 9660", "take one that is ISO 9660 too, as installation media are")

_FAILED_DOWNLOAD = "see what it says: it may be a download that failed"
# Where volume descriptors stand; the first of ISO 9660 is the primary one.
_DISC_OFFSETS = (0x8001, 0x8801, 0x9001)
_DISC_MARKS = (b"CD001", b"NSR02", b"NSR03", b"BEA01")
_PRIMARY_DESCRIPTOR = 0x8000
_DISC_LABEL = slice(0x8028, 0x8048)

# Offset, bytes, structure: any one of them makes a raw disk plausible.
_STRUCTURES = (
    (512, b"EFI PART", "GPT"),
    (4096, b"EFI PART", "GPT"),
    (0, b"XFSB", "XFS"),
    (0x10040, b"_BHRfS_M", "btrfs"),
    (0x400, b"\x10\x20\xf5\xf2", "F2FS"),
    (0x400, b"\xe2\xe1\xf5\xe0", "EROFS"),
    (512, b"LABELONE", "LVM"),
    (512, b"\x57\x45\x56\x82", "BSD label"),
    (8192 + 1372, b"\x54\x19\x01\x00", "UFS"),
    (65536 + 1372, b"\x19\x01\x54\x19", "UFS"),
)
_EXT_SUPERBLOCK = 0x400
_MAXIMUM_EXT_BLOCK = 6


def name_other(head: bytes, tail: bytes) -> Known | None:
    """Return what a file with this beginning and these last `TAIL_BYTES` is, where that is no disk image of ours."""
    for offset, magic, known in _SIGNATURES:
        if head.startswith(magic, offset):
            return known
    for magic, known in _TAIL_SIGNATURES:
        if tail.startswith(magic):
            return known
    if _is_program(head):
        return Known("a Windows or EFI program", "")
    return _name_text(head)


def name_inspected(name: str) -> Known:
    """Return how to speak of a format that oslo.utils found."""
    return _INSPECTED.get(name, Known(f"a {name} image", _convert(name)))


def is_iso(head: bytes) -> bool:
    """Return whether the file is a disc of ISO 9660; it may be one of UDF, and a bootable disk, too."""
    return head.startswith(b"\x01CD001\x01", _PRIMARY_DESCRIPTOR)


def is_disc(head: bytes) -> bool:
    """Return whether the file has a volume descriptor of ISO 9660 or UDF."""
    return any(head.startswith(_DISC_MARKS, offset) for offset in _DISC_OFFSETS)


def read_disc_label(head: bytes) -> str:
    """Return what a disc of ISO 9660 calls itself, as it stands there: it comes from whoever made it."""
    return head[_DISC_LABEL].decode("ascii", errors="replace").strip("\0 ")


def find_structure(head: bytes) -> str:
    """Return the first mark of a disk in a raw file, such as a partition table or a file system, or an empty text."""
    for offset, magic, structure in _STRUCTURES:
        if head.startswith(magic, offset):
            return structure
    if _has_ext_superblock(head):
        return "ext"
    return "boot sector" if _has_boot_sector(head) else ""


def _has_ext_superblock(head: bytes) -> bool:
    if not head.startswith(b"\x53\xef", _EXT_SUPERBLOCK + 0x38) or len(head) < _EXT_SUPERBLOCK + 0x50:
        return False
    (block_size,) = struct.unpack_from("<I", head, _EXT_SUPERBLOCK + 0x18)
    (revision,) = struct.unpack_from("<I", head, _EXT_SUPERBLOCK + 0x4C)
    # 64 KiB blocks and the dynamic revision are the highest.
    return bool(block_size <= _MAXIMUM_EXT_BLOCK and revision <= 1)


def _has_boot_sector(head: bytes) -> bool:
    """Return whether the first sector ends in 55 AA and holds boot code or a partition."""
    return head.startswith(b"\x55\xaa", _SECTOR_BYTES - 2) and any(head[: _SECTOR_BYTES - 2])


def _is_program(head: bytes) -> bool:
    if not head.startswith(b"MZ") or len(head) < 64:  # noqa: PLR2004 - the size of an MZ header
        return False
    (offset,) = struct.unpack_from("<I", head, 0x3C)
    return head.startswith(b"PE\x00\x00", offset)


def _name_text(head: bytes) -> Known | None:
    """Return what kind of text the beginning is, or None where it is none."""
    sample = head[: 64 << 10]
    try:
        text = sample.decode()
    except UnicodeDecodeError as error:
        # A character may be cut in two at the end of the sample.
        if error.start < len(sample) - 3:
            return None
        text = sample[: error.start].decode()
    if not text or re.search(r"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f]", text):
        return None
    start = text.lstrip("\ufeff \t\r\n")[:200].lower()
    if start.startswith(("<!doctype html", "<html")):
        return Known("an HTML page", _FAILED_DOWNLOAD)
    if start.startswith("<?xml"):
        return Known("an XML document", _FAILED_DOWNLOAD)
    return Known("a text file", _FAILED_DOWNLOAD)
