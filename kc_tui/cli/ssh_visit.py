"""A visit over SSH: KC on somebody's terminal, or one command of it, for as long as they may stay.

There is no shell, nor any file of this machine, behind either.
"""

from __future__ import annotations

import os
import shlex
import sys
import uuid
from typing import TYPE_CHECKING, Any, Final

from backend.actor import Actor
from backend.auth.protocol import AuthRequest, Client
from backend.errors import DeniedError, RefusedError, UsageError
from backend.text import sanitise
from kc_tui.cli.following import leaving_on_signals
from kc_tui.cli.lease import WHAT, Lease
from kc_tui.cli.main import run
from kc_tui.cli.session import Home, Session
from kc_tui.cli.ssh_shell import DUMB
from kc_tui.idleness import Idleness
from kc_tui.visitor import Visitor

if TYPE_CHECKING:
    from backend.auth.chain import Chain
    from backend.auth.guarded import GuardedService
    from backend.auth.protocol import Decision
    from backend.settings import Settings

_MINUTE: Final = 60


def serve(session: Session, fingerprint: str, address: str, command: str) -> int:
    """Serve the holder of a key, who comes from an address with a command (empty: none); return the exit code."""
    words = split_command(command)
    if session.settings.url:
        hint = "serve SSH where that one runs"
        raise RefusedError(WHAT, f"profile {session.settings.profile} is a remote KC", hint)
    # Whether to operate is told by the command, which nobody has looked at yet.
    session.waits = "--no-wait" not in words
    service = session.service
    lease = Lease(lambda: _open_chain(session.settings, service), make_request(fingerprint, address))
    try:
        with leaving_on_signals():
            return _let_in(session, service, lease, words)
    finally:
        lease.close()


def split_command(command: str) -> list[str]:
    """Return the words of a command as a shell would split them, but for everything else that a shell does."""
    try:
        command.encode()
        words = shlex.split(command)
    except (ValueError, UnicodeEncodeError) as error:
        raise UsageError(WHAT, "the command cannot be split into words", "see kc --help") from error
    return words[1:] if words[:1] == ["kc"] else words


def make_request(fingerprint: str, address: str) -> AuthRequest:
    """Return the question whether the holder of a key may come in; what they do then is decided by itself each time."""
    client = Client("ssh", address=sanitise(address, 60), ssh_fingerprint=fingerprint)
    return AuthRequest(uuid.uuid4().hex, "auth.check", client)


def _open_chain(settings: Settings, service: Any) -> Chain:
    """Return the chain of a KC of this machine, beside whose store and trail it works."""
    from backend.auth.opening import open_chain  # noqa: PLC0415 - in the chain's own thread

    return open_chain(settings, service.store, service.audit)


def _let_in(session: Session, service: Home, lease: Lease, words: list[str]) -> int:
    """Serve whoever is let in, for as long as they are."""
    decision = lease.begin()
    served = _make_service(service, decision, lease)
    visitor = Visitor(decision.subject, lambda: served, Idleness(session.settings.ssh_idle_minutes * _MINUTE))

    def renew(later: Decision) -> None:
        served.decision = later

    has_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    lease.hold(decision, renew, None if has_terminal else sys.stdout.fileno())
    if words or not has_terminal or os.environ.get("TERM") == DUMB or session.open_application is None:
        code = run(words, lambda _settings, *, operate=True: served, visitor=visitor)  # noqa: ARG005 - see _serve
    else:
        code = session.open_application(session.settings, visitor)
    if lease.reason:
        session.note(f"{WHAT}: the session has ended: {lease.reason}")
        return DeniedError.exit_code
    return code


def _make_service(service: Any, decision: Decision, lease: Lease) -> GuardedService:
    from backend.auth.guarded import GuardedService  # noqa: PLC0415 - for whoever is let in

    class Leased(GuardedService):
        """Asks no more whether its user may stay once it is closed, and the store with it."""

        def close(self) -> None:
            lease.close()
            super().close()

    return Leased(service, decision, Actor(decision.subject, lease.request_id, "ssh"), audit=service.audit)
