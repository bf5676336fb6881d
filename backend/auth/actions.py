"""The actions that scopes speak of; documents of tokens speak of them too, so they are the model's."""

from __future__ import annotations

from backend.model.actions import ACTIONS, PATTERNS, list_actions

__all__ = ["ACTIONS", "PATTERNS", "list_actions"]
