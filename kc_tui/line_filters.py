"""What every line passes on its way to the terminal: the second wall against control characters, and plain ASCII."""

from __future__ import annotations

import re
from typing import Final

from rich.cells import cell_len
from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

from kc_tui.state.glyphs import ASCII, UNICODE

# Controls, separators, directions of writing, tags, surrogates: what `backend.text` has taken out of data before.
_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_DRAWN: Final = {
    "│┃║╎┆┊▏▕▎▍▊▋▉": "|",
    "─━═╌┄┈▔": "-",
    "▁": "_",
    "┌┐└┘├┤┬┴┼╭╮╰╯╔╗╚╝╠╣╦╩╬┏┓┗┛┣┫┳┻╋╒╕╘╛╞╡╤╧╪╓╖╙╜╟╢╥╨╫": "+",
    "█▇▆▅▄▓▀▐▌": "#",
    "▂▃▒░": ".",
    "•·": "-",
    "–—": "-",
    "…": "~",
    "×": "x",
    "←": "<",
    "→": ">",
    "↑": "^",
    "↓": "v",
    "“”": '"',
    "‘’": "'",
    "\xa0": " ",
}
_SIGNS: Final = {
    getattr(UNICODE, name): getattr(ASCII, name)
    for name in UNICODE.__dataclass_fields__
    if name not in ("sparkline", "is_ascii")
}
_TO_ASCII: Final = str.maketrans(
    {sign: plain for signs, plain in _DRAWN.items() for sign in signs}
    | dict(zip(UNICODE.sparkline, ASCII.sparkline, strict=True))
    | _SIGNS
)


class SafeText(LineFilter):
    """Replace what a terminal could take for a command; a character that has no width is left out."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:  # noqa: ARG002 - Textual's signature
        """Return the segments with printable text only."""
        return [
            segment if segment.text.isprintable() else Segment(_UNSAFE.sub(_replace, segment.text), segment.style)
            for segment in segments
        ]


def _replace(match: re.Match[str]) -> str:
    return "?" if cell_len(match[0]) else ""


class PlainAscii(LineFilter):
    """Draw with ASCII alone: lines, blocks and KC's signs by their likes, all else by question marks of its width."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:  # noqa: ARG002 - Textual's signature
        """Return the segments in ASCII."""
        return [
            segment if segment.text.isascii() else Segment(_make_ascii(segment.text), segment.style)
            for segment in segments
        ]


def _make_ascii(text: str) -> str:
    translated = text.translate(_TO_ASCII)
    if translated.isascii():
        return translated
    return "".join(sign if sign.isascii() else "?" * cell_len(sign) for sign in translated)
