"""Every verb of KC, told once: what feeds keys, key bar, palette, help and confirmation."""

from __future__ import annotations

from kc_tui.commands.command import Command, Context, Danger, Scope, Subject
from kc_tui.commands.keymap import BarEntry, Keymap, build_keymap
from kc_tui.commands.registry import REGISTRY, Registry

__all__ = [
    "REGISTRY",
    "BarEntry",
    "Command",
    "Context",
    "Danger",
    "Keymap",
    "Registry",
    "Scope",
    "Subject",
    "build_keymap",
]
