"""A machine type's parameters: JSON Schema properties, their defaults, and the hardware that they make."""

from __future__ import annotations

import json
from typing import Any

from backend.errors import RefusedError
from backend.text import sanitise


def check_parameter_schemas(parameters: dict[str, dict[str, Any]], settings: set[str]) -> None:
    """Raise ValueError where a parameter is no JSON Schema, has no fitting default or overrides no known setting."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - 0.1 s, needed by writers only
    from jsonschema.exceptions import SchemaError  # noqa: PLC0415

    for name, schema in parameters.items():
        if name not in settings:
            msg = f"parameters.{name}: no such setting; known are {', '.join(sorted(settings))}"
            raise ValueError(msg)
        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            msg = f"parameters.{name}: not a JSON Schema: {error.message}"
            raise ValueError(msg) from error
        if "default" in schema and not Draft202012Validator(schema).is_valid(schema["default"]):
            msg = f"parameters.{name}: the default does not fit its own schema"
            raise ValueError(msg)


def parameters_schema(machine_type: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema object of a machine type's parameters, for a wizard page or a check of values."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "additionalProperties": False,
        "properties": machine_type.get("parameters", {}),
    }


def check_parameters(values: dict[str, Any], machine_type: dict[str, Any], what: str) -> None:
    """Raise RefusedError naming the first of `values` that the machine type (a spec) does not allow."""
    from jsonschema import Draft202012Validator  # noqa: PLC0415 - 0.1 s, needed by writers only

    known = machine_type.get("parameters", {})
    for name, value in values.items():
        if name not in known:
            hint = f"known are {', '.join(sorted(known))}" if known else "this machine type has none"
            raise RefusedError(what, f"parameter {sanitise(name, 60)}: unknown", hint, parameter=name)
        error = next(Draft202012Validator(known[name]).iter_errors(value), None)
        if error is not None:
            raise RefusedError(
                what, f"parameter {name}: {sanitise(error.message, 200)}", describe_limits(known[name]), parameter=name
            )


def describe_limits(schema: dict[str, Any]) -> str:
    """Return a short text of what a parameter's schema allows, such as `1 to 4`; empty where it says nothing."""
    if "enum" in schema:
        return "one of " + ", ".join(json.dumps(value) for value in schema["enum"])
    low, high = schema.get("minimum"), schema.get("maximum")
    unit = f" {schema['unit']}" if schema.get("unit") else ""
    if low is not None and high is not None:
        return f"{low} to {high}{unit}"
    if low is not None:
        return f"at least {low}{unit}"
    if high is not None:
        return f"at most {high}{unit}"
    return ""


def resolve_hardware(machine_type: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Return the hardware that a machine type (a spec) makes with a VM's parameter `values`.

    The fixed settings come first, each parameter's default over them, then the chosen values.
    """
    hardware = dict(machine_type.get("hardware", {}))
    for name, schema in machine_type.get("parameters", {}).items():
        if "default" in schema:
            hardware[name] = schema["default"]
    hardware.update(values)
    return hardware
