"""The page that is made from a machine type's JSON Schema: which fields there are, and what they say of a text."""

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import RefusedError
from backend.model.parameters import check_parameters
from kc_tui.state.fields import Field, FieldKind, humanise, make_fields, show_option

TYPE: dict[str, Any] = {
    "hardware": {"cpus": 2, "memoryMiB": 1024, "diskGiB": 10},
    "parameters": {
        "cpus": {"type": "integer", "title": "CPUs", "minimum": 1, "maximum": 4, "default": 2},
        "memoryMiB": {"type": "integer", "minimum": 128, "multipleOf": 64},
        "load": {"type": "number", "exclusiveMinimum": 0, "maximum": 1.5, "default": 0.5},
        "nested": {"type": "boolean", "default": True, "description": "for hypervisors in it"},
        "bus": {"enum": ["virtio", "sata", 3], "default": "sata"},
        "label": {"type": "string", "minLength": 2, "maxLength": 5, "default": "none"},
    },
}


def field(name: str) -> Field:
    return next(item for item in make_fields(TYPE) if item.name == name)


def test_there_is_a_field_for_each_parameter_in_its_order():
    fields = make_fields(TYPE)
    assert [item.name for item in fields] == list(TYPE["parameters"])
    assert [item.kind for item in fields] == [
        FieldKind.INTEGER,
        FieldKind.INTEGER,
        FieldKind.NUMBER,
        FieldKind.BOOLEAN,
        FieldKind.CHOICE,
        FieldKind.TEXT,
    ]


def test_a_field_begins_with_its_default_or_with_what_the_type_fixes():
    assert [item.initial for item in make_fields(TYPE)] == ["2", "1024", "0.5", "true", "sata", "none"]


def test_titles_units_and_limits_are_told():
    memory = field("memoryMiB")
    assert (memory.title, memory.unit, memory.limits) == ("Memory", "MiB", "at least 128")
    assert field("cpus").limits == "1 to 4"
    assert field("label").limits == "2 to 5 characters"
    assert field("nested").help == "for hypervisors in it"
    assert humanise("leaseSeconds") == "Lease"
    assert humanise("bootOrder") == "Boot order"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("cpus", " 3 ", 3),
        ("memoryMiB", "128", 128),
        ("load", "1.25", 1.25),
        ("load", "1", 1),
        ("nested", "false", False),
        ("bus", "virtio", "virtio"),
        ("bus", "3", 3),
        ("label", "abc", "abc"),
    ],
)
def test_a_fitting_text_becomes_its_value(name: str, text: str, value: object):
    assert field(name).parse(text) == value
    assert field(name).complain(text) == ""


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("cpus", "", "a value is wanted"),
        ("cpus", "two", "a whole number is wanted"),
        ("cpus", "1.5", "a whole number is wanted"),
        ("cpus", "5", "1 to 4"),
        ("cpus", "0", "1 to 4"),
        ("memoryMiB", "100", "at least 128"),
        ("memoryMiB", "130", "a multiple of 64"),
        ("memoryMiB", "16923072", "64 to 16777216"),
        ("load", "0", "more than 0"),
        ("load", "inf", "a number is wanted"),
        ("load", "nan", "a number is wanted"),
        ("bus", "scsi", ""),
        ("label", "a", "2 to 5 characters"),
        ("label", "abcdef", "2 to 5 characters"),
    ],
)
def test_a_text_that_does_not_fit_is_told_in_a_few_words(name: str, text: str, complaint: str):
    with pytest.raises(ValueError, match=r"^") as raised:
        field(name).parse(text)
    assert str(raised.value) == complaint


@settings(deadline=None)
@given(st.sampled_from(["cpus", "memoryMiB", "load", "label"]), st.text(max_size=8) | st.integers().map(str))
def test_what_a_field_accepts_the_full_check_accepts_too(name: str, text: str):
    item = field(name)
    try:
        value = item.parse(text)
    except ValueError:
        return
    check_parameters({name: value}, TYPE, "VM")


@settings(deadline=None)
@given(st.integers(-10, 10))
def test_a_field_refuses_no_figure_that_the_full_check_accepts(figure: int):
    refused = field("cpus").complain(str(figure)) != ""
    try:
        check_parameters({"cpus": figure}, TYPE, "VM")
    except RefusedError:
        assert refused
    else:
        assert not refused


def test_a_pattern_from_a_document_cannot_keep_the_screen_waiting():
    bad = {"parameters": {"label": {"type": "string", "pattern": "^(a+)+$"}}}
    started = time.perf_counter()
    assert make_fields(bad)[0].complain("a" * 40 + "!") == ""
    assert time.perf_counter() - started < 2.0


def test_an_option_is_shown_as_it_is_read():
    assert [show_option(value) for value in ("a", 3, None, True)] == ["a", "3", "null", "true"]
