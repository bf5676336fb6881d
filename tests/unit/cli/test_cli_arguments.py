"""What stands on a command line reaches the service as documents and values."""

from __future__ import annotations

import math
from argparse import ArgumentTypeError, Namespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.command_line import CommandLine

from backend.errors import UsageError
from kc_tui.cli.arguments import build_tree, parse_assignment, parse_metadata, parse_value
from kc_tui.cli.main import split_front
from kc_tui.cli.nic_options import parse_nic
from kc_tui.cli.reporting import wants_json

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0= me@home"


@pytest.fixture(autouse=True)
def _home(monkeypatch, tmp_path):
    monkeypatch.setenv("KC_HOME", str(tmp_path))


@pytest.fixture
def kc(capsys):
    return CommandLine(capsys)


def created(kc: CommandLine, *arguments: str):
    result = kc(*arguments)
    assert result.code == 0, result.err
    return [call[1] for call in kc.service.calls if call[0] == "create"]


CREATE = ("vm", "create", "web", "--image", "starter", "--network", "default", "--type", "tiny")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3), ("3.5", 3.5), ("true", True), ("null", None), ("[1]", [1]), ('{"a": 1}', {"a": 1}), ('"3"', "3"),
        ("acme", "acme"), ("", ""), ("NaN", "NaN"), ("-Infinity", "-Infinity"), ("1e999", "1e999"), ("01", "01"),
        ("[" * 100_000, "[" * 100_000), ("\udcff", "\udcff"),
    ],
)  # fmt: skip
def test_a_value_is_json_where_it_parses_and_else_text(text, value):
    assert parse_value(text) == value


@settings(deadline=None, max_examples=60)
@given(st.text())
def test_any_text_is_a_value_that_json_can_hold(text):
    value = parse_value(text)
    assert not isinstance(value, float) or math.isfinite(value)


@settings(deadline=None, max_examples=60)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3)))
def test_json_comes_back_as_it_was(value):
    import json

    assert parse_value(json.dumps(value)) == value


def test_metadata_dots_reach_inside():
    given = [parse_metadata(text) for text in ("tenant=acme", "owner.mail=a@b.c", "owner.id=7", "tenant=other")]
    assert build_tree(given, "--meta") == {"tenant": "other", "owner": {"mail": "a@b.c", "id": 7}}


@pytest.mark.parametrize("texts", [("a=1", "a.b=2"), ("a.b=2", "a=1"), ('a={"x": 1}', "a.b=2"), ("a.b.c=1", "a.b=2")])
def test_a_value_inside_another_value_is_refused(texts):
    with pytest.raises(UsageError):
        build_tree([parse_metadata(text) for text in texts], "--meta")


@pytest.mark.parametrize("text", ["tenant", "=acme", "a..b=1", ".a=1"])
def test_an_assignment_needs_a_key_and_a_sign(text):
    with pytest.raises(ArgumentTypeError):
        parse_metadata(text)


def test_a_value_may_have_signs_of_its_own():
    assert parse_assignment("motd=a=b") == ("motd", "a=b")


@pytest.mark.parametrize(
    ("text", "nic"),
    [
        ("default", {"network": "default"}),
        ("lab,ipv4=dhcp", {"network": "lab", "ipv4": {"mode": "dhcp"}}),
        ("lab,ipv4=10.0.0.5/24", {"network": "lab", "ipv4": {"mode": "static", "address": "10.0.0.5/24"}}),
        (
            "lab,ipv6=fd00::5/64,ipv4=none",
            {
                "network": "lab",
                "ipv6": {"mode": "static", "address": "fd00::5/64"},
                "ipv4": {"mode": "none"},
            },
        ),
        ("lab,mac=52:54:00:AA:bb:cc", {"network": "lab", "mac": "52:54:00:aa:bb:cc"}),
    ],
)
def test_a_network_with_its_addresses(text, nic):
    assert parse_nic(text) == nic


@pytest.mark.parametrize(
    "text", ["", ",ipv4=dhcp", "lab,", "lab,ipv4", "lab,ipv4=", "lab,speed=9", "lab,mac=a,mac=b", "ipv4=dhcp"]
)
def test_a_network_in_a_wrong_form_is_wrong_usage(text, kc):
    with pytest.raises(ArgumentTypeError):
        parse_nic(text)
    result = kc("vm", "create", "web", "--image", "i", "--type", "t", "--network", text)
    assert result.code == 2
    assert result.err.startswith("kc: usage of kc vm create: argument --network: ")


def test_create_makes_the_document_that_its_flags_say(kc, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(f"# mine\n\n{KEY}\nssh-rsa AAAA= other\n")
    data = tmp_path / "user-data"
    data.write_text("#cloud-config\n{}\n")
    documents = created(
        kc, *CREATE, "--network", "lab,ipv4=10.0.0.5/24", "--set", "cpus=2", "--set", "name=x", "--meta", "tenant=acme",
        "--meta", "owner.id=7", "--ssh-key", str(keys), "--ssh-key", KEY, "--user-data", str(data), "--no-start",
    )  # fmt: skip
    assert documents == [
        {
            "kind": "VM",
            "name": "web",
            "metadata": {"tenant": "acme", "owner": {"id": 7}},
            "spec": {
                "image": "starter",
                "type": "tiny",
                "nics": [
                    {"network": "default"},
                    {"network": "lab", "ipv4": {"mode": "static", "address": "10.0.0.5/24"}},
                ],
                "power": "stopped",
                "parameters": {"cpus": 2, "name": "x"},
                "sshKeys": [KEY, "ssh-rsa AAAA= other"],
                "userData": "#cloud-config\n{}\n",
            },
        }
    ]


def test_the_document_that_create_makes_is_one_that_the_model_takes(kc):
    from backend.model.schemas import validate_document

    documents = created(kc, *CREATE, "--set", "cpus=2", "--ssh-key", KEY, "--network", "lab,ipv6=fd00::5/64")
    assert validate_document(documents[0])["spec"]["nics"][1]["ipv6"]["address"] == "fd00::5/64"


def test_count_numbers_the_names(kc):
    assert [document["name"] for document in created(kc, *CREATE, "--count", "3")] == ["web-1", "web-2", "web-3"]


@pytest.mark.parametrize("option", ["mac=52:54:00:00:00:01", "ipv4=10.0.0.5/24", "ipv6=fd00::5/64"])
def test_several_vms_cannot_share_an_address(kc, option):
    result = kc("vm", "create", "web", "--image", "i", "--type", "t", "--network", f"lab,{option}", "--count", "2")
    assert result.code == 2
    assert not kc.service.calls


@pytest.mark.parametrize(
    "arguments",
    [
        ("--wait", "ready", "--no-wait"), ("--wait", "ready", "--no-start"), ("--count", "0"), ("--count", "x"),
        ("--timeout", "-1"), ("--timeout", "nan"), ("--wait", "never"), ("--set", "cpus"), ("--meta", "x"), ("more",),
        ("--no-network",), ("--foo",),
    ],
)  # fmt: skip
def test_flags_that_make_no_sense_are_wrong_usage(kc, arguments):
    result = kc(*CREATE, *arguments)
    assert result.code == 2
    assert result.out == ""
    assert result.err.startswith("kc: usage of kc vm create: ")
    assert len(result.err.splitlines()) == 1
    assert not kc.service.calls


def test_a_vm_without_a_network_is_asked_for_in_so_many_words(kc):
    result = kc("vm", "create", "web", "--image", "i", "--type", "t")
    assert result.code == 2
    assert created(kc, "vm", "create", "web", "--image", "i", "--type", "t", "--no-network")[0]["spec"]["nics"] == []


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n", 8, "private key"),
        (b"# nothing\n", 8, "no key"),
        (b"\xff\xfe", 8, "no text"),
        (b"x" * 300_000, 8, "256 KiB"),
        (None, 3, "no file"),
    ],
)
def test_a_bad_key_file_is_refused_without_showing_it(kc, tmp_path, content, code, words):
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    result = kc(*CREATE, "--ssh-key", str(path))
    assert result.code == code
    assert words in result.err
    assert "c2VjcmV0" not in result.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("-o", "json", "vm", "list"),
        ("vm", "-o", "json", "list"),
        ("vm", "list", "-o", "json"),
        ("vm", "list", "-ojson"),
        ("--output=json", "vm", "list"),
        ("vm", "list", "--output", "json"),
        ("-q", "--profile", "local", "vm", "list", "-o", "json"),
    ],
)
def test_what_every_command_takes_may_stand_anywhere(kc, arguments):
    kc.service.add_vm("web")
    assert kc(*arguments).json()["items"][0]["name"] == "web"


def test_names_and_options_may_stand_in_any_order(kc):
    for name in ("a", "b", "c"):
        kc.service.add_vm(name)
    result = kc("vm", "delete", "a", "--yes", "b", "--keep-disks", "c")
    assert result.code == 0, result.err
    deleted = [call[2:] for call in kc.service.calls if call[0] == "delete"]
    assert deleted == [("a", True), ("b", True), ("c", True)]


def test_after_two_dashes_everything_is_a_name(kc):
    result = kc("vm", "show", "--", "-o")
    assert result.code == 3
    assert result.err == "kc: VM -o: no such VM. see kc vm list\n"


def test_options_are_never_guessed_from_their_beginnings(kc):
    assert kc("vm", "list", "--sel", "a=b").code == 2


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.sampled_from(["-o", "json", "-q", "--profile", "vm", "list", "--", "--no-wait", "-ojson"]), max_size=8)
)
def test_splitting_loses_nothing(arguments):
    front, word, rest = split_front(arguments)
    assert [*front, *([word] if word else []), *rest] == arguments


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["-o", "json"], True),
        (["-ojson"], True),
        (["--output=json"], True),
        (["-o", "yaml"], False),
        (["json"], False),
        (["--", "-o", "json"], False),
        (["-o", "json", "-o", "table"], False),
        (["-o"], False),
        ([], False),
    ],
)
def test_the_form_of_errors_follows_the_form_of_data(arguments, wanted):
    assert wants_json(arguments) is wanted


def network(kc, *arguments):
    return created(kc, "network", "create", "lab", *arguments)[0]["spec"]


def test_a_network_from_its_flags(kc):
    spec = network(
        kc, "--uplink", "isolated", "--ipv4", "10.20.0.0/24", "--ipv6", "fd00:20::/64", "--gateway", "none",
        "--dns", "10.20.0.2", "--dns", "fd00:20::2", "--mtu", "1400",
    )  # fmt: skip
    assert spec == {
        "uplink": "isolated",
        "ipv4": {"subnet": "10.20.0.0/24", "mode": "dhcp"},
        "ipv6": {"subnet": "fd00:20::/64", "mode": "slaac"},
        "gateway": "none",
        "dns": ["10.20.0.2", "fd00:20::2"],
        "description": "",
        "mtu": 1400,
    }


def test_a_network_takes_modes_and_an_existing_libvirt_network(kc):
    spec = network(kc, "--ipv6", "fd00::/56", "--libvirt-network", "default", "--description", "old")
    assert spec["ipv6"]["mode"] == "dhcpv6"
    assert spec["ipv4"] == {"subnet": "", "mode": "none"}
    assert spec["libvirtNetwork"] == "default"


@pytest.mark.parametrize(
    "arguments",
    [
        ("network", "create", "lab", "--vxlan", "vni=1,local=10.0.0.1"),
        ("network", "create", "lab", "--ipv4-mode", "magic"),
        ("type", "create", "t", "--cpus", "1", "--memory", "512", "--disk", "2", "--target", "hardware"),
        ("type", "create", "t", "--cpus", "0", "--memory", "512", "--disk", "2"),
        ("type", "create", "t", "--cpus", "1", "--memory", "512"),
        ("type", "create", "t", "--cpus", "1", "--memory", "512", "--disk", "2", "--parameter", "cpus"),
        ("type", "create", "t", "--cpus", "1", "--memory", "512", "--disk", "2", "--parameter", '{"cpus": 3}'),
        ("image", "upload", "https://example.org/i.qcow2", "--name", "i"),
        ("image", "upload", "file"),
        ("image", "upload", "file", "--name", "i", "--sha256", "abc"),
        ("image", "upload", "file", "--name", "i", "--arch", "mips"),
    ],
)
def test_what_this_version_cannot_do_is_wrong_usage_and_changes_nothing(kc, arguments):
    result = kc(*arguments)
    assert result.code == 2
    assert len(result.err.splitlines()) == 1
    assert not [call for call in kc.service.calls if call[0] in ("create", "upload")]


def test_a_machine_type_from_its_flags(kc):
    documents = created(
        kc,
        "type",
        "create",
        "web",
        "--cpus",
        "2",
        "--memory",
        "2048",
        "--disk",
        "20",
        "--arch",
        "aarch64",
        "--firmware",
        "uefi",
        "--target",
        "vm",
        "--parameter",
        '{"cpus": {"type": "integer", "maximum": 4, "default": 2}}',
        "--parameter",
        '{"diskGiB": {"type": "integer"}}',
        "--meta",
        "tier=1",
    )
    assert documents[0]["metadata"] == {"tier": 1}
    assert documents[0]["spec"] == {
        "target": "vm",
        "arch": "aarch64",
        "firmware": "uefi",
        "description": "",
        "hardware": {"cpus": 2, "memoryMiB": 2048, "diskGiB": 20},
        "parameters": {
            "cpus": {"type": "integer", "maximum": 4, "default": 2},
            "diskGiB": {"type": "integer"},
        },
    }


def test_the_documents_of_networks_and_types_are_ones_that_the_model_takes(kc):
    from backend.model.schemas import validate_document

    kc("network", "create", "lab", "--ipv4", "10.0.0.0/24", "--gateway", "none", "--mtu", "1400")
    kc(
        "type",
        "create",
        "t",
        "--cpus",
        "1",
        "--memory",
        "512",
        "--disk",
        "2",
        "--parameter",
        '{"cpus": {"default": 1}}',
    )
    documents = [call[1] for call in kc.service.calls if call[0] == "create"]
    assert [validate_document(document)["kind"] for document in documents] == ["Network", "MachineType"]


def test_an_upload_says_what_the_file_is_declared_to_be(kc, tmp_path):
    path, digest = tmp_path / "disk.raw", "AB" * 32
    result = kc(
        "image",
        "upload",
        str(path),
        "--name",
        "disk",
        "--format",
        "raw",
        "--sha256",
        f"sha256:{digest}",
        "--arch",
        "aarch64",
        "--meta",
        "os=debian",
    )
    assert result.code == 0, result.err
    declared = {"format": "raw", "sha256": digest.lower(), "arch": "aarch64"}
    assert ("upload", "disk", path, {"os": "debian"}, declared) in kc.service.calls


def test_lists_hand_on_what_narrows_them(kc):
    kc("vm", "list", "-l", "tenant=acme", "--all", "--limit", "5", "--continue", "web-3")
    assert ("list", "VM", "tenant=acme", 5, "web-3", True, True) in kc.service.calls


def test_force_is_handed_on(kc):
    kc.service.add_vm("web")
    kc("vm", "stop", "web", "--force")
    kc("vm", "reboot", "web")
    assert [call[1:] for call in kc.service.calls if call[0] == "act"] == [
        ("web", "stop", {"force": True}),
        ("web", "reboot", {}),
    ]


def test_every_command_that_is_told_about_can_be_parsed_and_has_help(kc):
    from kc_tui.cli.commands import NOUNS, Command, visible_nouns, walk_commands

    paths = []
    for noun in visible_nouns():
        for path, entry in walk_commands(noun, NOUNS[noun]):
            paths.append(path)
            result = kc(*path.split(), "--help")
            assert result.code == 0
            if isinstance(entry, Command):
                assert result.out.startswith(f"usage: kc {path} ")
                assert all("kc " in example for example in entry.examples)
                assert entry.examples, f"{path} has no example"
            else:
                assert result.out.startswith(f"kc {path}: ")
                assert f"kc {path} VERB" in result.out
            assert all(len(line) <= 100 for line in result.out.splitlines() if not line.startswith("  kc ")), result.out
    assert {"vm", "vm nic", "vm nic add", "vm disk grow", "vm cd eject", "vm snapshot restore"} <= set(paths)


@pytest.mark.parametrize("verb", ["list", "add", "set", "remove"])
def test_each_action_on_nics_has_help_of_its_own(kc, verb):
    told = kc("vm", "nic", verb, "--help").out
    assert told.startswith(f"usage: kc vm nic {verb} NAME")
    assert ("--network" in told) is (verb == "add")
    assert ("which NIC is to go" in told) is (verb == "remove")
    assert ("--if-version" in told) is (verb != "list")


@pytest.mark.parametrize("group", ["nic", "disk", "cd", "snapshot"])
def test_a_group_of_commands_says_what_it_has(kc, group):
    missing = kc("vm", group)
    assert missing.code == 2
    assert missing.err.startswith(f"kc: usage of kc vm {group}: a verb is missing. known are ")
    wrong = kc("vm", group, "frobnicate", "web")
    assert wrong.code == 2
    assert wrong.err.startswith(f"kc: usage of kc vm {group}: no verb 'frobnicate'. ")


def test_what_every_command_takes_may_stand_before_the_last_verb_too(kc):
    kc.service.add_vm("web")
    for arguments in (("-o", "json", "vm", "disk", "list"), ("vm", "-o", "json", "disk", "list"),
                      ("vm", "disk", "-o", "json", "list"), ("vm", "disk", "list", "-o", "json")):  # fmt: skip
        items = kc(*arguments, "web").json()["items"]
        assert items == [{"id": "root", "sizeGiB": 2, "sizeBytes": None, "usedBytes": None}]


def test_namespace_is_what_commands_get():
    # The session reads these four; a command's own parser always has them.
    from kc_tui.cli.arguments import Parser

    values = Parser("vm list").parse([])
    assert values == Namespace(profile="", output="table", quiet=False, wait_for_end=True)
