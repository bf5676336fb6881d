"""What an app shows, as SVG that looks the same in every viewer and in every run.

Rich's own export leaves the width of blanks to the viewer, names a font on the web, and numbers its classes at random.
Here every run of text stands at its own place, and lines and blocks are drawn as shapes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Final
from xml.sax.saxutils import escape

from rich.cells import cell_len
from rich.color import Color
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from textual.app import App

CELL: Final = 9.0
LINE: Final = 20.0
PADDING: Final = 14.0
FONT: Final = "'DejaVu Sans Mono','Menlo','Consolas','Liberation Mono',monospace"
TERMINAL: Final = TerminalTheme(
    (12, 14, 20),
    (214, 217, 224),
    [(30, 33, 40), (224, 108, 117), (120, 190, 140), (224, 175, 104), (97, 150, 220), (180, 130, 200), (86, 182, 194),
     (200, 204, 212)],
    [(92, 99, 112), (240, 130, 138), (150, 210, 165), (240, 200, 130), (130, 175, 240), (200, 155, 220),
     (120, 205, 215), (235, 238, 245)],
)  # fmt: skip
# Shapes as shares of a cell: x, y, width, height.
_LEVELS: Final = {sign: (0.0, 1 - (index + 1) / 8, 1.0, (index + 1) / 8) for index, sign in enumerate("▁▂▃▄▅▆▇█")}
_SHAPES: Final = _LEVELS | {
    "▀": (0.0, 0.0, 1.0, 0.5),
    "─": (0.0, 0.475, 1.0, 0.05),
    "│": (0.45, 0.0, 0.1, 1.0),
    "▌": (0.0, 0.0, 0.5, 1.0),
    "▏": (0.0, 0.0, 0.125, 1.0),
    "▎": (0.0, 0.0, 0.25, 1.0),
    "▔": (0.0, 0.0, 1.0, 0.125),
    "░": (0.0, 0.0, 1.0, 1.0),
}


def _lines(app: App[object]) -> list[list[Segment]]:
    width, height = app.size
    console = Console(
        width=width, height=height, file=io.StringIO(), force_terminal=True, color_system="truecolor", record=True,
        legacy_windows=False, safe_box=False,
    )  # fmt: skip
    console.print(
        app.screen._compositor.render_update(full=True, screen_stack=app._background_screens, simplify=True)
    )  # fmt: skip
    segments = Segment.filter_control(console._record_buffer)
    return list(Segment.split_and_crop_lines(segments, length=width, include_new_lines=False))[:height]


def _hex(color: Color | None, *, is_ground: bool) -> str:
    if color is None or color.is_default:
        red, green, blue = TERMINAL.background_color if is_ground else TERMINAL.foreground_color
    else:
        red, green, blue = color.get_truecolor(TERMINAL, foreground=not is_ground)
    return f"#{red:02x}{green:02x}{blue:02x}"


def _colors(style: Style | None) -> tuple[str, str]:
    style = style or Style()
    text, ground = _hex(style.color, is_ground=False), _hex(style.bgcolor, is_ground=True)
    if style.reverse:
        text, ground = ground, text
    return text, ground


def _cells(text: str) -> Iterator[tuple[int, str]]:
    """Yield pieces of plain text with the cell where each begins; blanks are left out, shapes stand alone."""
    at, start, piece = 0, 0, ""
    for sign in text:
        width = cell_len(sign)
        if sign in _SHAPES or sign.isspace() or width != 1:
            if piece:
                yield start, piece
            piece = ""
            if not sign.isspace():
                yield at, sign
        else:
            start = start if piece else at
            piece += sign
        at += width
    if piece:
        yield start, piece


def _draw_piece(piece: str, x: float, y: float, color: str, style: Style) -> str:
    shape = _SHAPES.get(piece)
    if shape is not None:
        left, top, width, height = shape
        shade = ' opacity="0.25"' if piece == "░" else ""
        return (
            f'<rect x="{x + left * CELL:.2f}" y="{y + top * LINE:.2f}" width="{width * CELL:.2f}" '
            f'height="{height * LINE:.2f}" fill="{color}"{shade}/>'
        )
    looks = "".join(
        (
            ' font-weight="bold"' if style.bold else "",
            ' font-style="italic"' if style.italic else "",
            ' text-decoration="underline"' if style.underline else "",
            ' opacity="0.6"' if style.dim else "",
        )
    )
    length = cell_len(piece) * CELL
    return (
        f'<text x="{x:.2f}" y="{y + LINE * 0.74:.2f}" textLength="{length:.2f}" fill="{color}"{looks}>'
        f"{escape(piece)}</text>"
    )


def draw_svg(app: App[object]) -> str:
    """Return what the app shows as SVG."""
    columns, rows = app.size
    width, height = columns * CELL + 2 * PADDING, rows * LINE + 2 * PADDING
    lines = _lines(app)
    ground = _colors(lines[0][0].style)[1] if lines and lines[0] else "#000000"
    size = f'width="{width:.0f}" height="{height:.0f}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" {size}>',
        f'<rect {size} rx="8" fill="{ground}"/>',
        f'<g font-family="{FONT}" font-size="15" xml:space="preserve">',
    ]
    for row, segments in enumerate(lines):
        y, at = PADDING + row * LINE, 0
        for segment in segments:
            color, behind = _colors(segment.style)
            x, length = PADDING + at * CELL, cell_len(segment.text)
            if behind != ground:
                parts.append(
                    f'<rect x="{x:.2f}" y="{y:.2f}" width="{length * CELL:.2f}" height="{LINE:.0f}" fill="{behind}"/>'
                )
            style = segment.style or Style()
            parts += [_draw_piece(piece, x + cell * CELL, y, color, style) for cell, piece in _cells(segment.text)]
            at += length
    return "\n".join([*parts, "</g>", "</svg>", ""])


def read_text(app: App[object]) -> str:
    """Return what the app shows as plain lines."""
    return "\n".join("".join(segment.text for segment in line).rstrip() for line in _lines(app))
