"""The two lines at the top of every screen: where one is, how many VMs there are, whether what is shown is live."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from kc_tui.state.formatting import pluralise
from kc_tui.state.glyphs import Glyphs
from kc_tui.state.roles import Role
from kc_tui.state.table import Run, fit, measure


class Section(NamedTuple):
    """One section: its id, the key that shows it, and its title."""

    id: str
    key: str
    title: str


SECTIONS: Final = (
    Section("vms", "1", "VMs"),
    Section("images", "2", "Images"),
    Section("networks", "3", "Networks"),
    Section("types", "4", "Types"),
    Section("activity", "6", "Activity"),
    Section("trash", "0", "Trash"),
)


@dataclass(frozen=True, slots=True)
class Masthead:
    """What the lines say; `link` is `connecting`, `live` or `stale`, `since` when it became stale (Unix seconds).

    `total` is None until the VMs are known; `attention` counts those that need a person. With `is_filtered` there may
    be more than whoever looks is allowed to see.
    """

    host: str = ""
    section: str = "vms"
    total: int | None = None
    running: int = 0
    changing: int = 0
    attention: int = 0
    link: str = "connecting"
    since: float = 0.0
    is_filtered: bool = False


def draw_summary(masthead: Masthead, width: int, glyphs: Glyphs) -> tuple[Run, ...]:
    """Return the first line: the host at the left, counts and link at the right; the counts give way first."""
    left = [Run(" KC", Role.ACCENT), Run(f" {glyphs.dot} ", Role.MUTED), Run(masthead.host, Role.STRONG)]
    counts = _draw_counts(masthead)
    link = [*_draw_link(masthead, glyphs), Run(" ")]
    while counts and measure((*left, *counts, *link)) + 4 > width:
        counts = counts[:-2]
    gap = width - measure((*left, *counts, *link))
    if gap < 1:
        room = max(0, width - measure((*left[:2], *link)) - 1)
        left = [*left[:2], Run(fit(masthead.host, room, glyphs=glyphs), Role.STRONG)]
        gap = 1
    return (*left, Run(" " * max(1, gap - (3 if counts else 0))), *counts, Run("   " if counts else ""), *link)


def _draw_counts(masthead: Masthead) -> list[Run]:
    if masthead.total is None:
        return []
    runs = [Run(""), Run(pluralise(masthead.total, "VM") + (" you may see" if masthead.is_filtered else ""))]
    for count, word, role in (
        (masthead.running, "running", Role.OK),
        (masthead.changing, "changing", Role.ACCENT),
        (masthead.attention, "need you", Role.WARN),
    ):
        if count:
            runs += [Run(f"  {count:,}", role), Run(f" {word}", Role.MUTED)]
    return runs


def _draw_link(masthead: Masthead, glyphs: Glyphs) -> list[Run]:
    if masthead.link == "live":
        return [Run(f"{glyphs.live} ", Role.OK), Run("live", Role.MUTED)]
    if masthead.link == "stale":
        at = time.strftime("%H:%M", time.localtime(masthead.since))
        return [Run(f"{glyphs.stale} stale since {at}", Role.WARN)]
    return [Run(f"{glyphs.changing} connecting", Role.MUTED)]


class Tab(NamedTuple):
    """A section's place in the second line."""

    section: Section
    start: int
    end: int


def place_sections(sections: Sequence[Section] = SECTIONS) -> tuple[Tab, ...]:
    """Return where each section stands in the second line."""
    at, tabs = 1, []
    for section in sections:
        end = at + len(section.key) + 1 + len(section.title)
        tabs.append(Tab(section, at, end))
        at = end + 2
    return tuple(tabs)


def draw_sections(masthead: Masthead, width: int) -> tuple[Run, ...]:
    """Return the second line: the sections, the one that is shown in the accent, and the key for help."""
    runs: list[Run] = []
    at = 0
    for tab in place_sections():
        if tab.end > width:
            break
        runs.append(Run(" " * (tab.start - at)))
        is_here = tab.section.id == masthead.section
        runs.append(Run(f"{tab.section.key} ", Role.ACCENT if is_here else Role.MUTED))
        runs.append(Run(tab.section.title, Role.STRONG if is_here else Role.MUTED))
        at = tab.end
    hint = (Run("?", Role.ACCENT), Run(" help ", Role.MUTED))
    gap = width - at - measure(hint)
    return (*runs, Run(" " * gap), *hint) if gap > 0 else tuple(runs)
