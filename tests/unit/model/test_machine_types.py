"""A machine type says what a VM may be; what it says is checked when it is written, and obeyed when a VM chooses."""

import subprocess
import sys
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import RefusedError
from backend.local.initialising import MACHINE_TYPES
from backend.model.parameters import (
    check_parameters,
    describe_constraint,
    describe_limits,
    parse_quantity,
    resolve_hardware,
    unit_of,
)
from backend.model.schemas import validate_document
from backend.model.type_rules import MAXIMUM_DEPTH, MAXIMUM_NODES

CPUS = {"type": "integer", "minimum": 1, "maximum": 8, "default": 1}
MEMORY = {"type": "integer", "unit": "MiB", "minimum": 128, "maximum": 8192, "default": 512}
FOUR_WANT_TWO = {
    "if": {"properties": {"cpus": {"minimum": 4}}},
    "then": {"properties": {"memoryMiB": {"minimum": 2048}}},
}


def machine_type(**spec: Any) -> dict[str, Any]:
    """Return a machine type's spec as it is stored."""
    return validate_document({"kind": "MachineType", "name": "any", "spec": spec})["spec"]


def refusal(**spec: Any) -> str:
    with pytest.raises(RefusedError) as caught:
        machine_type(**spec)
    assert str(caught.value).isprintable()
    return caught.value.why


def breach(spec: dict[str, Any], **values: Any) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        check_parameters(values, spec, "VM web")
    assert str(caught.value).isprintable()
    return caught.value


# --- what a VM gets


def test_a_choice_stands_over_a_default_and_a_default_over_what_is_fixed() -> None:
    spec = machine_type(
        firmware="uefi", cpuModels=["EPYC"], hardware={"cpus": 4, "diskGiB": 7}, parameters={"cpus": CPUS}
    )
    assert resolve_hardware(spec, {}) == {
        "cpus": 1, "memoryMiB": 512, "diskGiB": 7, "maxCpus": 1, "maxMemoryMiB": 512,
        "firmware": "uefi", "secureBoot": False, "cpuModels": ["EPYC"],
    }  # fmt: skip
    assert resolve_hardware(spec, {"cpus": 3})["cpus"] == 3


def test_every_setting_of_the_type_itself_can_be_a_parameter() -> None:
    spec = machine_type(
        firmware="uefi",
        parameters={
            "firmware": {"enum": ["bios", "uefi"]},
            "secureBoot": {"type": "boolean", "default": True},
            "cpuModels": {"type": "array", "items": {"enum": ["EPYC", "Nehalem"]}, "default": ["EPYC"]},
            "maxCpus": {"type": "integer", "maximum": 8},
            "maxMemoryMiB": {"type": "integer"},
        },
    )
    unchosen = resolve_hardware(spec, {})
    assert (unchosen["firmware"], unchosen["secureBoot"], unchosen["cpuModels"]) == ("uefi", True, ["EPYC"])
    values = {"firmware": "bios", "secureBoot": False, "cpuModels": ["Nehalem"], "maxCpus": 4, "maxMemoryMiB": 1024}
    check_parameters(values, spec, "VM web")
    assert {name: resolve_hardware(spec, values)[name] for name in values} == values


def test_headroom_is_never_below_what_a_vm_has() -> None:
    spec = machine_type(hardware={"maxCpus": 2, "maxMemoryMiB": 1024}, parameters={"cpus": CPUS, "memoryMiB": MEMORY})
    assert resolve_hardware(spec, {"cpus": 8, "memoryMiB": 768}) | {"maxCpus": 8, "maxMemoryMiB": 1024} == (
        resolve_hardware(spec, {"cpus": 8, "memoryMiB": 768})
    )
    check_parameters({"cpus": 8, "memoryMiB": 8192}, spec, "VM web")


def test_a_figure_without_decimals_becomes_whole() -> None:
    spec = machine_type(parameters={"cpus": CPUS})
    check_parameters({"cpus": 2.0}, spec, "VM web")
    assert [type(resolve_hardware(spec, {"cpus": 2.0})[name]) for name in ("cpus", "maxCpus")] == [int, int]


def test_a_type_of_the_time_before_headroom_still_resolves() -> None:
    old = {"hardware": {"cpus": 2, "memoryMiB": 1024, "diskGiB": 10}, "parameters": {"cpus": CPUS}}
    assert resolve_hardware(old, {"cpus": 4})["maxCpus"] == 4
    check_parameters({"cpus": 4}, old, "VM web")


def test_the_way_of_the_lists_imports_nothing_heavy() -> None:
    script = "import sys, backend.model.parameters; print(*{'jsonschema', 'pydantic', 'yaml'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == ""


# --- what a VM may choose


def test_what_the_type_does_not_offer_is_refused_by_name() -> None:
    error = breach(machine_type(parameters={"cpus": CPUS}), memoryMiB=1024)
    assert (error.details, error.hint) == ({"parameter": "memoryMiB"}, "known are cpus")


@pytest.mark.parametrize("value", [0, 9, "2", True, None, 1.5, [1]], ids=str)
def test_a_value_outside_its_schema_is_refused_with_the_limits(value: object) -> None:
    error = breach(machine_type(parameters={"cpus": CPUS}), cpus=value)
    assert error.details == {"parameter": "cpus"}
    assert error.hint == "1 to 8"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cpus", 241),
        ("cpus", "two"),
        ("memoryMiB", 1),
        ("diskGiB", 0),
        ("firmware", "coreboot"),
        ("secureBoot", "yes"),
        ("cpuModels", "EPYC"),
        ("cpuModels", ["EPYC</model>"]),
        ("cpuModels", ["EPYC\n"]),
        ("cpuModels", ["EPYC"] * 17),
    ],
)
def test_no_type_can_offer_more_than_kc_can_do(name: str, value: object) -> None:
    assert breach(machine_type(parameters={name: {}}), **{name: value}).details == {"parameter": name}


def test_headroom_that_a_vm_chooses_has_to_be_headroom() -> None:
    spec = machine_type(parameters={"memoryMiB": MEMORY, "maxMemoryMiB": {"type": "integer"}})
    error = breach(spec, memoryMiB=2048, maxMemoryMiB=1024)
    assert error.details == {"parameter": "maxMemoryMiB"}
    assert error.why == "parameter maxMemoryMiB: 1024 is less than 2048, which is memoryMiB"
    check_parameters({"memoryMiB": 2048, "maxMemoryMiB": 0}, spec, "VM web")


def test_secure_boot_wants_uefi() -> None:
    assert refusal(secureBoot=True) == "spec.secureBoot: it wants firmware uefi"
    spec = machine_type(parameters={"secureBoot": {"type": "boolean"}})
    assert breach(spec, secureBoot=True).details == {"parameter": "secureBoot"}
    check_parameters({"secureBoot": True}, machine_type(firmware="uefi", parameters={"secureBoot": {}}), "VM web")


# --- what goes together


def test_a_constraint_looks_at_all_values_defaults_and_fixed_ones_too() -> None:
    spec = machine_type(parameters={"cpus": CPUS, "memoryMiB": MEMORY}, constraints=[FOUR_WANT_TWO])
    error = breach(spec, cpus=4)
    assert error.why == "memoryMiB: 512 is less than the minimum of 2048, where cpus is at least 4"
    assert error.details == {"parameter": "memoryMiB"}
    for values in ({"cpus": 4, "memoryMiB": 2048}, {"cpus": 3}, {"memoryMiB": 8192}):
        check_parameters(values, spec, "VM web")


def test_the_one_to_blame_is_one_that_can_be_changed() -> None:
    spec = machine_type(parameters={"cpus": CPUS}, constraints=[FOUR_WANT_TWO])
    assert breach(spec, cpus=4).details == {"parameter": "cpus"}


def test_a_constraint_speaks_through_its_title() -> None:
    said = {**FOUR_WANT_TWO, "title": "4 CPUs want 2 GiB \x1b[2J", "description": "or fewer CPUs"}
    spec = machine_type(parameters={"cpus": CPUS, "memoryMiB": MEMORY}, constraints=[said])
    error = breach(spec, cpus=4)
    assert (error.why, error.hint) == ("4 CPUs want 2 GiB \ufffd[2J", "or fewer CPUs")
    assert describe_constraint(said) == "4 CPUs want 2 GiB \ufffd[2J"


def test_what_fits_none_of_several_is_to_blame_on_none() -> None:
    either = {"anyOf": [{"properties": {"cpus": {"maximum": 2}}}, {"properties": {"memoryMiB": {"minimum": 1024}}}]}
    spec = machine_type(parameters={"cpus": CPUS, "memoryMiB": MEMORY}, constraints=[either])
    assert breach(spec, cpus=3).details == {}


# --- what a type may say


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"cores": {}}, "spec.parameters.cores: no such setting"),
        ({"cpus": {"minimum": "1"}}, "spec.parameters.cpus.minimum: not a JSON Schema"),
        ({"cpus": {"type": "whole"}}, "spec.parameters.cpus.type: not a JSON Schema"),
        ({"cpus": {"default": 9, "maximum": 8}}, "spec.parameters.cpus.default: 9 is greater"),
        ({"cpus": {"default": 300}}, "spec.parameters.cpus.default: 300 is greater"),
        ({"cpus": {"minimum": 2}}, "spec.parameters.cpus: 1 is less"),
        ({"cpus": {"$ref": "http://127.0.0.1/x"}}, "spec.parameters.cpus.$ref: no keyword"),
        ({"cpus": {"$dynamicRef": "#"}}, "spec.parameters.cpus.$dynamicRef: no keyword"),
        ({"cpus": {"$id": "x"}}, "spec.parameters.cpus.$id: no keyword"),
        ({"firmware": {"pattern": "^(a+)+$"}}, "spec.parameters.firmware.pattern: no keyword"),
        ({"cpuModels": {"items": {"pattern": "x"}}}, "spec.parameters.cpuModels.items.pattern: no keyword"),
        ({"cpus": {"anyOf": [{}, {"not": {"format": "x"}}]}}, "spec.parameters.cpus.anyOf.1.not.format: no keyword"),
    ],
)
def test_a_parameter_that_is_wrong_in_itself_is_refused_with_its_path(parameters: dict, said: str) -> None:
    assert refusal(parameters=parameters).startswith(said)


@pytest.mark.parametrize(
    ("constraint", "said"),
    [
        ({"if": {"properties": {"cores": {}}}}, "spec.constraints.0.if.properties: cores is no setting"),
        ({"required": ["cores"]}, "spec.constraints.0.required: cores is no setting"),
        ({"patternProperties": {"(a+)+$": {}}}, "spec.constraints.0.patternProperties: no keyword"),
        ({"allOf": [{"then": {"$ref": "#"}}]}, "spec.constraints.0.allOf.0.then.$ref: no keyword"),
        ({"minimum": []}, "spec.constraints.0.minimum: not a JSON Schema"),
        (
            {"properties": {"cpus": {"minimum": 2}}},
            "spec.constraints.0: the type's own defaults do not fit it: cpus: 1",
        ),
        ({"not": {}}, "spec.constraints.0: the type's own defaults do not fit it"),
    ],
)
def test_a_constraint_that_is_wrong_in_itself_is_refused_with_its_path(constraint: dict, said: str) -> None:
    assert refusal(constraints=[constraint]).startswith(said)


def test_a_type_whose_headroom_is_none_is_refused() -> None:
    assert refusal(hardware={"cpus": 4, "maxCpus": 2}).startswith("spec.hardware.maxCpus: 2 is less than 4")
    parameters = {"maxMemoryMiB": {"default": 256}}
    assert refusal(parameters=parameters).startswith("spec.parameters.maxMemoryMiB.default: 256 is less than 512")


def test_a_deep_or_long_schema_is_refused_at_once() -> None:
    deep: dict[str, Any] = {}
    for _ in range(MAXIMUM_DEPTH + 1):
        deep = {"not": deep}
    long = {"enum": list(range(MAXIMUM_NODES + 1))}
    started = time.perf_counter()
    assert "nests deeper" in refusal(constraints=[deep])
    assert "nests deeper" in refusal(parameters={"cpus": {"default": [[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]}})
    assert "more than" in refusal(parameters={"cpus": long})
    assert time.perf_counter() - started < 2


def test_a_bad_pattern_that_was_stored_long_ago_keeps_nobody_waiting() -> None:
    old = {"hardware": {}, "parameters": {"cpuModels": {"items": {"type": "string", "pattern": "^(A+)+$"}}}}
    started = time.perf_counter()
    check_parameters({"cpuModels": ["A" * 50 + "-"]}, old, "VM web")
    assert time.perf_counter() - started < 2


KEYWORDS = st.sampled_from(
    ["if", "then", "not", "anyOf", "properties", "required", "cpus", "minimum", "enum", "items", "type", "$ref", "x"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 9) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYWORDS, inner, max_size=4),
    max_leaves=12,
)


def told(action: Any, *arguments: Any) -> RefusedError | None:
    """Return what an action refused, or None where it did its work."""
    try:
        action(*arguments)
    except RefusedError as error:
        return error
    return None


@settings(deadline=None, max_examples=150)
@given(st.dictionaries(KEYWORDS, JSON, max_size=4), st.dictionaries(KEYWORDS, JSON, max_size=4))
def test_any_schema_is_taken_and_works_or_is_refused_with_a_path(schema: dict, constraint: dict) -> None:
    spec = {"parameters": {"cpus": schema}, "constraints": [constraint]}
    wrong = told(lambda: machine_type(**spec))
    if wrong is not None:
        assert wrong.why.startswith(("spec.parameters.cpus", "spec.constraints.0"))
        return
    check_parameters({}, machine_type(**spec), "VM web")
    refused = told(check_parameters, {"cpus": 7}, machine_type(**spec), "VM web")
    assert refused is None or refused.details in ({}, {"parameter": "cpus"})


# --- how it is said


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"minimum": 1, "maximum": 4, "unit": "GiB"}, "1 to 4 GiB"),
        ({"minimum": 1}, "at least 1"),
        ({"maximum": 4}, "at most 4"),
        ({"enum": ["a", 1]}, 'one of "a", 1'),
        ({"const": True}, "true"),
        ({"type": "array", "items": {"enum": ["a"]}}, 'a list, each one of "a"'),
        ({"type": "array"}, ""),
        ({}, ""),
    ],
    ids=str,
)
def test_limits_are_told_in_a_few_words(schema: dict, text: str) -> None:
    assert describe_limits(schema) == text


def test_a_unit_is_named_by_the_schema_or_by_the_name() -> None:
    assert [unit_of("memoryMiB", {}), unit_of("cpus", {}), unit_of("disk", {"unit": "GiB"})] == ["MiB", "", "GiB"]


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("2048", "MiB", 2048),
        (" 2G ", "MiB", 2048),
        ("2 GiB", "MiB", 2048),
        ("1.5g", "MiB", 1536),
        ("512M", "MiB", 512),
        ("2048k", "MiB", 2),
        ("1T", "GiB", 1024),
        ("10240 mib", "GiB", 10),
        ("40", "GiB", 40),
        ("4", "", 4),
        ("-4", "", -4),
    ],
)
def test_a_quantity_is_read_in_the_unit_that_is_wanted(text: str, unit: str, value: int) -> None:
    assert parse_quantity(text, unit) == value


@pytest.mark.parametrize(
    ("text", "unit", "said"),
    [
        ("", "MiB", "a value is wanted"),
        ("two", "GiB", "a number is wanted, such as 40G"),
        ("2GB", "MiB", "GB would be a little less; write GiB, or G alone"),
        ("1536M", "GiB", "1536M is no whole number of GiB"),
        ("-2G", "MiB", "a number is wanted, such as 512M"),
        ("2,000G", "MiB", "a number is wanted, such as 512M"),
        ("1e9", "MiB", "a number is wanted, such as 512M"),
        ("9" * 5000, "", "a whole number is wanted"),
        ("2G", "", "a whole number is wanted"),
    ],
)
def test_what_is_no_quantity_is_told_why(text: str, unit: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"^") as raised:
        parse_quantity(text, unit)
    assert str(raised.value) == said


@given(st.integers(0, 10**9), st.sampled_from(["MiB", "GiB"]))
def test_a_bare_figure_and_one_with_the_unit_are_the_same(figure: int, unit: str) -> None:
    assert parse_quantity(f"{figure}{unit}", unit) == parse_quantity(str(figure), unit) == figure


# --- the default types


@pytest.mark.parametrize("name", sorted(MACHINE_TYPES))
def test_a_default_type_is_one_that_the_model_takes_and_leaves_room_to_grow(name: str) -> None:
    spec = machine_type(**MACHINE_TYPES[name])
    hardware = resolve_hardware(spec, {})
    assert hardware["maxMemoryMiB"] == 2 * hardware["memoryMiB"]
    most = spec["parameters"]["cpus"]["maximum"]
    assert hardware["maxCpus"] == (most if spec["arch"] == "x86_64" else hardware["cpus"])
    check_parameters({name: schema["maximum"] for name, schema in spec["parameters"].items()}, spec, "VM web")


def test_there_is_a_type_for_the_other_architecture() -> None:
    spec = machine_type(**MACHINE_TYPES["arm-tiny"])
    assert (spec["arch"], spec["firmware"], spec["cpuModels"]) == ("aarch64", "uefi", ["cortex-a57"])
    assert spec["hardware"] | {"cpus": 1, "memoryMiB": 512, "diskGiB": 2} == spec["hardware"]
