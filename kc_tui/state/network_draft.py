"""What the wizard for a network has been told so far, as it is kept in memory and in a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class NetworkDraft:
    """Where the wizard stands, and the texts in its fields that are other than those they began with."""

    step: str = ""
    values: Mapping[str, str] = field(default_factory=dict)


def network_draft_to_json(draft: NetworkDraft) -> dict[str, Any]:
    """Return the draft as JSON values, to be kept in a file."""
    return {"step": draft.step, "values": dict(draft.values)}


def network_draft_from_json(value: Any) -> NetworkDraft:
    """Return the draft that `network_draft_to_json` wrote; an empty one where the value is something else."""
    try:
        return NetworkDraft(str(value["step"]), {str(name): str(text) for name, text in value["values"].items()})
    except (KeyError, TypeError, AttributeError):
        return NetworkDraft()
