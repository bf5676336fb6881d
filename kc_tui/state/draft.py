"""What the wizard for a new VM has been told so far, as it is kept in memory and in a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Nic:
    """One network interface: its addressing of each family (`kc_tui.state.addressing`), and what it may not do.

    Guards are as in a document's `guard`, rates are texts such as `10MB`; empty: as the network says.
    """

    network: str
    ipv4: str = "network"
    ipv6: str = "network"
    anti_spoof: str = "network"
    dhcp_guard: str = "network"
    ra_guard: str = "network"
    isolated: str = "network"
    receive: str = ""
    send: str = ""


@dataclass(frozen=True, slots=True)
class Draft:
    """What was chosen and typed so far; `values` are texts in parameters' fields, `key_paths` chosen keys."""

    step: str = "image"
    image: str = ""
    nics: tuple[Nic, ...] = ()
    type: str = ""
    name: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    key_paths: tuple[str, ...] | None = None
    start: bool = True

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing in it worth keeping."""
        return replace(self, step="image") == Draft()


def draft_to_json(draft: Draft) -> dict[str, Any]:
    """Return the draft as JSON values, to be kept in a file."""
    return {
        "step": draft.step,
        "image": draft.image,
        "nics": [asdict(nic) for nic in draft.nics],
        "type": draft.type,
        "name": draft.name,
        "values": dict(draft.values),
        "keys": None if draft.key_paths is None else list(draft.key_paths),
        "start": draft.start,
    }


def draft_from_json(value: Any) -> Draft:
    """Return the draft that `draft_to_json` wrote; an empty one where the value is something else."""
    try:
        keys = value["keys"]
        return Draft(
            step=str(value["step"]),
            image=str(value["image"]),
            nics=tuple(_read_nic(nic) for nic in value["nics"]),
            type=str(value["type"]),
            name=str(value["name"]),
            values={str(name): str(text) for name, text in value["values"].items()},
            key_paths=None if keys is None else tuple(str(key) for key in keys),
            start=bool(value["start"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return Draft()


def _read_nic(value: Any) -> Nic:
    if isinstance(value, list):
        # As it was kept before NICs had more than three settings.
        network, ipv4, ipv6 = value
        value = {"network": network, "ipv4": ipv4, "ipv6": ipv6}
    return Nic(**{str(name): str(text) for name, text in value.items()})
