"""One run of a command: what was asked for globally, the settings, and the service, opened when it is needed."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from backend.service import Service
from backend.text import sanitise

if TYPE_CHECKING:
    from backend.settings import Settings
    from kc_tui.visitor import Visitor


class Home(Service, Protocol):
    """A service that can take up what an earlier process left."""

    def resume(self, *, wait: bool = True, report: Callable[[str], None] | None = None) -> int:
        """Take up interrupted operations; with `wait`, return once they ended."""


class Opener(Protocol):
    """Opens a service; without `operate`, operations are written down for another process to do."""

    def __call__(self, settings: Settings, *, operate: bool = True) -> Home:
        """Return the service that the settings ask for."""


class Application(Protocol):
    """Opens KC on the terminal."""

    def __call__(self, settings: Settings, visitor: Visitor | None = None) -> int:
        """Return the exit code, once its user, or the visitor, has left."""


class Session:
    """What a command works with.

    `output` is table, json, yaml or name; `quiet` wants nothing but data and errors; `waits` is false with --no-wait.
    A command sets `goes_on` where it leaves operations unfinished: a detached process then goes on with them.
    `visitor` is who runs it without being a user of this machine, `open_application` opens KC on the terminal.
    """

    def __init__(
        self,
        arguments: Namespace,
        open_service: Opener | None = None,
        *,
        finishes: bool = False,
        visitor: Visitor | None = None,
        open_application: Application | None = None,
    ) -> None:
        """Take what every command takes from its `arguments`; open nothing yet."""
        self.visitor = visitor
        self.open_application = open_application
        self.output: str = arguments.output
        self.quiet: bool = arguments.quiet
        self.waits: bool = arguments.wait_for_end
        self.profile: str = arguments.profile
        self.goes_on = False
        self._finishes = finishes
        self._open = open_service
        self._settings: Settings | None = None
        self._service: Home | None = None

    @property
    def settings(self) -> Settings:
        """The settings of this run; raises RefusedError for a bad file, NotFoundError for an unknown profile."""
        if self._settings is None:
            from backend.settings import load_settings  # noqa: PLC0415 - help needs no settings

            self._settings = load_settings(self.profile)
        return self._settings

    @property
    def service(self) -> Home:
        """The service, opened at the first use."""
        if self._service is None:
            if self._open is None:
                from backend.local import open_service  # noqa: PLC0415 - help needs no service

                self._open = open_service
            self._service = self._open(self.settings, operate=self.waits)
            if self._finishes:
                self._finish_interrupted(self._service)
        return self._service

    def _finish_interrupted(self, service: Home) -> None:
        """Bring to its end what an earlier process was killed in; where nobody waits, leave it to the background."""
        if not self.waits:
            return
        try:
            service.resume(wait=True, report=self.note)
        except KeyboardInterrupt:
            self.goes_on = True
            raise

    def note(self, text: str, *, end: str = "\n") -> None:
        """Tell the person something that is no data; -q leaves it out."""
        if not self.quiet:
            sys.stdout.flush()
            print(f"kc: {sanitise(text)}", file=sys.stderr, end=end, flush=True)

    def __enter__(self) -> Self:
        """Return the session."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the service; where operations are to go on without this process, start one that takes them up."""
        if self._service is None:
            return
        try:
            self._service.close()
        finally:
            if self.goes_on and not self.settings.url:
                from kc_tui.cli.worker import start_worker  # noqa: PLC0415 - few commands leave work behind

                start_worker(self.profile)
