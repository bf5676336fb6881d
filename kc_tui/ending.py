"""How KC's application ends when nobody asks it to: by a signal, by a fault, or for want of anybody there."""

from __future__ import annotations

import asyncio
import logging
import signal
import traceback
from pathlib import Path
from typing import Any, Final

from textual import events

from backend.errors import FailedError
from backend.model.documents import format_time
from backend.text import hide_secrets
from kc_tui.command_app import CommandApp, Looks
from kc_tui.idleness import Idleness, Presence
from kc_tui.session import Session
from kc_tui.state.operations import as_sentence

AWAY_CODE: Final = 7
"""The exit code of a session that ended for want of keys: the time was over."""

_log = logging.getLogger(__name__)


class EndingApp(CommandApp):
    """An app that keeps what was begun, however it ends; `data` is where the report of a crash goes.

    `end_reason` says why it ended where no key did it, empty otherwise.
    """

    session: Session

    def __init__(self, looks: Looks | None, *, data: Path, idleness: Idleness | None, **options: Any) -> None:
        super().__init__(looks, **options)
        self.end_reason = ""
        self.crash_report: Path | None = None
        self._data = data
        self._idleness = idleness
        self._is_warned = False

    def listen_for_the_end(self) -> None:
        """Have signals, and want of keys, end it in order from now on."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGHUP, signal.SIGTERM):
            loop.add_signal_handler(number, self._end_by_signal, number)
        if self._idleness is not None:
            self._idleness.touch()
            self._look_again()

    async def on_event(self, event: events.Event) -> None:
        """Note that somebody is there."""
        if self._idleness is not None and isinstance(event, (events.InputEvent, events.Paste)):
            self._idleness.touch()
            if self._is_warned:
                self._is_warned = False
                self.clear_notifications()
        await super().on_event(event)

    def _end_by_signal(self, number: signal.Signals) -> None:
        _log.info("ended by %s", number.name)
        self._end_in_order(128 + number)

    def _end_in_order(self, code: int) -> None:
        keep_draft = getattr(self.screen, "keep_draft", None)
        if keep_draft is not None:
            keep_draft()
        self.session.save()
        self.exit(return_code=code)

    # --- nobody is there

    def _look_again(self) -> None:
        idleness = self._idleness
        pause = idleness.until_next() if idleness is not None else 0.0
        if pause:
            # A little later, so that the time is over by then.
            self.set_timer(pause + 0.01, self._look)

    def _look(self) -> None:
        idleness = self._idleness
        if idleness is None:
            return
        presence = idleness.look()
        if presence is Presence.AWAY:
            self.end_reason = idleness.describe_end()
            _log.info("ended: %s", self.end_reason)
            self._end_in_order(AWAY_CODE)
            return
        if presence is Presence.WARNED and not self._is_warned:
            self._is_warned = True
            self.notify(
                as_sentence(idleness.describe_warning()), severity="warning", timeout=idleness.warning, markup=False
            )
        self._look_again()

    # --- a fault

    def _fatal_error(self) -> None:
        """Write a report instead of a screen full of traceback; `run` tells in one line where it is."""
        report = hide_secrets(traceback.format_exc())
        _log.error("crashed\n%s", report)
        self.crash_report = self._data / f"crash-{format_time()[:19].replace(':', '')}.txt"
        try:
            self.crash_report.parent.mkdir(parents=True, exist_ok=True)
            self.crash_report.write_text(report, "utf-8")
        except OSError:
            self.crash_report = None
        self._close_messages_no_wait()


def report_crash(app: EndingApp) -> FailedError | None:
    """Return what is said of a crash; None where there was none."""
    if app.return_code != 1 or app._exception is None:  # noqa: SLF001 - Textual tells it nowhere else
        return None
    where = f"the report is {app.crash_report}" if app.crash_report is not None else "no report could be written"
    return FailedError("KC", f"internal error ({type(app._exception).__name__})", where)  # noqa: SLF001
