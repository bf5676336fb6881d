"""The review page of the wizard for a new VM, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from backend.model.documents import Document
from kc_tui.state.create_vm import PublicKey, describe_addressing, describe_hardware, describe_image, describe_making
from kc_tui.state.draft import Draft, Nic
from kc_tui.state.lines import BLANK, Line, heading, labelled, labelled_all
from kc_tui.state.nic_options import describe_advanced
from kc_tui.state.roles import Role
from kc_tui.state.table import Run

START: Final = "start"
KEY_PREFIX: Final = "key:"


@dataclass(frozen=True, slots=True)
class Switch:
    """Something to take or leave: its id, what it says, a remark, and whether it is on."""

    id: str
    text: str
    remark: str = ""
    is_on: bool = True


def describe_choices(
    draft: Draft,
    image: Document | None,
    networks: Mapping[str, Document],
    hardware: Mapping[str, Any],
    key_count: int,
) -> list[Line]:
    """Return the essentials of what would be made, and what that does to the host."""
    nics = [
        (Run(nic.network), Run(f"  {_describe_nic(nic, networks.get(nic.network))}", Role.MUTED)) for nic in draft.nics
    ]
    disk = f", {hardware['diskGiB']} GiB disk" if "diskGiB" in hardware else ""
    about = f"  {describe_image(image)}" if image is not None else ""
    return [
        (Run(draft.name, Role.STRONG),),
        labelled("image", draft.image, Run(about, Role.MUTED)),
        *labelled_all("network", nics or [(Run("none", Role.MUTED),)]),
        labelled("type", draft.type, Run(f"  {describe_hardware(hardware)}{disk}", Role.MUTED)),
        BLANK,
        heading("Enter makes on the host"),
        *((Run(f"  {line}"),) for line in describe_making(draft, hardware, key_count)),
        BLANK,
    ]


def _describe_nic(nic: Nic, network: Document | None) -> str:
    return ", ".join(part for part in (describe_addressing(nic, network), describe_advanced(nic)) if part)


def list_switches(draft: Draft, keys: Sequence[PublicKey], chosen: Sequence[PublicKey]) -> list[Switch]:
    """Return what can be taken or left."""
    switches = [Switch(START, "start it once it is made", "", draft.start)]
    switches += [Switch(KEY_PREFIX + key.path, f"let in {key.path}", key.comment, key in chosen) for key in keys]
    return switches


def choose_keys(draft: Draft, keys: Sequence[PublicKey]) -> list[PublicKey]:
    """Return the keys that the draft takes; where it has not chosen any, the best one."""
    if draft.key_paths is None:
        return list(keys[:1])
    return [key for key in keys if key.path in draft.key_paths]
