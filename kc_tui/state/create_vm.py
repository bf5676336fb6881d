"""What the wizard for a new VM has been told, and what follows: a document, a command line, what is made."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from backend.errors import KCError
from backend.model.addressing import FAMILIES
from backend.model.documents import API_VERSION, Document
from backend.model.kinds import VM
from kc_tui.state.addressing import describe_choice
from kc_tui.state.draft import Draft, Nic
from kc_tui.state.fields import Field
from kc_tui.state.formatting import format_bytes, format_mebibytes, pluralise
from kc_tui.state.nic_options import build_nic, list_words
from kc_tui.state.wizard import Step

STEPS: Final = (
    Step("image", "image"),
    Step("network", "network"),
    Step("type", "type"),
    Step("name", "name and size"),
    Step("review", "review"),
)
LONGEST_NAME: Final = 63
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_SAFE_PATH: Final = re.compile(r"~/[A-Za-z0-9_./@%+=:,-]+")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public SSH key of the user's: where its file is (`~/…`), and its one line."""

    path: str
    text: str

    @property
    def comment(self) -> str:
        """What the key says about itself, mostly whose it is."""
        return self.text.partition(" ")[2].partition(" ")[2].strip()


def complain_about_name(name: str, taken: frozenset[str]) -> str:
    """Return what is wrong with a VM's name; empty where nothing is."""
    if not name:
        return "a name is wanted"
    if len(name) > LONGEST_NAME:
        return f"at most {LONGEST_NAME} characters"
    if not _NAME.fullmatch(name):
        return "small letters, digits and hyphens; no hyphen at the ends"
    return "the name is taken" if name in taken else ""


def chosen_values(draft: Draft, fields: Sequence[Field]) -> dict[str, Any]:
    """Return the parameters that differ from what the machine type gives; raise ValueError for a misfit."""
    values: dict[str, Any] = {}
    for item in fields:
        text = draft.values.get(item.name, item.initial)
        if text != item.initial:
            values[item.name] = item.parse(text)
    return values


def build_document(draft: Draft, values: Mapping[str, Any], keys: Sequence[PublicKey]) -> Document:
    """Return the document that makes the VM."""
    return {
        "apiVersion": API_VERSION,
        "kind": VM.name,
        "name": draft.name,
        "metadata": {},
        "spec": {
            "image": draft.image,
            "type": draft.type,
            "parameters": dict(values),
            "nics": [build_nic(nic) for nic in draft.nics],
            "power": "running" if draft.start else "stopped",
            "sshKeys": [key.text for key in keys],
        },
    }


def _quote_path(path: str) -> str:
    # Quotes would keep the shell from putting the home folder in.
    return (
        path if _SAFE_PATH.fullmatch(path) else f"~/{shlex.quote(path[2:])}" if path[:2] == "~/" else shlex.quote(path)
    )


def build_arguments(draft: Draft, values: Mapping[str, Any], keys: Sequence[PublicKey]) -> list[str]:
    """Return the equivalent command line as shell words, each quoted; an option and its value are one entry."""
    words = ["kc vm create", shlex.quote(draft.name), f"--image {shlex.quote(draft.image)}"]
    words += [f"--network {shlex.quote(','.join((nic.network, *list_words(nic))))}" for nic in draft.nics]
    words.append(f"--type {shlex.quote(draft.type)}")
    words += [f"--set {shlex.quote(f'{name}={_show(value)}')}" for name, value in values.items()]
    words += [f"--ssh-key {_quote_path(key.path)}" for key in keys]
    return words if draft.start else [*words, "--no-start"]


def _show(value: Any) -> str:
    """Return a parameter as `--set` takes it: JSON where it is needed, else the text itself."""
    import json  # noqa: PLC0415 - for the review only

    if not isinstance(value, str):
        return json.dumps(value)
    try:
        json.loads(value)
    except ValueError:
        return value
    # A text that reads as JSON must say that it is one.
    return json.dumps(value)


def describe_making(draft: Draft, hardware: Mapping[str, Any], key_count: int) -> list[str]:
    """Return what the last enter will make on the host, line by line."""
    disk = hardware.get("diskGiB")
    size = f" of {disk} GiB" if disk else ""
    networks = " and ".join(dict.fromkeys(nic.network for nic in draft.nics))
    lines = [
        f"a disk{size} on top of image {draft.image}, which stays as it is",
        f"a cloud-init seed with the host name and {pluralise(key_count, 'SSH key') if key_count else 'no SSH key'}",
        f"a libvirt domain {draft.name} with {describe_hardware(hardware)}",
    ]
    if draft.start:
        up = f"{'networks' if len({nic.network for nic in draft.nics}) > 1 else 'network'} {networks} brought up, "
        lines.append(f"{up if networks else ''}then the VM started")
    return lines


def describe_hardware(hardware: Mapping[str, Any]) -> str:
    """Return `2 CPUs, 4 GiB memory`."""
    cpus, memory = hardware.get("cpus"), hardware.get("memoryMiB")
    parts = [pluralise(cpus, "CPU") if isinstance(cpus, int) else ""]
    parts.append(f"{format_mebibytes(memory)} memory" if isinstance(memory, int) else "")
    return ", ".join(part for part in parts if part)


def describe_image(image: Document) -> str:
    """Return `x86_64, 64 MiB`."""
    spec = image.get("spec", {})
    size = spec.get("virtualSizeBytes")
    parts = [str(spec.get("arch", "")), format_bytes(size) if isinstance(size, int) else ""]
    return ", ".join(part for part in parts if part)


def describe_addressing(nic: Nic, network: Mapping[str, Any] | None) -> str:
    """Return how a NIC gets its addresses, such as `dhcp` or `10.0.0.5/24, slaac`."""
    spec = network.get("spec", {}) if network is not None else {}
    told = [
        str(spec.get(family, {}).get("mode", "none")) if getattr(nic, family) == "network" else getattr(nic, family)
        for family in FAMILIES
    ]
    shown = [describe_choice(part) for part in told if part != "none"]
    return ", ".join(shown) if shown else "no address"


def locate_error(error: KCError, fields: Sequence[Field]) -> tuple[str, str]:
    """Return the step and the field that an error of the service belongs to; both empty where it is none of them."""
    parameter = str(error.details.get("parameter", ""))
    if parameter in {item.name for item in fields}:
        return "name", parameter
    why = error.why
    if "name is taken" in why or "not a valid name" in why or "spec.name" in why:
        return "name", "name"
    for pattern, step in (
        (r"spec\.nics|\bnetwork\b|\bmac\b", "network"),
        (r"\bmachine type\b|spec\.type", "type"),
        (r"\bimage\b|spec\.image", "image"),
        (r"spec\.sshKeys", "review"),
    ):
        if re.search(pattern, why):
            return step, ""
    return "", ""
