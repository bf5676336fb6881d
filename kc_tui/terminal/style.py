"""How a cell looks, and the SGR sequences that change it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

Colour = int | tuple[int, int, int] | None
"""One of the 256 palette colours, a red-green-blue triple of 0…255, or None for the terminal's own."""


@dataclass(frozen=True, slots=True)
class Style:
    """The colours and attributes of a cell."""

    fg: Colour = None
    bg: Colour = None
    bold: bool = False
    dim: bool = False
    italics: bool = False
    underline: bool = False
    strikethrough: bool = False
    reverse: bool = False


Run = tuple[str, Style]
"""Neighbouring characters of one style; the text holds printable characters and spaces only."""

Row = tuple[Run, ...]
"""A line of the terminal from its left edge; blanks at its right end are left out."""

DEFAULT_STYLE = Style()


@lru_cache(maxsize=4096)
def intern(style: Style) -> Style:
    """Return the one object that stands for all styles equal to `style`, so that `is` tells whether two differ."""
    return style


intern(DEFAULT_STYLE)

_ATTRIBUTES: dict[int, dict[str, bool]] = {
    1: {"bold": True},
    2: {"dim": True},
    3: {"italics": True},
    4: {"underline": True},
    7: {"reverse": True},
    9: {"strikethrough": True},
    21: {"underline": True},
    22: {"bold": False, "dim": False},
    23: {"italics": False},
    24: {"underline": False},
    27: {"reverse": False},
    29: {"strikethrough": False},
}
_NORMAL_COLOURS, _BRIGHT_COLOURS = range(8), range(8, 16)
_FOREGROUND: dict[int, Colour] = {
    **{30 + colour: colour for colour in _NORMAL_COLOURS},
    **{82 + colour: colour for colour in _BRIGHT_COLOURS},
    39: None,
}
_BACKGROUND: dict[int, Colour] = {code + 10: colour for code, colour in _FOREGROUND.items()}
_UNDERLINE = 4
_EXTENDED_FOREGROUND, _EXTENDED_BACKGROUND, _EXTENDED_UNDERLINE = 38, 48, 58
_INDEXED, _DIRECT = 5, 2
_CHANNEL_LIMIT = 256


@lru_cache(maxsize=2048)
def apply_sgr(style: Style, parameters: str) -> Style:
    """Return `style` changed by the parameters of an SGR sequence; what is unknown or malformed changes nothing.

    `parameters` holds ASCII digits, semicolons and colons only.
    """
    for code, *values in _attributes(parameters):
        if code == 0:
            style = DEFAULT_STYLE
        elif code == _UNDERLINE and values:
            style = replace(style, underline=values[0] != 0)
        elif code in _ATTRIBUTES:
            style = replace(style, **_ATTRIBUTES[code])
        elif code in _FOREGROUND:
            style = replace(style, fg=_FOREGROUND[code])
        elif code in _BACKGROUND:
            style = replace(style, bg=_BACKGROUND[code])
        elif code == _EXTENDED_FOREGROUND:
            style = replace(style, fg=_extended_colour(values, style.fg))
        elif code == _EXTENDED_BACKGROUND:
            style = replace(style, bg=_extended_colour(values, style.bg))
    return intern(style)


def _attributes(parameters: str) -> Iterator[list[int]]:
    """Yield each attribute as its code and, for an extended colour in either notation, the colour's numbers."""
    parts = deque(parameters.split(";"))
    while parts:
        numbers = [int(number or 0) for number in parts.popleft().split(":")]
        if len(numbers) == 1 and numbers[0] in (_EXTENDED_FOREGROUND, _EXTENDED_BACKGROUND, _EXTENDED_UNDERLINE):
            # The older notation, 38;5;N, spreads a colour over parameters of its own.
            mode = int(parts.popleft() or 0) if parts and ":" not in parts[0] else 0
            wanted = {_INDEXED: 1, _DIRECT: 3}.get(mode, 0)
            numbers.append(mode)
            while wanted and parts and ":" not in parts[0]:
                numbers.append(int(parts.popleft() or 0))
                wanted -= 1
        yield numbers


def _extended_colour(values: list[int], fallback: Colour) -> Colour:
    """Return the colour of `[5, N]`, `[2, R, G, B]` or `[2, SPACE, R, G, B]`; `fallback` when it is none of these."""
    match values:
        case [5, index, *_] if index < _CHANNEL_LIMIT:
            return index
        case [2, red, green, blue] | [2, _, red, green, blue, *_] if max(red, green, blue) < _CHANNEL_LIMIT:
            return (red, green, blue)
    return fallback
