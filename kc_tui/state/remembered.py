"""What KC keeps for the next time: theme, order of the lists, the choices made last, and the drafts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from kc_tui.state.draft import Draft, draft_from_json, draft_to_json
from kc_tui.state.network_draft import NetworkDraft, network_draft_from_json, network_draft_to_json

FILE_NAME: Final = "tui.json"
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Order:
    """By which column a list is sorted."""

    column: str = "name"
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class Remembered:
    """All of it; `orders` by section, `columns` the metadata paths shown (None: KC chooses), the rest the wizard's."""

    theme: str = ""
    orders: Mapping[str, Order] = field(default_factory=dict)
    columns: tuple[str, ...] | None = None
    image: str = ""
    networks: tuple[str, ...] = ()
    type: str = ""
    draft: Draft = field(default_factory=Draft)
    network_draft: NetworkDraft = field(default_factory=NetworkDraft)

    def choose(self, draft: Draft) -> Remembered:
        """Return it with what a finished draft chose as the latest choices, and no draft."""
        networks = tuple(nic.network for nic in draft.nics)
        return replace(self, image=draft.image, networks=networks, type=draft.type, draft=Draft())

    def order(self, section: str) -> Order:
        """Return the order of one section's list."""
        return self.orders.get(section, Order())

    def with_order(self, section: str, order: Order) -> Remembered:
        """Return it with another order of one section."""
        return replace(self, orders={**self.orders, section: order})


def dump(remembered: Remembered) -> bytes:
    """Return it as the file's content."""
    value = {
        "version": _VERSION,
        "theme": remembered.theme,
        "orders": {section: [order.column, order.reverse] for section, order in remembered.orders.items()},
        "columns": None if remembered.columns is None else list(remembered.columns),
        "image": remembered.image,
        "networks": list(remembered.networks),
        "type": remembered.type,
        "draft": draft_to_json(remembered.draft),
        "networkDraft": network_draft_to_json(remembered.network_draft),
    }
    return json.dumps(value, ensure_ascii=False, indent=1).encode("utf-8", "replace")


def load(content: bytes) -> Remembered:
    """Return what a file's content says; what cannot be read is as if it had never been kept."""
    try:
        value: Any = json.loads(content)
    except ValueError:
        return Remembered()
    if not isinstance(value, dict) or value.get("version") != _VERSION:
        return Remembered()
    orders = value.get("orders")
    columns = value.get("columns")
    return Remembered(
        theme=_text(value.get("theme")),
        orders={
            section: Order(str(entry[0]), bool(entry[1]))
            for section, entry in (orders.items() if isinstance(orders, dict) else ())
            if isinstance(entry, list) and len(entry) == 2  # noqa: PLR2004 - column and direction
        },
        columns=tuple(map(str, columns)) if isinstance(columns, list) else None,
        image=_text(value.get("image")),
        networks=tuple(map(str, networks)) if isinstance(networks := value.get("networks"), list) else (),
        type=_text(value.get("type")),
        draft=draft_from_json(value.get("draft")),
        network_draft=network_draft_from_json(value.get("networkDraft")),
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
