"""What `kc type show` says of a machine type."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from backend.model.documents import Document
from backend.model.parameters import HEADROOM, describe_constraint, describe_limits, resolve_hardware

_NAMES = {"firmware": "firmware", "secureBoot": "secure boot", "cpuModels": "CPU model"}


def describe_type(document: Document) -> Iterator[tuple[str, str]]:
    """Yield labels and texts: each setting with what a VM may choose, then what they must fit together."""
    spec = document["spec"]
    if spec.get("description"):
        yield "description", spec["description"]
    yield "arch", spec["arch"]
    parameters = spec.get("parameters", {})
    for name, value in resolve_hardware(spec, {}).items():
        if name not in HEADROOM:
            text = _show(value)
            if text or name in parameters:
                yield _NAMES.get(name, name), f"{text or 'any'}{_describe_choice(name, parameters)}"
    yield from _describe_headroom(spec, parameters)
    for constraint in spec.get("constraints", []):
        yield "together", describe_constraint(constraint)


def _describe_headroom(spec: Mapping[str, Any], parameters: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    hardware = resolve_hardware(spec, {})
    for most, wanted in HEADROOM.items():
        if most in hardware and (hardware[most] > hardware[wanted] or most in parameters):
            choice = _describe_choice(most, parameters) if most in parameters else ""
            yield "while it runs", f"{most if choice else wanted} up to {hardware[most]}{choice}"


def _describe_choice(name: str, parameters: Mapping[str, Any]) -> str:
    if name not in parameters:
        return ", fixed"
    return f", {describe_limits(parameters[name]) or 'free'}: --set {name}=…"


def _show(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", else ".join(str(item) for item in value) if isinstance(value, list) else str(value)
