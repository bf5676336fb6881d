"""What an operation is made of: steps that may each be repeated, and what they have at hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from backend.hypervisor.protocol import Hypervisor
from backend.model.documents import Document
from backend.store.protocol import Store


@dataclass
class Context:
    """What a step works with.

    `target` is the document that the operation is about, as it was when this attempt began. `status` collects what goes
    into the target's status at the end. `report` takes (done, total) in bytes and raises Cancelled where the operation
    is to end.
    """

    store: Store
    hypervisor: Hypervisor
    operation: Document
    target: Document
    owner_label: str
    report: Callable[[int, int], None]
    status: dict[str, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, Any]:
        """The operation's own parameters."""
        parameters: dict[str, Any] = self.operation["spec"]["parameters"]
        return parameters


@dataclass(frozen=True)
class Step:
    """One step: observe, decide, act and verify, safe to repeat after a crash at any point.

    `cancellable` says whether it looks for a cancel by itself, through `Context.report`.
    """

    id: str
    title: str
    run: Callable[[Context], None]


@dataclass(frozen=True)
class Plan:
    """The steps of an operation, what undoes them when one fails, and what becomes of the document.

    `outcome` is `keep` (its status is written) or `delete` at the end; `undo` ends in the deletion of the document
    where there is any.
    """

    steps: tuple[Step, ...]
    undo: tuple[Step, ...] = ()
    outcome: str = "keep"


class Cancelled(Exception):  # noqa: N818 - no error: somebody asked for it
    """The operation is to end and to undo itself."""
