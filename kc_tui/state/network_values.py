"""Rates and times as people write and read them on a command line."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError

_RATE = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,6}))? ?(?:([kKMG])(i?))?(B|bit)?(?:/s)?")
_POWERS = {"": 0, "k": 1, "K": 1, "M": 2, "G": 3}
_BITS = 8
_DURATION = re.compile(r"([0-9]{1,9})([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_THOUSAND = 1000


def parse_rate(text: str) -> int:
    """Return bytes a second from `10MB` (10⁷), `8MiB`, `100Mbit` or a plain number of bytes; `/s` may follow.

    Raises ArgumentTypeError, as the letter b alone means bits to some and bytes to others.
    """
    match = _RATE.fullmatch(text)
    if match is None or (match[3] and not match[5]):
        msg = f"{text!r} is no rate: write 10MB, 8MiB or 100Mbit, by which a second is meant"
        raise ArgumentTypeError(msg)
    whole, decimals = match[1], match[2] or ""
    unit = (1024 if match[4] else _THOUSAND) ** _POWERS[match[3] or ""]
    scale = 10 ** len(decimals) * (_BITS if match[5] == "bit" else 1)
    rate: int = int(whole + decimals) * unit // scale
    return rate


def format_rate(count: object) -> str:
    """Return bytes a second as `10 MB/s`, or `8 MiB/s` where that is what was written; other values as they are."""
    if not isinstance(count, int):
        return f"{count} B/s"
    for power, prefix in ((3, "G"), (2, "M"), (1, "K")):
        if count and count % 1024**power == 0:
            return f"{count >> 10 * power} {prefix}iB/s"
    for power, prefix in ((3, "G"), (2, "M"), (1, "k")):
        if count >= _THOUSAND**power:
            return f"{count / _THOUSAND**power:.4g} {prefix}B/s"
    return f"{count} B/s"


def parse_duration(text: str) -> int:
    """Return seconds from `3600`, `90s`, `30m`, `1h` or `7d`; raise ArgumentTypeError."""
    match = _DURATION.fullmatch(text)
    if match is None or not int(match[1]):
        msg = f"{text!r} is no time: write seconds, or 30m, 1h or 7d"
        raise ArgumentTypeError(msg)
    return int(match[1]) * _SECONDS[match[2]]


def format_seconds(seconds: object) -> str:
    """Return a time as one writes it: `1h`, `90s`."""
    if not isinstance(seconds, int) or seconds <= 0:
        return str(seconds)
    for unit in ("d", "h", "m"):
        if seconds % _SECONDS[unit] == 0:
            return f"{seconds // _SECONDS[unit]}{unit}"
    return f"{seconds}s"
