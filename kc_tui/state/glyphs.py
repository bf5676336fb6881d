"""The signs that KC draws, in a Unicode and an ASCII set, and the choice between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

# In these languages a terminal may draw the ambiguous-width signs two cells wide, which breaks every column.
_WIDE_LANGUAGES: Final = ("zh", "ja", "ko")
_PLAIN_TERMINALS: Final = ("linux", "dumb", "vt100", "vt102", "vt220", "ansi", "cons25")


@dataclass(frozen=True, slots=True)
class Glyphs:
    """One set of signs; each is one cell wide, `sparkline` rises from left to right."""

    running: str = "●"
    changing: str = "◐"
    stopped: str = "○"
    paused: str = "◌"
    attention: str = "▲"
    failed: str = "✕"
    foreign: str = "◇"
    restart: str = "↻"
    live: str = "●"
    stale: str = "?"
    mark: str = "✓"
    cursor: str = "▌"
    branch: str = "└"
    rule: str = "─"
    divider: str = "│"
    caret: str = "▲"
    dash: str = "–"
    ellipsis: str = "…"
    dot: str = "·"
    arrow: str = "→"
    ascending: str = "↑"
    descending: str = "↓"
    step_done: str = "●"
    step_now: str = "◉"
    step_ahead: str = "○"
    bar_full: str = "█"
    bar_empty: str = "░"
    sparkline: str = "▁▂▃▄▅▆▇█"
    is_ascii: bool = False


UNICODE: Final = Glyphs()
ASCII: Final = Glyphs(
    running="*",
    changing="~",
    stopped="o",
    paused="=",
    attention="!",
    failed="x",
    foreign="#",
    restart="@",
    live="*",
    mark="+",
    cursor=">",
    branch="`",
    rule="-",
    divider="|",
    caret="^",
    dash="-",
    ellipsis="~",
    dot="-",
    arrow=">",
    ascending="^",
    descending="v",
    step_done="*",
    step_now="@",
    step_ahead="o",
    bar_full="#",
    bar_empty=".",
    sparkline="_.,-~=+#",
    is_ascii=True,
)


def choose_glyphs(environment: Mapping[str, str], preference: str = "auto") -> Glyphs:
    """Return the set for a terminal; `preference` is `unicode`, `ascii` or `auto` (locale and TERM decide)."""
    if preference == "ascii":
        return ASCII
    if preference == "unicode":
        return UNICODE
    # No locale at all says nothing about the terminal (a fresh container has none), and UTF-8 is the rule.
    locale = environment.get("LC_ALL") or environment.get("LC_CTYPE") or environment.get("LANG") or "C.UTF-8"
    encoding = locale.partition(".")[2].partition("@")[0].lower().replace("-", "")
    if encoding != "utf8" or locale.startswith(_WIDE_LANGUAGES):
        return ASCII
    terminal = environment.get("TERM", "")
    return ASCII if terminal in _PLAIN_TERMINALS else UNICODE
