"""A machine type's parameters: what a VM chose of them, and the hardware that it makes.

Nothing heavy is imported here: the lists of machine types and VMs come this way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from backend.errors import RefusedError
from backend.text import sanitise

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

# Settings that stand in the type itself, not in its hardware, and what a type of an earlier shape means by its silence.
TYPE_SETTINGS: Final[dict[str, Any]] = {"firmware": "bios", "secureBoot": False, "cpuModels": []}
# What KC can do with a setting, whatever a type allows: the least and the most.
BOUNDS: Final = {"cpus": (1, 240), "memoryMiB": (64, 16 << 20), "diskGiB": (1, 1 << 20)}
# How much a running VM can be given -> what it has.
HEADROOM: Final = {"maxCpus": "cpus", "maxMemoryMiB": "memoryMiB"}

_UNITS: Final = ("MiB", "GiB", "Bytes", "Seconds")
# Decimal ones (MB, GB) are not guessed at: they are a few per cent less, and hardly anybody means that here.
_SHIFTS: Final = {"k": 10, "m": 20, "g": 30, "t": 40}
_QUANTITY: Final = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,9}))?\s*(?:([kmgt])(i?b)?)?", re.IGNORECASE)
_LONGEST_QUANTITY: Final = 60
_MOST_OPTIONS: Final = 20
_SHOWN: Final = 200


# --- what a VM gets


def fixed_settings(machine_type: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a machine type (a spec), before its parameters."""
    own = {name: machine_type.get(name, default) for name, default in TYPE_SETTINGS.items()}
    return {**machine_type.get("hardware", {}), **own}


def resolve_hardware(machine_type: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings that a machine type (a spec) makes with a VM's parameter `values`.

    `cpus`, `memoryMiB`, `diskGiB`, `maxCpus`, `maxMemoryMiB`, `firmware`, `secureBoot`, `cpuModels`: the fixed ones
    first, each parameter's default over them, then the chosen values. `maxCpus` and `maxMemoryMiB`, what the running VM
    can be given, are never below what it has.
    """
    settings = fixed_settings(machine_type)
    for name, schema in machine_type.get("parameters", {}).items():
        if "default" in schema:
            settings[name] = schema["default"]
    settings.update(values)
    # 2.0 is an integer to JSON Schema, and would be none to libvirt.
    resolved = {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in settings.items()
    }
    for most, wanted in HEADROOM.items():
        least, given = resolved.get(wanted), resolved.get(most, 0)
        if isinstance(least, int) and isinstance(given, int):
            resolved[most] = max(given, least)
    return resolved


# --- what a VM may choose


def parameters_schema(machine_type: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema object of a machine type's parameters, for a wizard page or a check of values."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": False,
        "properties": machine_type.get("parameters", {}),
    }


def check_parameters(values: dict[str, Any], machine_type: dict[str, Any], what: str) -> None:
    """Raise RefusedError for the first of `values` that the machine type (a spec) does not allow, alone or together.

    The detail `parameter` names the one at fault, where it is one.
    """
    from backend.model.type_rules import find_error, find_setting_error  # noqa: PLC0415 - jsonschema, for writers only

    known = machine_type.get("parameters", {})
    for name, value in values.items():
        if name not in known:
            hint = f"known are {', '.join(sorted(known))}" if known else "this machine type has none"
            raise RefusedError(what, f"parameter {sanitise(name, 60)}: unknown", hint, parameter=name)
        # Whatever the type allows, a setting is no more than KC can do with it.
        error = find_setting_error(name, value) or find_error(known[name], value)
        if error is not None:
            raise RefusedError(
                what,
                f"parameter {name}: {sanitise(error.message, _SHOWN)}",
                describe_limits(known[name]),
                parameter=name,
            )
    settings = resolve_hardware(machine_type, values)
    _check_headroom(values, settings, what)
    _check_secure_boot(values, settings, what)
    for constraint in machine_type.get("constraints", []):
        error = find_error(constraint, settings)
        if error is not None:
            raise _describe_breach(constraint, error, values, known, what)


def _check_headroom(values: dict[str, Any], settings: dict[str, Any], what: str) -> None:
    """Raise RefusedError where a VM asks for less than it has; what the type says by itself only gives way."""
    for most, wanted in HEADROOM.items():
        if 0 < values.get(most, 0) < settings.get(wanted, 0):
            why = f"parameter {most}: {values[most]} is less than {settings[wanted]}, which is {wanted}"
            raise RefusedError(what, why, f"set {most} to {settings[wanted]} or more", parameter=most)


def _check_secure_boot(values: dict[str, Any], settings: dict[str, Any], what: str) -> None:
    if settings.get("secureBoot") and settings.get("firmware") != "uefi":
        chosen = [name for name in ("firmware", "secureBoot") if name in values]
        details = {"parameter": chosen[0]} if chosen else {}
        raise RefusedError(what, "secure boot wants the firmware uefi", "set firmware to uefi", **details)


def _describe_breach(
    constraint: dict[str, Any],
    error: ValidationError,
    values: dict[str, Any],
    known: dict[str, Any],
    what: str,
) -> RefusedError:
    """Return the error for values that do not go together, in the words of the constraint's title where it has one."""
    conditions = constraint.get("if", {}).get("properties", {}) if isinstance(constraint.get("if"), dict) else {}
    wrong = [str(part) for part in error.absolute_path][:1]
    why = sanitise(str(constraint.get("title", "")), _SHOWN)
    if not why:
        told = [f"{name} is {describe_limits(schema) or 'such'}" for name, schema in conditions.items()]
        where = f", where {' and '.join(told)}" if told else ""
        why = sanitise(f"{': '.join([*wrong, error.message])}{where}", _SHOWN)
    # One to blame is one that can be changed: what is wrong itself, or what made it so.
    to_blame = [name for name in wrong if name in known] or [name for name in conditions if name in values]
    details = {"parameter": to_blame[0]} if len(to_blame) == 1 else {}
    return RefusedError(what, why, sanitise(str(constraint.get("description", "")), _SHOWN), **details)


# --- how it is said


def describe_limits(schema: Mapping[str, Any]) -> str:
    """Return a short text of what a parameter's schema allows, such as `1 to 4`; empty where it says nothing."""
    if "enum" in schema:
        more = ", …" if len(schema["enum"]) > _MOST_OPTIONS else ""
        return "one of " + ", ".join(json.dumps(value) for value in schema["enum"][:_MOST_OPTIONS]) + more
    if "const" in schema:
        return json.dumps(schema["const"])
    if schema.get("type") == "array" and isinstance(schema.get("items"), dict):
        inside = describe_limits(schema["items"])
        return f"a list, each {inside}" if inside else "a list"
    low, high = schema.get("minimum"), schema.get("maximum")
    unit = f" {schema['unit']}" if schema.get("unit") else ""
    if low is not None and high is not None:
        return f"{low} to {high}{unit}"
    if low is not None:
        return f"at least {low}{unit}"
    if high is not None:
        return f"at most {high}{unit}"
    return ""


def describe_constraint(constraint: Mapping[str, Any]) -> str:
    """Return what a constraint is for: its title, or what it says."""
    title = constraint.get("title") or constraint.get("description")
    return sanitise(str(title) if title else json.dumps(constraint), _SHOWN)


def unit_of(name: str, schema: Mapping[str, Any]) -> str:
    """Return the unit of a parameter: the one that its schema names, or the end of its name; empty where none is."""
    return str(schema.get("unit", "")) or next((unit for unit in _UNITS if name.endswith(unit) and name != unit), "")


def parse_quantity(text: str, unit: str) -> int:
    """Return the whole number of `unit` that a text stands for; raise ValueError saying what is wrong with it.

    With `MiB` and `GiB` the text may have a unit of its own (`2G`, `2 GiB`, `512M`, `1.5g`): binary, as a bare number
    is in `unit`.
    """
    text = text.strip()
    if not text:
        raise ValueError("a value is wanted")
    if len(text) > _LONGEST_QUANTITY:
        raise ValueError("a whole number is wanted")
    if unit not in ("MiB", "GiB"):
        try:
            return int(text)
        except ValueError:
            raise ValueError("a whole number is wanted") from None
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"a number is wanted, such as {'512M' if unit == 'MiB' else '40G'}")
    whole, decimals, prefix, mark = (match[number] or "" for number in range(1, 5))
    if mark.lower() == "b":
        raise ValueError(f"{prefix}{mark} would be a little less; write {prefix}iB, or {prefix} alone")
    own = _SHIFTS[unit[0].lower()]
    scale: int = 10 ** len(decimals)
    size, rest = divmod(int(whole + decimals) << _SHIFTS.get(prefix.lower(), own), scale << own)
    if rest:
        raise ValueError(f"{text} is no whole number of {unit}")
    return size
