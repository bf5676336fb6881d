"""From keys, as Textual names them, to the bytes that an xterm would send to the guest."""

from __future__ import annotations

import string
import unicodedata

LEADER = "ctrl+right_square_bracket"
"""The one key that is never the guest's (ctrl-])."""

_MODIFIERS = {"shift": 1, "alt": 2, "ctrl": 4}
_ALT, _CTRL = _MODIFIERS["alt"], _MODIFIERS["ctrl"]

# Keys that send one character, with the modifiers that change nothing about it.
_CHARACTERS = {"enter": "\r", "tab": "\t", "backspace": "\x7f", "escape": "\x1b", "space": " ", "newline": "\n"}

# The last letter of CSI sequences: ESC [ A, or ESC [ 1 ; MODIFIERS A.
_LETTERS = {"up": "A", "down": "B", "right": "C", "left": "D", "home": "H", "end": "F"}
_FUNCTION_LETTERS = {"f1": "P", "f2": "Q", "f3": "R", "f4": "S"}

# The number of CSI sequences: ESC [ 5 ~, or ESC [ 5 ; MODIFIERS ~.
_NUMBERS = {"insert": 2, "delete": 3, "pageup": 5, "pagedown": 6} | dict(
    zip(
        [f"f{number}" for number in range(5, 21)],
        [15, 17, 18, 19, 20, 21, 23, 24, 25, 26, 28, 29, 31, 32, 33, 34],
        strict=True,
    )
)

# Textual names punctuation by its Unicode name, and some of it by a shorter one.
_NAMED = {
    unicodedata.name(character).lower().replace("-", "_").replace(" ", "_"): character
    for character in string.punctuation
} | {"slash": "/", "backslash": "\\", "at": "@", "minus": "-", "plus": "+", "underscore": "_"}

# What ctrl makes of characters beside the letters, as every terminal has it since the VT100.
_CONTROLS = {
    **{letter: chr(ord(letter) & 0x1F) for letter in string.ascii_lowercase},
    **dict(zip("@[\\]^_", map(chr, [0x00, 0x1B, 0x1C, 0x1D, 0x1E, 0x1F]), strict=True)),
    **dict(zip("2345678", map(chr, [0x00, 0x1B, 0x1C, 0x1D, 0x1E, 0x1F, 0x7F]), strict=True)),
    " ": "\x00",
    "/": "\x1f",
    "?": "\x7f",
}


def encode_key(key: str, character: str | None, *, application_cursor: bool) -> bytes | None:
    """Return what `key` sends, or None when it is the leader or means nothing to a terminal.

    `character` is the printable character of the key, if it has one; `application_cursor` is the guest's mode.
    """
    if key == LEADER:
        return None
    *modifiers, name = key.split("+") if key != "+" else [key]
    if not _MODIFIERS.keys() >= set(modifiers):
        return None
    bits = sum(_MODIFIERS[modifier] for modifier in set(modifiers))
    text = _encode_named(name, bits, application_cursor=application_cursor)
    if text is None:
        text = _encode_character(name, character, bits)
    return None if text is None else text.encode()


def _encode_named(name: str, bits: int, *, application_cursor: bool) -> str | None:
    """Return what a key without a character of its own sends."""
    if name in _CHARACTERS:
        return _encode_special(name, bits)
    if name in _NUMBERS:
        return f"\x1b[{_NUMBERS[name]};{bits + 1}~" if bits else f"\x1b[{_NUMBERS[name]}~"
    letter = _LETTERS.get(name) or _FUNCTION_LETTERS.get(name)
    if letter is None:
        return None
    if bits:
        return f"\x1b[1;{bits + 1}{letter}"
    return f"\x1bO{letter}" if application_cursor or name in _FUNCTION_LETTERS else f"\x1b[{letter}"


def _encode_special(name: str, bits: int) -> str:
    """Return what enter, tab, backspace, escape and space send; alt puts ESC before it."""
    prefix = "\x1b" if bits & _ALT else ""
    if name == "tab" and bits & _MODIFIERS["shift"]:
        return prefix + "\x1b[Z"
    if name == "backspace" and bits & _CTRL:
        return prefix + "\b"
    if name == "space" and bits & _CTRL:
        return prefix + "\x00"
    return prefix + _CHARACTERS[name]


def _encode_character(name: str, character: str | None, bits: int) -> str | None:
    """Return what a character key sends, changed by ctrl and alt."""
    if not bits & (_ALT | _CTRL):
        return character if character and character.isprintable() else None
    plain = name if len(name) == 1 else _NAMED.get(name)
    if plain is None or not plain.isprintable():
        return None
    if bits & _CTRL:
        plain = _CONTROLS.get(plain.lower())
    elif bits & _MODIFIERS["shift"]:
        plain = plain.upper()
    return None if plain is None else ("\x1b" if bits & _ALT else "") + plain
