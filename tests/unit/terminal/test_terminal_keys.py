"""Keys become what an xterm sends."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual._xterm_parser import XTermParser
from textual.events import Key

from kc_tui.terminal.keys import LEADER, encode_key


def sent(key: str, character: str | None = None, *, application_cursor: bool = False) -> bytes | None:
    return encode_key(key, character, application_cursor=application_cursor)


@pytest.mark.parametrize("letter", string.ascii_lowercase)
def test_ctrl_with_a_letter_is_its_control_character(letter):
    assert sent(f"ctrl+{letter}") == bytes([ord(letter) - 96])


@pytest.mark.parametrize(
    ("key", "data"),
    [
        ("enter", b"\r"),
        ("tab", b"\t"),
        ("shift+tab", b"\x1b[Z"),
        ("escape", b"\x1b"),
        ("backspace", b"\x7f"),
        ("ctrl+backspace", b"\b"),
        ("space", b" "),
        ("ctrl+@", b"\x00"),
        ("ctrl+at", b"\x00"),
        ("ctrl+space", b"\x00"),
        ("ctrl+backslash", b"\x1c"),
        ("ctrl+circumflex_accent", b"\x1e"),
        ("ctrl+underscore", b"\x1f"),
        ("ctrl+left_square_bracket", b"\x1b"),
        ("insert", b"\x1b[2~"),
        ("delete", b"\x1b[3~"),
        ("pageup", b"\x1b[5~"),
        ("pagedown", b"\x1b[6~"),
        ("home", b"\x1b[H"),
        ("end", b"\x1b[F"),
        ("up", b"\x1b[A"),
        ("ctrl+left", b"\x1b[1;5D"),
        ("shift+up", b"\x1b[1;2A"),
        ("alt+delete", b"\x1b[3;3~"),
        ("ctrl+shift+end", b"\x1b[1;6F"),
        ("f1", b"\x1bOP"),
        ("f4", b"\x1bOS"),
        ("f5", b"\x1b[15~"),
        ("f12", b"\x1b[24~"),
        ("ctrl+f1", b"\x1b[1;5P"),
        ("alt+x", b"\x1bx"),
        ("alt+shift+x", b"\x1bX"),
        ("alt+full_stop", b"\x1b."),
        ("alt+ctrl+c", b"\x1b\x03"),
        ("alt+enter", b"\x1b\r"),
    ],
)
def test_keys_without_a_character(key, data):
    assert sent(key) == data


@pytest.mark.parametrize(
    ("key", "letter"), [("up", "A"), ("down", "B"), ("right", "C"), ("left", "D"), ("home", "H"), ("end", "F")]
)
def test_cursor_keys_follow_the_application_mode(key, letter):
    assert sent(key) == f"\x1b[{letter}".encode()
    assert sent(key, application_cursor=True) == f"\x1bO{letter}".encode()
    assert sent(f"ctrl+{key}", application_cursor=True) == f"\x1b[1;5{letter}".encode()


@pytest.mark.parametrize("key", [LEADER, "caps_lock", "media_play", "super+a", "<ignore>", "ctrl+é", "f35"])
def test_what_is_not_the_guests_sends_nothing(key):
    assert sent(key) is None


@given(st.characters(), st.text(max_size=20), st.booleans())
def test_a_printable_character_is_sent_as_it_is_and_no_other_raises(character, key, application_cursor):
    expected = character.encode("utf-8", "replace") if character.isprintable() else None
    assert sent("some_key", character) == expected
    sent(key, character, application_cursor=application_cursor)


CHARACTERS = ["a", "Ä", "€", "~", "|", "\r", "\t", "\x03", "\x1a", "\x00", "\x1c", "\x1f", "\x7f"]
SEQUENCES = ["A", "H", "Z", "3~", "5~", "15~", "24~", "1;5D", "1;2A", "5;5~"]


@pytest.mark.parametrize("typed", [*CHARACTERS, "\x1bOP", *(f"\x1b[{sequence}" for sequence in SEQUENCES)])
def test_what_the_operators_terminal_sends_reaches_the_guest_unchanged(typed):
    events = [event for event in XTermParser().feed(typed) if isinstance(event, Key)]
    assert b"".join(sent(event.key, event.character) or b"" for event in events) == typed.encode()
