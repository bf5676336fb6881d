"""What a machine type may say: which JSON Schemas its parameters and constraints may be, and that its defaults fit.

A type is written by one and obeyed by many, so checking a value must end soon, whatever the type says. Hence a part of
JSON Schema (2020-12) alone: no `$ref`, which can name another host or go round in a circle, and no regular expressions,
which can take for ever; of bounded depth and size. What a type stored long ago may have beyond it is not looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from backend.model.parameters import HEADROOM, resolve_hardware
from backend.text import sanitise

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

MAXIMUM_DEPTH: Final = 16
MAXIMUM_NODES: Final = 1000

_ANNOTATIONS: Final = {"title", "description", "default", "unit", "examples", "deprecated", "$comment"}
_PLAIN: Final = {
    "type", "enum", "const", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength",
    "maxLength", "minItems", "maxItems", "uniqueItems", "minContains", "maxContains", "minProperties", "maxProperties",
    "required", "dependentRequired",
}  # fmt: skip
# Keywords with a schema, a list of schemas, and an object of schemas in them.
_WITH_SCHEMA: Final = {"not", "if", "then", "else", "items", "contains", "additionalProperties"}
_WITH_LIST: Final = {"allOf", "anyOf", "oneOf", "prefixItems"}
_WITH_OBJECT: Final = {"properties", "dependentSchemas"}
_CHECKING: Final = _PLAIN | _WITH_SCHEMA | _WITH_LIST | _WITH_OBJECT
# What these hold is a schema for the values within, not for the value itself.
_GOING_INSIDE: Final = {"items", "contains", "additionalProperties", "prefixItems", "properties"}
_SHOWN: Final = 200


def find_error(schema: dict[str, Any], value: Any) -> ValidationError | None:
    """Return the first thing that is wrong with a value, or None; keywords that no type may use do nothing."""
    return next(_validators()[0](schema).iter_errors(value), None)


def find_setting_error(name: str, value: Any) -> ValidationError | None:
    """Return the first thing that is wrong with a setting's value, whatever a type may say of it; None for nothing."""
    from backend.model.machine_types import setting_schemas  # noqa: PLC0415 - pydantic

    return next(_validators()[1](setting_schemas().get(name, {})).iter_errors(value), None)


@cache
def _validators() -> tuple[Any, Any]:
    """Return the validator for what a type says, and the one for KC's own schemas, which may have patterns."""
    from jsonschema import Draft202012Validator, ValidationError, validators  # noqa: PLC0415 - 0.1 s, for writers only

    def match(_validator: Any, pattern: str, value: Any, _schema: Any) -> Iterator[ValidationError]:
        # `$` would let a line feed pass.
        if isinstance(value, str) and not re.fullmatch(pattern, value):
            yield ValidationError(f"{value!r} does not match {pattern!r}")

    whole = Draft202012Validator
    rules = {keyword: rule for keyword, rule in whole.VALIDATORS.items() if keyword in _CHECKING}
    makers = (rules, {**rules, "pattern": match})
    told, own = (validators.create(whole.META_SCHEMA, each, type_checker=whole.TYPE_CHECKER) for each in makers)
    return told, own


def check_machine_type(spec: dict[str, Any]) -> None:
    """Raise ValueError, with the path, for a type (a spec with its defaults) that is wrong in itself."""
    from backend.model.machine_types import setting_schemas  # noqa: PLC0415 - pydantic

    settings = set(setting_schemas())
    for name, schema in spec["parameters"].items():
        path = f"spec.parameters.{sanitise(name, 60)}"
        if name not in settings:
            _refuse(path, f"no such setting; known are {', '.join(sorted(settings))}")
        _check_schema(schema, path, None)
    for index, constraint in enumerate(spec["constraints"]):
        _check_schema(constraint, f"spec.constraints.{index}", settings)
    _check_defaults(spec)


def _refuse(path: str, why: str) -> None:
    msg = f"{path}: {why}"
    raise ValueError(msg)


# --- the schemas


def _check_schema(schema: dict[str, Any], path: str, names: set[str] | None) -> None:
    """Raise ValueError where a schema is none that a type may have; `names` are the properties that there are."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - as above
    from jsonschema.exceptions import SchemaError  # noqa: PLC0415

    _check_size(schema, path)
    for place, keyword, inside in _walk(schema, path, names):
        if keyword not in _CHECKING | _ANNOTATIONS:
            _refuse(f"{place}.{sanitise(keyword, 60)}", "no keyword for a machine type")
        if inside and keyword in ("properties", "required", "dependentRequired", "dependentSchemas"):
            unknown = sorted({name for name in inside[keyword] if isinstance(name, str)} - (names or set()))
            if unknown:
                _refuse(f"{place}.{keyword}", f"{sanitise(unknown[0], 60)} is no setting of a machine type")
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        where = ".".join([path, *(sanitise(part, 60) for part in error.absolute_path)])
        _refuse(where, f"not a JSON Schema: {sanitise(error.message, _SHOWN)}")


def _check_size(schema: dict[str, Any], path: str) -> None:
    waiting: list[tuple[Any, int]] = [(schema, 0)]
    count = 0
    while waiting:
        value, depth = waiting.pop()
        if depth > MAXIMUM_DEPTH:
            _refuse(path, f"it nests deeper than {MAXIMUM_DEPTH} levels")
        inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        count += len(inside)
        if count > MAXIMUM_NODES:
            _refuse(path, f"it has more than {MAXIMUM_NODES} values in it")
        waiting += [(item, depth + 1) for item in inside]


def _walk(schema: Any, path: str, names: set[str] | None) -> Iterator[tuple[str, str, dict[str, Any] | None]]:
    """Yield each keyword with its path; with its schema too where that is one for all values of `names` together."""
    if not isinstance(schema, dict):
        return
    for keyword, value in schema.items():
        yield path, keyword, schema if names is not None and isinstance(value, dict | list) else None
        place = f"{path}.{sanitise(keyword, 60)}"
        below = None if keyword in _GOING_INSIDE else names
        if keyword in _WITH_SCHEMA:
            yield from _walk(value, place, below)
        elif keyword in _WITH_LIST and isinstance(value, list):
            for index, item in enumerate(value):
                yield from _walk(item, f"{place}.{index}", below)
        elif keyword in _WITH_OBJECT and isinstance(value, dict):
            for name, item in value.items():
                yield from _walk(item, f"{place}.{sanitise(name, 60)}", below)


# --- the defaults


def _check_defaults(spec: dict[str, Any]) -> None:
    """Raise ValueError where a VM of this type that chooses nothing would be wrong."""
    hardware = resolve_hardware(spec, {})
    for name, schema in spec["parameters"].items():
        path = f"spec.parameters.{name}"
        value = schema.get("default", hardware[name])
        whose = f"{path}.default" if "default" in schema else path
        if error := find_setting_error(name, value) or find_error(schema, value):
            _refuse(whose, f"{sanitise(error.message, _SHOWN)}; the value without a choice has to fit")
    for most, wanted in HEADROOM.items():
        declared = spec["parameters"].get(most, {}).get("default", spec["hardware"][most])
        if 0 < declared < hardware[wanted]:
            place = f"spec.parameters.{most}.default" if most in spec["parameters"] else f"spec.hardware.{most}"
            _refuse(place, f"{declared} is less than {hardware[wanted]}, which is {wanted}; 0 leaves it out")
    if hardware["secureBoot"] and hardware["firmware"] != "uefi":
        _refuse("spec.secureBoot", "it wants firmware uefi")
    for index, constraint in enumerate(spec["constraints"]):
        if error := find_error(constraint, hardware):
            place = ".".join(str(part) for part in error.absolute_path)
            why = f"{place}: {error.message}" if place else error.message
            _refuse(f"spec.constraints.{index}", f"the type's own defaults do not fit it: {sanitise(why, _SHOWN)}")
