"""A guest in 512 bytes that counts on its disk as fast as it can, first in one place and then in another.

So a disk as it was at one moment has the same number in both places, or the first is one ahead.
"""

from __future__ import annotations

from support.boot_sector import SIZE

FIRST = 1 << 20
SECOND = 2 << 20
DISK_BYTES = 8 << 20
_CODE = bytes.fromhex(
    "31c0"  #          xor ax, ax
    "8ed8"  #          mov ds, ax
    "8ed0"  #          mov ss, ax
    "bc007c"  #        mov sp, 0x7c00
    "fb"  #            sti
    "66ff060080"  # 7c0a: inc dword [0x8000]
    "c706367c0008"  #  mov word [7c36], sector of the first place
    "e80b00"  #        call 7c23
    "c706367c0010"  #  mov word [7c36], sector of the second place
    "e80200"  #        call 7c23
    "ebe7"  #          jmp 7c0a
    "be2e7c"  # 7c23:  mov si, 7c2e
    "b80043"  #        mov ax, write
    "b280"  #          mov dl, first disk
    "cd13"  #          int disk
    "c3"  #            ret
    "1000010000800000"  # 7c2e: one sector from 0x8000
    "0000000000000000"  # 7c36: where to
)


def make_writer() -> bytes:
    """Return a raw disk whose guest counts; the disk that it gets must have `DISK_BYTES`."""
    return (_CODE.ljust(510, b"\0") + b"\x55\xaa").ljust(SIZE, b"\0")


def read_counts(disk: bytes) -> tuple[int, int]:
    """Return the numbers in both places of a disk."""
    first, second = (int.from_bytes(disk[place : place + 4], "little") for place in (FIRST, SECOND))
    return first, second
