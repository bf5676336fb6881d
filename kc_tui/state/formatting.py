"""Figures as people read them: sizes, times, shares, sparklines and bars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, TypeGuard

from kc_tui.state.glyphs import UNICODE, Glyphs

KIB: Final = 1024
MIB: Final = KIB * 1024
GIB: Final = MIB * 1024
TIB: Final = GIB * 1024

_SIZE_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_WEEK: Final = 7 * _DAY
_SHORT: Final = 10
_NOW_SECONDS: Final = 2


def _is_figure(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def format_number(value: float) -> str:
    """Return a figure with one decimal below ten, unless it is whole, and with none above."""
    rounded = round(value, 1)
    return f"{rounded:.1f}" if rounded < _SHORT and rounded != int(rounded) else f"{value:.0f}"


def format_bytes(count: float | None, glyphs: Glyphs = UNICODE) -> str:
    """Return a size in bytes as `1.5 GiB`, `20 MiB`, `0 B`; a dash where it is unknown or no size at all."""
    if not _is_figure(count) or count < 0:
        return glyphs.dash
    power = 0
    # 1023.5 would round to "1024 MiB": it belongs to the next unit.
    while count >= KIB - 0.5 and power < len(_SIZE_UNITS) - 1:
        count /= KIB
        power += 1
    return f"{format_number(count)} {_SIZE_UNITS[power]}" if power else f"{count:.0f} B"


def format_mebibytes(count: float | None, glyphs: Glyphs = UNICODE) -> str:
    """Return a size in MiB as `512 MiB` or `2 GiB`."""
    return glyphs.dash if count is None else format_bytes(count * MIB, glyphs)


def format_memory(used_bytes: float | None, total_bytes: float | None, glyphs: Glyphs = UNICODE) -> str:
    """Return what is used of a memory as `1.2/2.0 G`, both in the unit of the total, which is M, G or T."""
    if not _is_figure(total_bytes) or total_bytes <= 0:
        return glyphs.dash
    divisor, unit, digits = MIB, "M", 0
    if total_bytes >= TIB:
        divisor, unit, digits = TIB, "T", 1
    elif total_bytes >= GIB // 2:
        divisor, unit, digits = GIB, "G", 1
    used = f"{max(0.0, used_bytes) / divisor:.{digits}f}" if _is_figure(used_bytes) else glyphs.dash
    total = total_bytes / divisor
    return f"{used}/{total:.{digits if total < KIB // _SHORT else 0}f} {unit}"


def format_percent(fraction: float | None, glyphs: Glyphs = UNICODE) -> str:
    """Return a share (1.0 is all) as `12 %`; more than all is shown as it is, a negative or unknown one as a dash."""
    if not _is_figure(fraction) or fraction < 0:
        return glyphs.dash
    return f"{fraction * 100:.0f} %"


def format_duration(seconds: float | None, glyphs: Glyphs = UNICODE) -> str:
    """Return how long something took in at most two units: `0.4 s`, `12 s`, `3 m 05 s`, `2 h 14 m`, `5 d 03 h`."""
    if not _is_figure(seconds) or seconds < 0:
        return glyphs.dash
    if seconds < _MINUTE - 0.5:
        return f"{seconds:.1f} s" if round(seconds, 1) < _SHORT else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE} m {whole % _MINUTE:02d} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02d} m"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR:02d} h"


def format_age(seconds: float | None, glyphs: Glyphs = UNICODE) -> str:
    """Return how long ago something was in one unit: `now`, `12 s`, `4 m`, `2 h`, `3 d`, `9 w`."""
    if not _is_figure(seconds):
        return glyphs.dash
    # Clocks of two machines differ a little: what lies just ahead is now.
    if seconds < _NOW_SECONDS:
        return "now"
    for size, unit in ((_WEEK, "w"), (_DAY, "d"), (_HOUR, "h"), (_MINUTE, "m")):
        # A week reads better as days until there are two of them.
        if seconds >= size * (2 if unit == "w" else 1):
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


def pluralise(count: int, singular: str, plural: str = "") -> str:
    """Return `1 VM`, `14 VMs`, `10,000 VMs`; `plural` where it is not the singular with an s."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"


def join_words(words: Sequence[str], limit: int = 5) -> str:
    """Return `a, b and c`; beyond `limit` words the rest is counted: `a, b and 12 more`."""
    if len(words) > limit:
        kept = limit - 1
        return f"{', '.join(words[:kept])} and {len(words) - kept:,} more"
    return " and ".join(part for part in (", ".join(words[:-1]), words[-1]) if part) if words else ""


def draw_sparkline(values: Sequence[float | None], width: int, glyphs: Glyphs = UNICODE) -> str:
    """Draw the last `width` shares (0 to 1) as bars of rising height; blanks stand for what is not known."""
    levels = glyphs.sparkline
    top = len(levels) - 1
    drawn = (levels[round(min(1.0, max(0.0, value)) * top)] if _is_figure(value) else " " for value in values[-width:])
    return "".join(drawn).rjust(width) if width > 0 else ""


def draw_bar(fraction: float, width: int, glyphs: Glyphs = UNICODE) -> str:
    """Draw a progress bar of `width` cells; it is full only when all is done, and empty only before the first step."""
    share = min(1.0, max(0.0, fraction)) if _is_figure(fraction) else 0.0
    full = round(share * width)
    if width > 1:
        full = min(full, width - 1) if share < 1 else width
        full = max(full, 1) if share > 0 else 0
    return glyphs.bar_full * full + glyphs.bar_empty * (width - full)
