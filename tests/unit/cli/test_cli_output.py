"""Tables, JSON, YAML and names: nothing lost for programs, nothing unsafe for terminals."""

from __future__ import annotations

import io
import json

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from support.command_line import CommandLine

from backend.service import Finding
from backend.text import sanitise
from kc_tui.cli.output import format_json
from kc_tui.cli.table import Cell, Column, clip, is_coloured, measure, render
from kc_tui.yaml_text import format_yaml

HOSTILE = "web\x1b]52;c;ZXZpbA==\x07\u202egpj.exe\n[@click=app.quit]\x9b31m"
UNSAFE = set(map(chr, [*range(0x20), *range(0x7F, 0xA0), 0x202E, 0x200B, 0xFEFF]))


@pytest.fixture(autouse=True)
def _home(monkeypatch, tmp_path):
    monkeypatch.setenv("KC_HOME", str(tmp_path))


@pytest.fixture
def kc(capsys):
    return CommandLine(capsys)


def is_safe(text: str) -> bool:
    return not (set(text) - {"\n"}) & UNSAFE


@settings(deadline=None, max_examples=60)
@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.dictionaries(st.text(), inner))
)
def test_json_is_lossless_and_safe(value):
    text = format_json(value)
    assert json.loads(text) == value
    assert is_safe(text)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(st.text(max_size=8), st.text(max_size=20), max_size=3))
def test_yaml_is_lossless_and_safe(value):
    text = format_yaml(value)
    assert yaml.safe_load(text) == value
    assert is_safe(text)


def test_json_and_yaml_leave_what_people_write_readable():
    assert "Grünkohl 🥬" in format_json({"dish": "Grünkohl 🥬"})
    assert "Grünkohl 🥬" in format_yaml({"dish": "Grünkohl 🥬"})
    assert format_json("\U000e0041") == '"\\udb40\\udc41"'


def test_a_list_in_json_is_what_http_gives(kc):
    for name in ("a", "b", "c"):
        kc.service.add_vm(name)
    page = kc("vm", "list", "-o", "json", "--limit", "2").json()
    assert list(page) == ["items", "continue", "revision"]
    assert [item["name"] for item in page["items"]] == ["a", "b"]
    assert page["continue"] == "b"
    rest = kc("vm", "list", "-o", "json", "--limit", "2", "--continue", page["continue"]).json()
    assert [item["name"] for item in rest["items"]] == ["c"]
    assert rest["continue"] is None
    assert rest["revision"] == 3


def test_the_same_list_in_every_form(kc):
    kc.service.add_vm("web")
    kc.service.add_vm("db")
    assert kc("vm", "list", "-o", "name").out == "db\nweb\n"
    assert yaml.safe_load(kc("vm", "list", "-o", "yaml").out) == kc("vm", "list", "-o", "json").json()
    assert [line.split()[0] for line in kc("vm", "list").out.splitlines()] == ["NAME", "db", "web"]


def test_an_empty_list_says_how_to_begin_but_not_to_programs(kc):
    empty = kc("vm", "list")
    assert empty.out == ""
    assert empty.err == "kc: no VMs; make one with kc vm create NAME --image I --network N --type T\n"
    assert kc("vm", "list", "-q").err == ""
    quiet = kc("vm", "list", "-o", "json")
    assert quiet.json() == {"items": [], "continue": None, "revision": 0}
    assert quiet.err == ""
    assert kc("vm", "list", "-l", "a=b").err == "kc: no VMs match a=b\n"


def test_warnings_go_to_stderr_alone(kc):
    kc.service.warnings = ["libvirt at qemu:///system: does not\x1b[2J answer"]
    result = kc("vm", "list", "-o", "json")
    assert result.json()["items"] == []
    assert result.err == "kc: warning: libvirt at qemu:///system: does not\ufffd[2J answer\n"


def test_hostile_names_reach_no_terminal(kc):
    kc.service.add_vm(
        HOSTILE, status={"addresses": [{"address": HOSTILE, "source": HOSTILE}]}, metadata={HOSTILE: HOSTILE}
    )
    for arguments in (
        ("vm", "list"),
        ("vm", "list", "-o", "name"),
        ("vm", "show", HOSTILE),
        ("vm", "show", "x" + HOSTILE),
    ):
        result = kc(*arguments)
        assert is_safe(result.out)
        assert is_safe(result.err)
        assert "�" in result.out + result.err
    assert kc("vm", "list", "-o", "json").json()["items"][0]["name"] == HOSTILE
    assert is_safe(kc("vm", "list", "-o", "json").out)
    assert kc("vm", "show", HOSTILE, "-o", "name").out.count("\n") == 1


def test_show_gives_one_document_as_itself_and_several_as_items(kc):
    kc.service.add_vm("web")
    kc.service.add_vm("db")
    assert kc("vm", "show", "web", "-o", "json").json()["name"] == "web"
    assert [item["name"] for item in kc("vm", "show", "web", "db", "-o", "json").json()["items"]] == ["web", "db"]
    partly = kc("vm", "show", "web", "gone", "-o", "json")
    assert partly.code == 3
    assert [item["name"] for item in partly.json()["items"]] == ["web"]
    assert partly.problem()["code"] == "not-found"


STATES = [
    ({"power": "running"}, "running"),
    ({"power": "absent"}, "missing"),
    ({"power": "stopped", "stale": True}, "stopped, stale"),
    ({"power": "running", "foreign": True}, "running, foreign"),
    ({"power": "absent", "operation": {"type": "vm.create", "state": "running", "percent": 40}}, "creating 40 %"),
]


@pytest.mark.parametrize(("status", "words"), STATES)
def test_states_are_words(kc, status, words):
    kc.service.add_vm("web", status=status)
    assert f"  {words}  " in kc("vm", "list").out


def test_the_useful_address_comes_first_with_where_it_was_learned(kc):
    addresses = [
        {"address": "fe80::1", "family": "ipv6", "source": "agent"},
        {"address": "fd00::7", "family": "ipv6", "source": "agent"},
        {"address": "10.0.0.7", "family": "ipv4", "source": "lease"},
    ]
    kc.service.add_vm("web", status={"addresses": addresses})
    line = kc("vm", "list").out.splitlines()[1]
    assert line.split() == ["web", "running", "1", "512", "MiB", "10.0.0.7", "+2", "lease", "tiny", "starter"]


def test_each_kind_has_its_columns_and_details(kc):
    size = {"sizeBytes": 1 << 20, "virtualSizeBytes": 64 << 20}
    kc.service.add(
        "Image", "starter", spec={"arch": "x86_64", "format": "raw", "digest": "sha256:ab", "source": "s", **size}
    )
    sides = {"ipv4": {"subnet": "10.0.0.0/24", "mode": "dhcp"}, "ipv6": {"subnet": "", "mode": "none"}}
    kc.service.add(
        "Network", "default", spec={"uplink": "nat", "gateway": "host", **sides, "dns": ["10.0.0.1"], "mtu": 1400}
    )
    parameters = {"cpus": {"type": "integer", "minimum": 1, "maximum": 4, "default": 2}}
    hardware = {"cpus": 1, "memoryMiB": 512, "diskGiB": 2}
    kc.service.add(
        "MachineType",
        "tiny",
        spec={"arch": "x86_64", "firmware": "bios", "hardware": hardware, "parameters": parameters},
    )
    error = {"title": "VM web", "detail": "no room", "hint": "make some"}
    status = {
        "state": "failed",
        "percent": 50,
        "error": error,
        "steps": [{"title": "making the disk", "state": "failed"}],
    }
    kc.service.add("Operation", "op-1", spec={"type": "vm.create", "target": {"name": "web"}}, status=status)
    assert "64 MiB   1 MiB" in kc("image", "list").out
    assert "10.0.0.0/24 dhcp" in kc("network", "list").out
    assert "cpus 1 to 4" in kc("type", "list").out
    assert "vm.create web  failed" in kc("op", "list").out
    assert "VM web: no room" in kc("op", "list").out
    assert "digest   sha256:ab" in kc("image", "show", "starter").out
    assert "ipv6     none" in kc("network", "show", "default").out
    assert "2, 1 to 4: --set cpus=…" in kc("type", "show", "tiny").out
    assert "512, fixed" in kc("type", "show", "tiny").out
    assert "VM web: no room. make some" in kc("op", "show", "op-1").out


def test_metadata_is_shown_as_json(kc):
    kc.service.add_vm("web", metadata={"owner": {"id": 7}})
    assert '"id": 7' in kc("vm", "show", "web").out


def test_numbers_stand_to_the_right_and_widths_are_cells():
    lines = render((Column("NAME"), Column("CPUS", right=True)), [("日本", "1"), ("web-1", "12")])
    assert lines == ["NAME   CPUS", "日本      1", "web-1    12"]
    assert measure("日本") == 4
    assert measure("e\u0301") == 1


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.text(max_size=30), st.text(max_size=30)), max_size=5), st.integers(1, 60))
def test_no_line_is_wider_than_the_terminal(rows, limit):
    lines = render((Column("A"), Column("B", right=True)), rows, limit=limit)
    assert all(measure(line) <= limit for line in lines)
    assert all(is_safe(line) for line in lines)


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=20), st.integers(1, 10))
def test_clipping_never_exceeds_and_marks_what_is_missing(text, width):
    text = sanitise(text)
    clipped = clip(text, width)
    assert measure(clipped) <= width
    assert clipped == text or clipped.endswith("…")


def test_colour_only_where_it_is_wanted():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    assert is_coloured(Terminal(), {"TERM": "xterm"})
    assert not is_coloured(Terminal(), {"TERM": "xterm", "NO_COLOR": "1"})
    assert not is_coloured(Terminal(), {"TERM": "dumb"})
    assert not is_coloured(Terminal(), {})
    assert not is_coloured(io.StringIO(), {"TERM": "xterm"})
    assert render((Column("A"),), [(Cell("running", "ok"),)], coloured=True)[1] == "\x1b[32mrunning\x1b[0m"
    assert render((Column("A"),), [(Cell("running", "ok"),)])[1] == "running"


def test_doctor_tells_what_mends_and_fails_where_something_failed(kc):
    kc.service.findings = [
        Finding("store", "ok", "all well", ""),
        Finding("kvm", "warning", "no KVM", "chmod 660 /dev/kvm"),
    ]
    good = kc("doctor")
    assert good.code == 0
    assert "warning  kvm    no KVM\n                mend: chmod 660 /dev/kvm\n" in good.out
    assert kc("doctor", "-o", "json").json()["items"][1] == {
        "check": "kvm", "state": "warning", "message": "no KVM", "mend": "chmod 660 /dev/kvm",
    }  # fmt: skip
    kc.service.findings.append(Finding("libvirt", "failed", "does not answer", "libvirtd -d"))
    assert kc("doctor").code == 1
    assert kc("doctor", "-o", "name").out == "kvm\nlibvirt\n"


def test_init_tells_what_it_made(kc):
    assert kc("init", "-o", "json").json() == {"made": ["Network default", "MachineType tiny"]}
    result = kc("init")
    assert result.out == "made network default\nmade machine type tiny\n"
    assert result.err == "kc: making the network default\n"
    assert kc("init", "-q", "-o", "name").out == "default\ntiny\n"


def test_schemas_are_printed_for_one_kind_and_for_all(kc):
    assert kc("schema", "vm").json()["$id"] == "urn:kc:schema:v1:VM"
    every = kc("schema", "-o", "json").json()
    assert [schema["$id"].rpartition(":")[2] for schema in every["oneOf"]] == [
        "VM",
        "Image",
        "Network",
        "MachineType",
        "Operation",
        "Trash",
        "Token",
    ]
    assert yaml.safe_load(kc("schema", "type", "-o", "yaml").out)["$id"] == "urn:kc:schema:v1:MachineType"
    assert kc("schema", "-o", "name").out == "vm\nimage\nnetwork\ntype\nop\ntrash\ntoken\n"
    assert kc("schema", "cat").code == 2


def test_a_schema_of_all_kinds_is_a_schema_that_judges_real_documents(kc):
    from jsonschema import Draft202012Validator

    from backend.model.kinds import KINDS
    from backend.model.schemas import document_schema

    schema = {"oneOf": [document_schema(kind) for kind in KINDS]}
    Draft202012Validator.check_schema(schema)
    nic = {"network": {"name": "default"}}
    vm = {"kind": "VM", "name": "web", "spec": {"image": {"name": "i"}, "type": {"name": "t"}, "nics": [nic]}}
    assert Draft202012Validator(schema).is_valid(vm)
    assert not Draft202012Validator(schema).is_valid({**vm, "name": "../web"})
