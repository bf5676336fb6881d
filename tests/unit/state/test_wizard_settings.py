"""Fields for every kind of a machine type's setting, and what the detail pane says of a type."""

from typing import Any

import pytest

from backend.local.initialising import MACHINE_TYPES
from backend.model.parameters import check_parameters
from backend.model.schemas import validate_document
from kc_tui.state.fields import Field, FieldKind, make_fields
from kc_tui.state.glyphs import UNICODE
from kc_tui.state.machine_types import describe

SPEC: dict[str, Any] = {
    "firmware": "uefi",
    "cpuModels": ["EPYC", "host-model"],
    "hardware": {"cpus": 2, "memoryMiB": 1024, "diskGiB": 10, "maxCpus": 4, "maxMemoryMiB": 0},
    "parameters": {
        "memoryMiB": {"type": "integer", "title": "Memory", "unit": "MiB", "minimum": 512},
        "diskGiB": {"type": "integer", "maximum": 100},
        "cpus": {"minimum": 1, "maximum": 8},
        "firmware": {"enum": ["bios", "uefi"]},
        "secureBoot": {"type": "boolean"},
        "cpuModels": {"type": "array", "items": {"enum": ["EPYC", "host-model", "Nehalem"]}, "maxItems": 2},
        "maxMemoryMiB": {"type": "integer"},
    },
    "constraints": [
        {
            "title": "4 CPUs want 2 GiB",
            "if": {"properties": {"cpus": {"minimum": 4}}},
            "then": {"properties": {"memoryMiB": {"minimum": 2048}}},
        },
        {"properties": {"diskGiB": {"minimum": 1}}},
    ],
}


def field(name: str) -> Field:
    return next(item for item in make_fields(SPEC) if item.name == name)


def lines(spec: dict[str, Any]) -> list[str]:
    document = validate_document({"kind": "MachineType", "name": "any", "spec": spec})
    return ["".join(run.text for run in line).rstrip() for line in describe(document, None, UNICODE)]


def test_there_is_a_field_for_each_kind_of_setting_that_begins_with_what_the_type_has() -> None:
    assert {item.name: (item.kind, item.initial) for item in make_fields(SPEC)} == {
        "memoryMiB": (FieldKind.INTEGER, "1024"),
        "diskGiB": (FieldKind.INTEGER, "10"),
        "cpus": (FieldKind.INTEGER, "2"),
        "firmware": (FieldKind.CHOICE, "uefi"),
        "secureBoot": (FieldKind.BOOLEAN, "false"),
        "cpuModels": (FieldKind.LIST, "EPYC, host-model"),
        "maxMemoryMiB": (FieldKind.INTEGER, "1024"),
    }
    assert all(item.complain(item.initial) == "" for item in make_fields(SPEC))


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("memoryMiB", "2G", 2048),
        ("memoryMiB", "2 GiB", 2048),
        ("memoryMiB", "768", 768),
        ("diskGiB", "20480M", 20),
        ("cpus", " 3 ", 3),
        ("cpuModels", "Nehalem", ["Nehalem"]),
        ("cpuModels", " EPYC ,Nehalem,", ["EPYC", "Nehalem"]),
        ("cpuModels", "", []),
        ("secureBoot", "true", True),
        ("maxMemoryMiB", "2g", 2048),
    ],
)
def test_a_text_becomes_a_value_that_the_full_check_takes(name: str, text: str, value: object) -> None:
    assert field(name).parse(text) == value
    check_parameters({name: value}, SPEC, "VM web")


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("memoryMiB", "256M", "at least 512 MiB"),
        ("memoryMiB", "2GB", "GB would be a little less; write GiB, or G alone"),
        ("memoryMiB", "much", "a number is wanted, such as 512M"),
        ("diskGiB", "1T", "at most 100"),
        ("diskGiB", "512M", "512M is no whole number of GiB"),
        ("cpuModels", "EPYC, Nehalem, host-model", "at most 2 of them"),
        ("cpuModels", "Epyc", "Epyc is none of EPYC, host-model, Nehalem"),
        ("cpus", "2G", "a whole number is wanted"),
    ],
)
def test_what_does_not_fit_is_told_in_a_few_words(name: str, text: str, complaint: str) -> None:
    assert field(name).complain(text) == complaint


def test_a_list_has_its_own_limits() -> None:
    schema = {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True}
    (item,) = make_fields({"parameters": {"cpuModels": schema}})
    assert [item.complain(text) for text in ("", "a a", "a b")] == [
        "at least 1 of them",
        "one of them is there twice",
        "",
    ]


def test_the_pane_tells_headroom_firmware_models_and_what_goes_together() -> None:
    text = "\n".join(lines(SPEC))
    assert "2  up to 4 while it runs" in text
    assert "EPYC, else host-model" in text
    assert "x86_64  uefi" in text
    assert "4 CPUs want 2 GiB" in text
    assert "secure boot" not in text
    assert "x86_64  uefi, secure boot" in "\n".join(lines({**SPEC, "secureBoot": True}))


def test_a_type_without_headroom_promises_none() -> None:
    assert "while it runs" not in "\n".join(lines({"hardware": {"cpus": 2, "maxCpus": 2}}))


@pytest.mark.parametrize("name", sorted(MACHINE_TYPES))
def test_a_default_type_fits_the_pane(name: str) -> None:
    assert max(len(line) for line in lines(MACHINE_TYPES[name])) <= 48
