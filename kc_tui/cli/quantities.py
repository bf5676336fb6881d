"""Values of parameters with units, such as `memoryMiB=2GiB`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from backend.errors import RefusedError
from backend.model.kinds import MACHINE_TYPE
from kc_tui.cli.session import Session

_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)? ?[A-Za-z]+")


def has_quantities(parameters: Sequence[tuple[str, Any]]) -> bool:
    """Return whether some value looks like a figure with a unit, such as `2GiB`."""
    return any(isinstance(value, str) and _QUANTITY.fullmatch(value) for _name, value in parameters)


def read_quantities(
    session: Session, machine_type: str, version: int | None, parameters: Sequence[tuple[str, Any]]
) -> dict[str, Any]:
    """Return parameters by name; a figure with a unit becomes a number in the unit of the machine type's parameter.

    Raises NotFoundError for an unknown machine type, RefusedError for a figure that is no such number.
    """
    from backend.model.parameters import parse_quantity, unit_of  # noqa: PLC0415 - few values have units

    document = session.service.get(MACHINE_TYPE.name, machine_type, observe=False, version=version)
    schemas = document["spec"].get("parameters", {})
    values: dict[str, Any] = {}
    for name, value in parameters:
        unit = unit_of(name, schemas[name]) if name in schemas else ""
        values[name] = value
        if unit and isinstance(value, str) and _QUANTITY.fullmatch(value):
            try:
                values[name] = parse_quantity(value, unit)
            except ValueError as error:
                raise RefusedError(f"parameter {name}", str(error), f"it is in {unit}") from error
    return values
