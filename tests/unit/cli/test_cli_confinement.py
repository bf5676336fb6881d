"""A visitor's right to stay: it ends where nobody looks after it any more, and not while a session is closed."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from backend.auth.protocol import Decision
from kc_tui.cli import lease as lease_module
from kc_tui.cli.lease import _Holder

DECISION = Decision("allow", subject="alice")


class FailingLease:
    """A lease whose question fails in a way that nobody has thought of."""

    def __init__(self, ending: threading.Event, *, closes: bool) -> None:
        self.reasons: list[str] = []
        self._ending = ending
        self._closes = closes

    def renew(self) -> Decision:
        if self._closes:
            self._ending.set()
        raise RuntimeError("not thought of")

    def end(self, reason: str, number: int = 15) -> None:
        self.reasons.append(f"{number}: {reason}")


def hold(monkeypatch: pytest.MonkeyPatch, *, closes: bool) -> tuple[FailingLease, Any, threading.Event]:
    monkeypatch.setattr(lease_module, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(lease_module, "find_pause", lambda _decision: 0.0)
    ending = threading.Event()
    found = FailingLease(ending, closes=closes)
    return found, _Holder(found, DECISION, lambda _later: None, None), ending  # type: ignore[arg-type]


def test_a_session_ends_where_its_right_cannot_be_told_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    found, holder, ending = hold(monkeypatch, closes=False)
    with pytest.raises(RuntimeError):
        holder.run(ending)
    assert found.reasons == ["15: it cannot be told whether you may stay"]


def test_one_that_is_closed_meanwhile_ends_in_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    found, holder, ending = hold(monkeypatch, closes=True)
    holder.run(ending)
    assert found.reasons == []
