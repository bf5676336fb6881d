"""A full screen over what the session knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kc_tui.commands.command import Context
from kc_tui.messages import MastheadWanted
from kc_tui.screens.base import CommandScreen
from kc_tui.screens.parts import LEAST_HEIGHT, LEAST_WIDTH, tell_if_too_small
from kc_tui.session import Session
from kc_tui.state.masthead import Masthead

WIDE: Final = 100
WIDEST: Final = 140
Changed = Mapping[str, set[str]]
"""The uids of changed documents by kind."""
_WIDTHS: Final = [(0, "-too-narrow"), (LEAST_WIDTH, "-narrow"), (WIDE, "-wide"), (WIDEST, "-widest")]
_HEIGHTS: Final = [(0, "-too-low"), (LEAST_HEIGHT, "-high")]


class SessionScreen(CommandScreen):
    """A full screen over what the session knows; the app tells it what changed."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.HORIZONTAL_BREAKPOINTS = _WIDTHS
        self.VERTICAL_BREAKPOINTS = _HEIGHTS

    @property
    def is_composed(self) -> bool:
        """Whether there is anything that could show something."""
        return len(self.children) > 0

    def refusals(self) -> Mapping[str, str]:
        """Return what nobody may do in this session."""
        return self.session.refusals

    def on_resize(self) -> None:
        """Say so where the terminal is too small."""
        tell_if_too_small(self)

    def on_screen_resume(self) -> None:
        """Ask for the lines at the top: they may have changed while another screen was in front."""
        self.post_message(MastheadWanted())

    async def do_network_topology(self, _context: Context) -> None:
        """Show what is joined to what."""
        from kc_tui.screens.topology import TopologyScreen  # noqa: PLC0415 - not for the first picture

        if not isinstance(self, TopologyScreen):
            await self.app.push_screen(TopologyScreen(self.session))

    def documents_changed(self, changed: Changed | None) -> None:
        """Show what changed; None where everything may have."""

    def show_masthead(self, masthead: Masthead) -> None:
        """Show the lines at the top; a screen without them shows nothing."""
