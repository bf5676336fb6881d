"""From the guest's text to calls on the screen: a bounded state machine with a fast path for plain text."""

from __future__ import annotations

import re
from collections.abc import Callable

from kc_tui.terminal.screen import Screen

_STRING_LIMIT = 1 << 20
"""Characters of an unfinished OSC, DCS, SOS, PM or APC string after which the text is taken for text again."""

_SEQUENCE_LIMIT = 255
_PARAMETER_LIMIT = 9999

_GROUND = re.compile(
    r"([^\x00-\x1f\x7f-\x9f]+)"  # 1: text
    r"|(\r{1,2}\n)"  # 2: the end of a line as a serial port sends it
    r"|(?:\x1b\[|\x9b)([0-9;:]{0,255})([@-~])"  # 3, 4: a control sequence that is all here
    r"|([\x00-\x1a\x1c-\x1f\x7f-\x8f\x91-\x97\x99\x9a\x9c])"  # 5: a control character
)
_TEXT, _NEWLINE, _SEQUENCE, _CONTROL = 1, 2, 4, 5
_SEQUENCE_BODY = re.compile(r"[ -?]*")
_SEQUENCE_PARTS = re.compile(r"([<-?]?)([0-9;:]*)([ -/]*)")
_STRING_END = re.compile(r"[\x07\x18\x1a\x1b\x9c]")
_STRING_STARTS = {"]": "\x9d", "P": "\x90", "X": "\x98", "^": "\x9e", "_": "\x9f"}
_CANCEL = "\x18\x1a"

_Step = Callable[[str, int], int]
"""Consume text from a position; return the position behind."""


class Parser:
    """Reads text in pieces of any size and calls the screen; what it does not know, it swallows."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._step: _Step = self._read_ground
        self._collected = ""
        self._string_length = 0
        self._ends_with_bell = False
        self._controls: dict[str, Callable[[], None]] = {
            "\b": screen.backspace,
            "\t": screen.tab,
            "\n": screen.linefeed,
            "\v": screen.linefeed,
            "\f": screen.linefeed,
            "\r": screen.carriage_return,
            "\x0e": screen.shift_out,
            "\x0f": screen.shift_in,
            "\x84": screen.index,
            "\x85": screen.next_line,
            "\x88": screen.set_tab_stop,
            "\x8d": screen.reverse_index,
        }
        self._escapes: dict[str, Callable[[], None]] = {
            "7": screen.save_cursor,
            "8": screen.restore_cursor,
            "D": screen.index,
            "E": screen.next_line,
            "H": screen.set_tab_stop,
            "M": screen.reverse_index,
            "Z": screen.report_device_attributes,
            "c": screen.reset,
        }
        # Sequences with at most one parameter, and with two; a missing or zero parameter has the method's default.
        self._with_one: dict[str, Callable[[int], None]] = {
            "@": screen.insert_characters,
            "A": screen.cursor_up,
            "B": screen.cursor_down,
            "C": screen.cursor_forward,
            "D": screen.cursor_back,
            "E": screen.cursor_down1,
            "F": screen.cursor_up1,
            "G": screen.cursor_to_column,
            "J": screen.erase_in_display,
            "K": screen.erase_in_line,
            "L": screen.insert_lines,
            "M": screen.delete_lines,
            "P": screen.delete_characters,
            "S": screen.scroll_up,
            "T": screen.scroll_down,
            "X": screen.erase_characters,
            "Z": screen.back_tab,
            "`": screen.cursor_to_column,
            "a": screen.cursor_forward,
            "b": screen.repeat,
            "c": screen.report_device_attributes,
            "d": screen.cursor_to_line,
            "e": screen.cursor_down,
            "g": screen.clear_tab_stop,
            "n": screen.report_device_status,
            "s": lambda _: screen.save_cursor(),
            "u": lambda _: screen.restore_cursor(),
        }
        self._with_two: dict[str, Callable[[int, int], None]] = {
            "H": screen.cursor_position,
            "f": screen.cursor_position,
            "r": screen.set_margins,
        }

    def feed(self, text: str) -> None:
        """Take the next piece of the guest's text."""
        position, length = 0, len(text)
        while position < length:
            position = self._step(text, position)

    def _read_ground(self, text: str, position: int) -> int:
        """Read text, control characters and whole sequences; leave the rarer shapes to the other steps."""
        screen, match = self._screen, _GROUND.match
        while found := match(text, position):
            position = found.end()
            kind = found.lastindex
            if kind == _TEXT:
                screen.draw(found[_TEXT])
            elif kind == _NEWLINE:
                screen.cursor.x = 0
                screen.index()
            elif kind == _SEQUENCE:
                self._run_sequence(found[3], found[4])
            elif control := self._controls.get(found[_CONTROL]):
                control()
        if position < len(text):
            self._collected = ""
            self._enter(text[position])
            position += 1
        return position

    def _enter(self, introducer: str) -> None:
        """Choose the step for what ESC or an introducer from C1 begins."""
        if introducer == "\x1b":
            self._step = self._read_escape
        elif introducer == "\x9b":
            self._step = self._read_sequence
        else:
            self._string_length = 0
            self._ends_with_bell = introducer == "\x9d"
            self._step = self._read_string

    def _read_escape(self, text: str, position: int) -> int:
        """Read what follows ESC: the introducer of something longer, or intermediates and a final character."""
        character = text[position]
        if not self._collected and character == "[":
            self._step = self._read_sequence
        elif not self._collected and character in _STRING_STARTS:
            self._enter(_STRING_STARTS[character])
        elif " " <= character <= "/":
            # Two are told from one, and no known sequence has three.
            self._collected = (self._collected + character)[:2]
        elif "0" <= character <= "~":
            self._step = self._read_ground
            self._run_escape(self._collected, character)
        else:
            return self._read_control_inside(character, position)
        return position + 1

    def _read_sequence(self, text: str, position: int) -> int:
        """Read a control sequence that came in pieces, has a private marker, or is interrupted by controls."""
        body = _SEQUENCE_BODY.match(text, position)
        if body and body.end() > position:
            # One more than the limit marks a sequence too long to obey.
            self._collected = (self._collected + body[0][: _SEQUENCE_LIMIT + 1])[: _SEQUENCE_LIMIT + 1]
            return body.end()
        character = text[position]
        if "@" <= character <= "~":
            self._step = self._read_ground
            if len(self._collected) <= _SEQUENCE_LIMIT:
                self._run_marked_sequence(self._collected, character)
            return position + 1
        return self._read_control_inside(character, position)

    def _read_control_inside(self, character: str, position: int) -> int:
        """Obey a control character in the midst of a sequence; what cannot be part of one ends it."""
        if character in _CANCEL:
            self._step = self._read_ground
        elif character == "\x1b":
            self._collected = ""
            self._step = self._read_escape
        elif character >= "\x80":
            self._step = self._read_ground
            return position
        elif control := self._controls.get(character):
            control()
        return position + 1

    def _read_string(self, text: str, position: int) -> int:
        """Swallow a title, a clipboard, a link, a device control string: none of them is the guest's to set."""
        end = _STRING_END.search(text, position)
        stop = end.start() if end else len(text)
        self._string_length += stop - position
        if self._string_length > _STRING_LIMIT:
            self._step = self._read_ground
            return stop
        if not end:
            return stop
        if end[0] == "\x1b":
            # The backslash of ESC \ then passes as an escape sequence that nothing knows.
            self._collected = ""
            self._step = self._read_escape
        elif end[0] != "\a" or self._ends_with_bell:
            self._step = self._read_ground
        return end.end()

    def _run_escape(self, intermediates: str, final: str) -> None:
        if intermediates in {"(", ")"}:
            self._screen.define_charset(final, intermediates)
        elif escape := self._escapes.get(intermediates + final):
            escape()

    def _run_marked_sequence(self, body: str, final: str) -> None:
        """Run a sequence by its private marker, parameters and intermediates."""
        parts = _SEQUENCE_PARTS.fullmatch(body)
        if not parts:
            return
        marker, parameters, intermediates = parts.groups()
        if not marker and not intermediates:
            self._run_sequence(parameters, final)
        elif not marker and intermediates == "!" and final == "p":
            self._screen.soft_reset()
        elif marker == "?" and not intermediates:
            self._run_private(parameters, final)

    def _run_private(self, parameters: str, final: str) -> None:
        numbers = _numbers(parameters)
        if final == "h":
            self._screen.set_mode(*numbers, private=True)
        elif final == "l":
            self._screen.reset_mode(*numbers, private=True)
        elif final in "JK":
            self._with_one[final](numbers[0])

    def _run_sequence(self, parameters: str, final: str) -> None:
        if final == "m":
            self._screen.set_rendition(parameters)
            return
        numbers = _numbers(parameters)
        if one := self._with_one.get(final):
            one(numbers[0])
        elif two := self._with_two.get(final):
            two(*(*numbers, 0)[:2])
        elif final == "h":
            self._screen.set_mode(*numbers)
        elif final == "l":
            self._screen.reset_mode(*numbers)


def _numbers(parameters: str) -> list[int]:
    """Return the parameters as numbers of at most 9999, with 0 for a missing one and for one with subparameters."""
    return [min(int(number), _PARAMETER_LIMIT) if number.isdecimal() else 0 for number in parameters.split(";")]
