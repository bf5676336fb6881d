"""A guest in 512 bytes: says a line on the serial port, echoes what is typed, powers off when the button is pressed.

It boots from a raw disk under SeaBIOS in half a second and takes no time of the host while it waits, so that consoles
and power can be tested against a real QEMU without an operating system.
"""

from __future__ import annotations

SIZE = 1 << 20
_ENTRY = 0x7C00
# PM1_EN, PM1_STS and PM1_CNT of QEMU's q35 are the ports 0x602, 0x600 and 0x604 once SeaBIOS has set it up.
_CODE = bytes.fromhex(
    "fa"  #            cli
    "31c0"  #          xor ax, ax
    "8ed8"  #          mov ds, ax
    "8ed0"  #          mov ss, ax
    "bc007c"  #        mov sp, 0x7c00
    "ba0206"  #        mov dx, PM1_EN
    "b80001"  #        mov ax, power button
    "ef"  #            out dx, ax
    "bafb03"  #        mov dx, line control of COM1
    "b080"  #          mov al, divisor latch
    "ee"  #            out dx, al
    "baf803"  #        mov dx, divisor
    "b001"  #          mov al, 115200 baud
    "ee"  #            out dx, al
    "42"  #            inc dx
    "30c0"  #          xor al, al
    "ee"  #            out dx, al
    "bafb03"  #        mov dx, line control
    "b003"  #          mov al, 8n1
    "ee"  #            out dx, al
    "be6a7c"  # 7c27:  mov si, text
    "ac"  #     7c2a:  lodsb
    "84c0"  #          test al, al
    "7405"  #   7c2d:  jz 7c34
    "e81e00"  #        call 7c50
    "ebf6"  #          jmp 7c2a
    "fb"  #     7c34:  sti
    "f4"  #            hlt, until the next tick
    "ba0006"  # 7c36:  mov dx, PM1_STS
    "ed"  #            in ax, dx
    "f6c401"  #        test ah, power button
    "7522"  #          jnz 7c61
    "bafd03"  #        mov dx, line status
    "ec"  #            in al, dx
    "a801"  #          test al, data ready
    "74ed"  #          jz 7c34
    "baf803"  #        mov dx, data
    "ec"  #            in al, dx
    "e80200"  #        call 7c50
    "ebe6"  #          jmp 7c36
    "88c3"  #   7c50:  mov bl, al
    "bafd03"  # 7c52:  mov dx, line status
    "ec"  #            in al, dx
    "a820"  #          test al, transmitter empty
    "74f8"  #          jz 7c52
    "88d8"  #          mov al, bl
    "baf803"  #        mov dx, data
    "ee"  #            out dx, al
    "c3"  #            ret
    "ba0406"  # 7c61:  mov dx, PM1_CNT
    "b80020"  #        mov ax, sleep
    "ef"  #            out dx, ax
    "ebca"  #          jmp 7c34
)  # 7c6a: text
_JUMP_AFTER_TEXT = 0x7C2D - _ENTRY
_BACK_TO_TEXT = bytes.fromhex("74f8")  # jz 7c27
_SIGNATURE = b"\x55\xaa"


def make_disk(text: bytes = b"KC test guest is up\r\n", *, repeat: bool = False) -> bytes:
    """Return a raw disk whose guest says `text` once, or for ever (and then hears nothing)."""
    code = bytearray(_CODE)
    if repeat:
        code[_JUMP_AFTER_TEXT : _JUMP_AFTER_TEXT + 2] = _BACK_TO_TEXT
    sector = (bytes(code) + text + b"\0").ljust(510, b"\0") + _SIGNATURE
    assert len(sector) == 512
    return sector.ljust(SIZE, b"\0")
