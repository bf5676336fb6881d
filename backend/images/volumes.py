"""How an image's bytes are called in a pool: by their digest, so that the same bytes are there once."""

from __future__ import annotations

from typing import Any

STARTER_SOURCE = "starter:"


def starter_prefix(recipe: str) -> str:
    """Return how the volumes of starter images begin that were made by one recipe."""
    return f"kc-starter-{recipe}-"


def image_volume(spec: dict[str, Any]) -> str:
    """Return the volume's name for an image's spec.

    A starter image also names its recipe: another KC on the same pool knows by it what it need not build again.
    """
    digest: str = spec["digest"].removeprefix("sha256:")
    source: str = spec.get("source", "")
    if source.startswith(STARTER_SOURCE):
        return starter_prefix(source.removeprefix(STARTER_SOURCE)) + digest
    return f"kc-image-{digest}"
