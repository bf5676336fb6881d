"""A wizard as a machine: which steps there are, where one stands, and which steps are still in error."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple


class Step(NamedTuple):
    """One page: its id, and its title in the line of steps."""

    id: str
    title: str


class Mark(Enum):
    """How a step stands in the line of steps."""

    DONE = "done"
    NOW = "now"
    AHEAD = "ahead"


class Wizard:
    """Steps in their order; one goes forward from a finished step, back from any, and to any that was reached."""

    def __init__(self, steps: Sequence[Step], at: str = "") -> None:
        self.steps = tuple(steps)
        ids = [step.id for step in self.steps]
        self._at = ids.index(at) if at in ids else 0
        self._reached = self._at

    @property
    def step(self) -> Step:
        """The step that is in front."""
        return self.steps[self._at]

    @property
    def is_first(self) -> bool:
        """Whether there is nothing to go back to."""
        return self._at == 0

    @property
    def is_last(self) -> bool:
        """Whether the next enter does what the wizard is for."""
        return self._at == len(self.steps) - 1

    @property
    def marks(self) -> tuple[tuple[Step, Mark], ...]:
        """Each step and how it stands."""
        return tuple(
            (step, Mark.NOW if index == self._at else Mark.DONE if index < self._reached else Mark.AHEAD)
            for index, step in enumerate(self.steps)
        )

    def forward(self) -> bool:
        """Go to the next step; return whether there was one."""
        if self.is_last:
            return False
        self._at += 1
        self._reached = max(self._reached, self._at)
        return True

    def back(self) -> bool:
        """Go to the step before; return whether there was one."""
        if self.is_first:
            return False
        self._at -= 1
        return True

    def go(self, step_id: str) -> bool:
        """Go to a step that was reached before; return whether one stands there now."""
        index = next((index for index, step in enumerate(self.steps) if step.id == step_id), None)
        if index is None or index > self._reached:
            return False
        self._at = index
        return True
