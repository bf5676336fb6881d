"""The fields of a page that is made from a JSON Schema: what each is called and takes, and what is wrong with a text.

What is checked here can be told at once, at each key. Patterns are left to the full check behind the gateway: they come
from documents, and a bad one could keep the screen waiting for ever.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from backend.model.parameters import BOUNDS, describe_limits, parse_quantity, resolve_hardware, unit_of

_UNITS: Final = ("MiB", "GiB", "Bytes", "Seconds")
_BETWEEN: Final = re.compile(r"[\s,]+")


class FieldKind(Enum):
    """What a field takes."""

    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    CHOICE = "choice"
    LIST = "list"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Field:
    """One field: `initial` is the text it begins with, `options` the texts of a choice, `schema` its JSON Schema.

    An integer in MiB or GiB takes a unit in its text (`2G`); a list takes texts with commas or spaces between them.
    """

    name: str
    title: str
    kind: FieldKind
    initial: str
    unit: str
    limits: str
    help: str
    options: tuple[str, ...]
    schema: Mapping[str, Any]

    def parse(self, text: str) -> Any:
        """Return the value that a text stands for; raise ValueError saying what is wrong with it."""
        value = self._read(text)
        _check(value, self.schema, self.limits)
        least, most = BOUNDS.get(self.name, (-math.inf, math.inf))
        if isinstance(value, (int, float)) and not least <= value <= most:
            raise ValueError(f"{least} to {most}")
        return value

    def complain(self, text: str) -> str:
        """Return what is wrong with a text; empty where nothing is."""
        try:
            self.parse(text)
        except ValueError as error:
            return str(error)
        return ""

    def _read(self, text: str) -> Any:
        match self.kind:
            case FieldKind.INTEGER:
                return parse_quantity(text, self.unit)
            case FieldKind.NUMBER:
                return _read_number(text)
            case FieldKind.BOOLEAN:
                return text == "true"
            case FieldKind.CHOICE:
                return self._read_choice(text)
            case FieldKind.LIST:
                return [part for part in _BETWEEN.split(text) if part]
            case FieldKind.TEXT:
                return text

    def _read_choice(self, text: str) -> Any:
        for value in self.schema["enum"]:
            if show_option(value) == text:
                return value
        raise ValueError(self.limits)


def show_option(value: Any) -> str:
    """Return a JSON value as a field shows it."""
    if isinstance(value, list):
        return ", ".join(show_option(item) for item in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def make_fields(machine_type: Mapping[str, Any]) -> tuple[Field, ...]:
    """Return the fields for the parameters of a machine type (a spec), in their order."""
    unchosen = resolve_hardware(machine_type, {})
    parameters = machine_type.get("parameters", {})
    return tuple(_make_field(name, schema, unchosen.get(name)) for name, schema in parameters.items())


def _make_field(name: str, schema: Mapping[str, Any], default: Any) -> Field:
    kind = _kind_of(schema, default)
    options = tuple(show_option(value) for value in schema["enum"]) if kind is FieldKind.CHOICE else ()
    if default is None:
        default = False if kind is FieldKind.BOOLEAN else schema["enum"][0] if options else ""
    return Field(
        name=name,
        title=str(schema.get("title", "")) or humanise(name),
        kind=kind,
        initial=show_option(default),
        unit=unit_of(name, schema),
        limits="" if options else describe_limits(dict(schema)) or _describe_length(schema),
        help=str(schema.get("description", "")),
        options=options,
        schema=schema,
    )


def _kind_of(schema: Mapping[str, Any], default: Any) -> FieldKind:
    """Return what a parameter takes; a schema that does not say is for what the machine type has there."""
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return FieldKind.CHOICE
    kinds = {
        "integer": FieldKind.INTEGER,
        "number": FieldKind.NUMBER,
        "boolean": FieldKind.BOOLEAN,
        "array": FieldKind.LIST,
    }
    found = {bool: FieldKind.BOOLEAN, int: FieldKind.INTEGER, list: FieldKind.LIST}
    told = str(schema.get("type", ""))
    return kinds.get(told, FieldKind.TEXT) if told else found.get(type(default), FieldKind.TEXT)


def humanise(name: str) -> str:
    """Return a title for a camelCase name, its unit left out: `memoryMiB` is Memory."""
    for unit in _UNITS:
        if name.endswith(unit) and name != unit:
            name = name.removesuffix(unit)
            break
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower()
    return words[:1].upper() + words[1:]


def _describe_length(schema: Mapping[str, Any]) -> str:
    least, most = schema.get("minLength"), schema.get("maxLength")
    if most is not None:
        return f"{least} to {most} characters" if least else f"at most {most} characters"
    return f"at least {least} characters" if least else ""


def _read_number(text: str) -> float:
    try:
        value = float(text.strip())
    except ValueError:
        raise ValueError("a number is wanted" if text.strip() else "a value is wanted") from None
    if not math.isfinite(value):
        raise ValueError("a number is wanted")
    return int(value) if value.is_integer() and "." not in text else value


def _check(value: Any, schema: Mapping[str, Any], limits: str) -> None:
    if isinstance(value, bool):
        return
    if isinstance(value, (int, float)):
        _check_number(value, schema, limits)
    elif isinstance(value, str):
        _check_text(value, schema, limits)
    elif isinstance(value, list):
        _check_list(value, schema)


def _check_number(value: float, schema: Mapping[str, Any], limits: str) -> None:
    if value < schema.get("minimum", -math.inf) or value > schema.get("maximum", math.inf):
        raise ValueError(limits)
    if value <= schema.get("exclusiveMinimum", -math.inf):
        raise ValueError(f"more than {schema['exclusiveMinimum']}")
    if value >= schema.get("exclusiveMaximum", math.inf):
        raise ValueError(f"less than {schema['exclusiveMaximum']}")
    step = schema.get("multipleOf")
    if step and isinstance(value, int) and isinstance(step, int) and value % step:
        raise ValueError(f"a multiple of {step}")


def _check_text(value: str, schema: Mapping[str, Any], limits: str) -> None:
    if len(value) < schema.get("minLength", 0) or len(value) > schema.get("maxLength", math.inf):
        raise ValueError(limits)


def _check_list(values: list[str], schema: Mapping[str, Any]) -> None:
    least, most = schema.get("minItems", 0), schema.get("maxItems", math.inf)
    if len(values) < least:
        raise ValueError(f"at least {least} of them")
    if len(values) > most:
        raise ValueError(f"at most {most} of them")
    if schema.get("uniqueItems") and len(set(values)) < len(values):
        raise ValueError("one of them is there twice")
    inside = schema.get("items")
    options = inside.get("enum") if isinstance(inside, Mapping) else None
    wrong = next((value for value in values if isinstance(options, list) and value not in options), None)
    if wrong is not None:
        raise ValueError(f"{wrong} is none of {show_option(options)}")
