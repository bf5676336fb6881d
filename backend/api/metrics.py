"""What is counted, in Prometheus's text format; a registry of its own, for several servers may share a process."""

from __future__ import annotations

from collections import Counter as Tally
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from backend import __version__

if TYPE_CHECKING:
    from backend.auth.protocol import Decision
    from backend.service import Service

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_PAGE = 1000
TEXT = CONTENT_TYPE_LATEST


class Metrics:
    """Requests by route template (never by path: a scanner would make one of each), streams, decisions, operations."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._children: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._requests = Counter(
            "kc_http_requests", "Requests answered", ["method", "route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "kc_http_request_seconds",
            "Time to the end of an answer",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._decisions = Counter(
            "kc_auth_decisions", "Answers of the authenticators", ["outcome", "authenticator"], registry=self.registry
        )
        self.streams = Gauge("kc_http_streams", "Streams that are open now", ["route"], registry=self.registry)
        self.active = Gauge("kc_http_active_requests", "Requests that are being answered now", registry=self.registry)
        self._operations = Gauge("kc_operations", "Operations that are kept", ["state"], registry=self.registry)
        Gauge("kc_info", "The version that answers", ["version"], registry=self.registry).labels(__version__).set(1)

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Note one answered request."""
        key = (method, route, status)
        found = self._children.get(key)
        if found is None:
            # Looking one up costs as much as the rest together; there are as many as routes and statuses.
            found = (self._requests.labels(method, route, str(status)), self._seconds.labels(route))
            self._children[key] = found
        found[0].inc()
        found[1].observe(seconds)

    def count_decision(self, decision: Decision) -> None:
        """Note what the authenticators said."""
        self._decisions.labels(decision.outcome, decision.authenticator).inc()

    def render(self, service: Service) -> bytes:
        """Return the text, operations counted now; blocks."""
        states: Tally[str] = Tally()
        after = ""
        while True:
            page = service.list_documents("Operation", limit=_PAGE, after=after, observe=False)
            states.update(str(item.get("status", {}).get("state", "")) for item in page.items)
            after = page.next
            if not after:
                break
        self._operations.clear()
        for state, number in states.items():
            self._operations.labels(state).set(number)
        return generate_latest(self.registry)
