"""A VM's parameters as a form: what they are now, and which of them the user has changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backend.model.documents import Document
from backend.model.parameters import resolve_hardware
from kc_tui.state.create_vm import describe_hardware
from kc_tui.state.fields import Field, show_option


def read_texts(fields: Sequence[Field], parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts that a form begins with: the chosen values, and where none was chosen the type's own."""
    return {
        field.name: show_option(parameters[field.name]) if field.name in parameters else field.initial
        for field in fields
    }


def read_changes(fields: Sequence[Field], before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of the parameters whose texts are others than before."""
    return {field.name: field.parse(after[field.name]) for field in fields if after[field.name] != before[field.name]}


def describe_type(machine_type: Document, present: Mapping[str, Any], arch: str) -> tuple[str, str, str]:
    """Return of a machine type what it makes, how it stands to the one a VM has, and why the VM cannot have it.

    `present` is the VM's own reference, empty where there is none to compare with, `arch` what its image is for.
    """
    spec = machine_type.get("spec", {})
    size = describe_hardware(resolve_hardware(spec, {}))
    if spec.get("arch") != arch and arch:
        return size, "", f"it is for {spec.get('arch')}, the VM is {arch}"
    if machine_type.get("uid") != present.get("uid") or not present:
        return size, "", ""
    newest, version = machine_type.get("version", 0), present.get("version", 0)
    if newest == version:
        return size, "now", "the VM is of this type, in its newest version"
    return size, f"{version} to {newest}", ""
