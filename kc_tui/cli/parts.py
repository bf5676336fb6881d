"""What the commands about parts of a VM share: its NICs, disks and snapshots."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from backend.errors import RefusedError
from backend.model.documents import Document, is_readable
from backend.model.kinds import VM
from backend.text import sanitise
from kc_tui.cli.columns import hardware_of
from kc_tui.cli.output import print_data
from kc_tui.cli.session import Session
from kc_tui.cli.table import Column, Value, print_table

ROOT = "root"
"""The id of a VM's first disk, which is over its image and as large as its parameter diskGiB."""


def get_vm(session: Session, name: str, *, observe: bool = True) -> Document:
    """Return a VM's document; raise RefusedError for one that a newer KC wrote, whose parts nobody here knows."""
    document = session.service.get(VM.name, name, observe=observe)
    if not is_readable(document):
        raise RefusedError(f"VM {sanitise(name, 80)}", "a newer KC wrote it", "see kc vm show NAME -o json")
    return document


def print_parts(
    session: Session,
    columns: Sequence[Column],
    items: Sequence[Document],
    rows: Sequence[Sequence[Value]],
    hint: str,
    *,
    named: str,
) -> None:
    """Print parts in the form that was asked for; `named` is the field that `-o name` prints, `hint` says of none."""
    if session.output in ("json", "yaml"):
        print_data(session, {"items": list(items)})
    elif session.output == "name":
        sys.stdout.write("".join(f"{sanitise(item.get(named, ''))}\n" for item in items))
    elif items:
        print_table(columns, rows)
    else:
        session.note(hint)


def list_disks(document: Document) -> list[dict[str, Any]]:
    """Return a VM's disks: `id`, `sizeGiB` as it is wanted, `sizeBytes` and `usedBytes` as they are; None: not known.

    Of an adopted VM there is only what its host says.
    """
    spec, found = document.get("spec", {}), document.get("status", {}).get("disks") or []
    wanted = {} if spec.get("adopted") else {ROOT: hardware_of(document).get("diskGiB")}
    wanted |= {disk["id"]: disk["sizeGiB"] for disk in spec.get("disks", [])}
    observed = {disk.get("id", ""): disk for disk in found}
    return [
        {
            "id": name,
            "sizeGiB": wanted.get(name),
            "sizeBytes": observed.get(name, {}).get("sizeBytes"),
            "usedBytes": observed.get(name, {}).get("usedBytes"),
        }
        for name in dict.fromkeys([*wanted, *observed])
    ]
