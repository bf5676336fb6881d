"""A picture in the terminal: two pixels a cell, one above the other, or shades where there are no colours."""

from __future__ import annotations

from typing import ClassVar, Final

from rich.color import Color as RichColour
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Size
from textual.strip import Strip
from textual.widget import Widget

from kc_tui.state.glyphs import UNICODE, Glyphs
from kc_tui.state.picture import Picture, Pixel, brightness

_UPPER_HALF: Final = "▀"
_BLACK: Final = (0, 0, 0)
_SHADES: Final = " ░▒▓█"
_PLAIN_SHADES: Final = " .:-=+*#%@"


class Thumbnail(Widget):
    """A `Picture`; it is as large as that, and not there without one."""

    ALLOW_SELECT = False
    DEFAULT_CSS: ClassVar[str] = """
    Thumbnail {
        width: auto;
        height: auto;
    }
    """

    def __init__(self, *, glyphs: Glyphs = UNICODE) -> None:
        super().__init__()
        self._glyphs = glyphs
        self._picture: Picture | None = None
        self.display = False

    @property
    def picture(self) -> Picture | None:
        """What is shown."""
        return self._picture

    def show(self, picture: Picture | None) -> None:
        """Show another picture; nothing is drawn where it is the same."""
        before = self._picture
        if picture == before:
            return
        self._picture = picture
        self.display = picture is not None
        self.refresh(layout=before is None or picture is None or _measure(before) != _measure(picture))

    def get_content_width(self, container: Size, viewport: Size) -> int:
        """Return the picture's width."""
        del container, viewport
        return 0 if self._picture is None else self._picture.width

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Return how many lines the picture takes."""
        del container, viewport, width
        return 0 if self._picture is None else _measure(self._picture)[1]

    def render_line(self, y: int) -> Strip:
        """Draw two lines of pixels."""
        picture = self._picture
        if picture is None or 2 * y >= len(picture.lines):
            return Strip.blank(self.size.width)
        upper = picture.lines[2 * y]
        lower = picture.lines[2 * y + 1] if 2 * y + 1 < len(picture.lines) else (_BLACK,) * picture.width
        # The terminal's own sixteen colours are not those of a picture; neither are a plain terminal's signs.
        is_colored = not self._glyphs.is_ascii and self.background_colors[1].ansi is None
        return (
            _draw_colors(upper, lower)
            if is_colored
            else _draw_shades(upper, lower, _PLAIN_SHADES if self._glyphs.is_ascii else _SHADES)
        )


def _measure(picture: Picture) -> tuple[int, int]:
    return picture.width, (len(picture.lines) + 1) // 2


def _draw_colors(upper: tuple[Pixel, ...], lower: tuple[Pixel, ...]) -> Strip:
    """Return half blocks; cells of the same two colours are one piece, for fewer bytes."""
    segments: list[Segment] = []
    pairs = list(zip(upper, lower, strict=True))
    start = 0
    for at in range(1, len(pairs) + 1):
        if at == len(pairs) or pairs[at] != pairs[start]:
            above, below = pairs[start]
            style = Style(color=RichColour.from_rgb(*above), bgcolor=RichColour.from_rgb(*below))
            segments.append(Segment(_UPPER_HALF * (at - start), style))
            start = at
    return Strip(segments, len(pairs))


def _draw_shades(upper: tuple[Pixel, ...], lower: tuple[Pixel, ...], shades: str) -> Strip:
    top = len(shades) - 1
    signs = [
        shades[round((brightness(above) + brightness(below)) / 2 * top)]
        for above, below in zip(upper, lower, strict=True)
    ]
    return Strip([Segment("".join(signs))], len(signs))
