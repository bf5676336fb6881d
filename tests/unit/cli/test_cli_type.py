"""`kc type create` and `kc type show`, with all that a machine type can say."""

import json

import pytest
from support.command_line import CommandLine

from backend.model.schemas import validate_document
from kc_tui.cli.type_details import describe_type

SIZE = ("--cpus", "1", "--memory", "1024", "--disk", "10")
CONSTRAINT = {
    "title": "4 CPUs want 4 GiB",
    "if": {"properties": {"cpus": {"minimum": 4}}},
    "then": {"properties": {"memoryMiB": {"minimum": 4096}}},
}


@pytest.fixture
def kc(capsys):
    return CommandLine(capsys)


def created(kc, *arguments):
    assert kc("type", "create", "t", *SIZE, *arguments).code == 0
    (call,) = [call for call in kc.service.calls if call[0] == "create"]
    return call[1]


def shown(spec):
    document = validate_document({"kind": "MachineType", "name": "t", "spec": spec})
    return list(describe_type(document))


def test_every_flag_ends_in_the_document(kc):
    document = created(
        kc,
        *("--firmware", "uefi", "--secure-boot", "--cpu-model", "EPYC", "--cpu-model", "host-model"),
        *("--max-cpus", "4", "--max-memory", "4096", "--constraint", json.dumps(CONSTRAINT)),
        *("--constraint", '{"required": ["cpus"]}', "--description", "for all"),
    )
    assert document["spec"] == {
        "target": "vm",
        "arch": "x86_64",
        "firmware": "uefi",
        "secureBoot": True,
        "cpuModels": ["EPYC", "host-model"],
        "description": "for all",
        "hardware": {"cpus": 1, "memoryMiB": 1024, "diskGiB": 10, "maxCpus": 4, "maxMemoryMiB": 4096},
        "parameters": {},
        "constraints": [CONSTRAINT, {"required": ["cpus"]}],
    }
    validate_document(document)


def test_a_type_for_aarch64_has_uefi_by_itself(kc):
    assert created(kc, "--arch", "aarch64")["spec"]["firmware"] == "uefi"


def test_a_type_has_a_bios_by_itself(kc):
    assert created(kc)["spec"]["firmware"] == "bios"


@pytest.mark.parametrize("flags", [("--constraint", "4"), ("--max-cpus", "0"), ("--firmware", "coreboot")])
def test_a_flag_that_is_none_is_wrong_usage(kc, flags):
    assert kc("type", "create", "t", *SIZE, *flags).code == 2


def test_what_a_type_says_is_told_in_lines():
    spec = {
        "description": "for all",
        "firmware": "uefi",
        "secureBoot": True,
        "cpuModels": ["EPYC", "host-model"],
        "hardware": {"cpus": 1, "memoryMiB": 1024, "diskGiB": 10, "maxCpus": 4},
        "parameters": {
            "cpus": {"type": "integer", "minimum": 1, "maximum": 8},
            "firmware": {"enum": ["uefi"]},
            "maxMemoryMiB": {"type": "integer", "maximum": 4096},
        },
        "constraints": [CONSTRAINT, {"required": ["cpus"]}],
    }
    assert shown(spec) == [
        ("description", "for all"),
        ("arch", "x86_64"),
        ("cpus", "1, 1 to 8: --set cpus=…"),
        ("memoryMiB", "1024, fixed"),
        ("diskGiB", "10, fixed"),
        ("firmware", 'uefi, one of "uefi": --set firmware=…'),
        ("secure boot", "yes, fixed"),
        ("CPU model", "EPYC, else host-model, fixed"),
        ("while it runs", "cpus up to 4"),
        ("while it runs", "maxMemoryMiB up to 1024, at most 4096: --set maxMemoryMiB=…"),
        ("together", "4 CPUs want 4 GiB"),
        ("together", '{"required": ["cpus"]}'),
    ]


def test_what_a_type_does_not_have_is_not_told():
    labels = [label for label, _text in shown({})]
    assert labels == ["arch", "cpus", "memoryMiB", "diskGiB", "firmware", "secure boot"]


def test_the_models_that_a_vm_may_choose_are_told_even_where_there_is_none_yet():
    found = dict(shown({"parameters": {"cpuModels": {"type": "array", "items": {"enum": ["EPYC"]}}}}))
    assert found["CPU model"] == 'any, a list, each one of "EPYC": --set cpuModels=…'
