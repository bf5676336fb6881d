"""What the wizard for a new VM makes of a draft: a document, a command line, what is told of both."""

import json
import shlex

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import ConflictError, FailedError, NotFoundError, RefusedError
from backend.model.schemas import validate_document
from kc_tui.state.addressing import complain_about_address
from kc_tui.state.create_vm import (
    PublicKey,
    build_arguments,
    build_document,
    chosen_values,
    complain_about_name,
    describe_addressing,
    describe_making,
    locate_error,
)
from kc_tui.state.create_vm_review import choose_keys, list_switches
from kc_tui.state.draft import Draft, Nic, draft_from_json, draft_to_json
from kc_tui.state.fields import make_fields

FIELDS = make_fields(
    {
        "hardware": {"cpus": 1, "memoryMiB": 512, "diskGiB": 2},
        "parameters": {"cpus": {"type": "integer", "minimum": 1, "maximum": 4}, "memoryMiB": {"type": "integer"}},
    }
)
KEY = PublicKey("~/.ssh/id_ed25519.pub", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 ada@laptop")
DRAFT = Draft("review", "starter", (Nic("default"),), "tiny", "web", {"cpus": "2", "memoryMiB": "512"})


def test_the_document_is_one_that_kc_accepts():
    nics = (Nic("default"), Nic("backend", "10.0.0.5/24", "slaac"), Nic("quiet", "none", "none"))
    draft = Draft("review", "starter", nics, "tiny", "web", {}, None, start=False)
    document = validate_document(build_document(draft, {"cpus": 2}, [KEY]))
    spec = document["spec"]
    assert spec["image"]["name"] == "starter"
    assert [nic["ipv4"]["mode"] for nic in spec["nics"]] == ["network", "static", "none"]
    assert spec["nics"][1]["ipv4"]["address"] == "10.0.0.5/24"
    assert spec["nics"][1]["ipv6"] == {"mode": "slaac", "address": ""}
    assert spec["sshKeys"] == [KEY.text]
    assert (spec["power"], spec["parameters"]) == ("stopped", {"cpus": 2})


def test_only_parameters_that_differ_from_the_types_own_are_chosen():
    assert chosen_values(DRAFT, FIELDS) == {"cpus": 2}
    with pytest.raises(ValueError, match="1 to 4"):
        chosen_values(Draft(values={"cpus": "9"}), FIELDS)


def test_the_command_does_the_same():
    words = shlex.split(" ".join(build_arguments(DRAFT, {"cpus": 2}, [])))
    expected = "kc vm create web --image starter --network default --type tiny --set cpus=2"
    assert words == expected.split()


def test_the_command_names_addresses_keys_and_that_it_is_not_to_start():
    draft = Draft("review", "starter", (Nic("backend", "10.0.0.5/24", "none"),), "tiny", "web", {}, None, start=False)
    line = " ".join(build_arguments(draft, {}, [KEY]))
    assert line.endswith("--type tiny --ssh-key ~/.ssh/id_ed25519.pub --no-start")
    assert "--network backend,ipv4=10.0.0.5/24,ipv6=none" in line


@settings(deadline=None)
@given(st.text(min_size=1), st.text(min_size=1), st.dictionaries(st.text(min_size=1), st.text() | st.integers()))
def test_whatever_stands_in_a_draft_a_shell_takes_each_value_as_one_word(image: str, network: str, values: dict):
    draft = Draft("review", image, (Nic(network),), "tiny", "web")
    words = shlex.split(" ".join(build_arguments(draft, values, [])))
    assert words[words.index("--image") + 1] == image
    assert words[words.index("--network") + 1] == network
    given_values = [word for at, word in enumerate(words) if words[at - 1] == "--set" and at > 8]
    assert len(given_values) == len(values)


@pytest.mark.parametrize(("value", "shown"), [("3", '"3"'), ("plain", "plain"), (True, "true"), (2, "2"), ("", "")])
def test_a_text_that_reads_as_json_is_told_from_a_figure(value: object, shown: str):
    words = shlex.split(" ".join(build_arguments(DRAFT, {"label": value}, [])))
    assert words[-1] == f"label={shown}"


def test_a_key_in_a_folder_with_blanks_still_reaches_the_shell_whole():
    strange = PublicKey("~/.ssh/my key.pub", KEY.text)
    assert build_arguments(DRAFT, {}, [strange])[-1] == "--ssh-key ~/'.ssh/my key.pub'"


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("web-1", ""),
        ("", "a name is wanted"),
        ("Web", "small letters, digits and hyphens; no hyphen at the ends"),
        ("-web", "small letters, digits and hyphens; no hyphen at the ends"),
        ("../web", "small letters, digits and hyphens; no hyphen at the ends"),
        ("w" * 64, "at most 63 characters"),
        ("taken", "the name is taken"),
    ],
)
def test_a_name_is_judged_while_one_types(name: str, complaint: str):
    assert complain_about_name(name, frozenset({"taken"})) == complaint


@settings(deadline=None)
@given(st.text(max_size=70))
def test_a_name_that_passes_here_passes_the_documents_gate(name: str):
    if not complain_about_name(name, frozenset()):
        validate_document(build_document(Draft(image="a", type="b", name=name), {}, []))


@pytest.mark.parametrize(
    ("text", "family", "complaint"),
    [
        ("10.0.0.5/24", "ipv4", ""),
        ("fd00::5/64", "ipv6", ""),
        ("10.0.0.5", "ipv4", "add a prefix: /24"),
        ("fd00::5", "ipv6", "add a prefix: /64"),
        ("fd00::5/64", "ipv4", "no IPv4 address"),
        ("10.0.0", "ipv4", "such as 10.0.0.5/24"),
        ("", "ipv6", "such as fd00::5/64"),
    ],
)
def test_a_static_address_is_judged_while_one_types(text: str, family: str, complaint: str):
    assert complain_about_address(text, family) == complaint


def test_addressing_is_told_as_it_will_be():
    network = {"spec": {"ipv4": {"mode": "dhcp"}, "ipv6": {"mode": "slaac"}}}
    assert describe_addressing(Nic("n"), network) == "dhcp, slaac"
    assert describe_addressing(Nic("n", "10.0.0.5/24", "none"), network) == "10.0.0.5/24"
    assert describe_addressing(Nic("n"), None) == "no address"


def test_what_will_be_made_is_told_line_by_line():
    lines = describe_making(DRAFT, {"cpus": 2, "memoryMiB": 512, "diskGiB": 2}, 1)
    assert lines == [
        "a disk of 2 GiB on top of image starter, which stays as it is",
        "a cloud-init seed with the host name and 1 SSH key",
        "a libvirt domain web with 2 CPUs, 512 MiB memory",
        "network default brought up, then the VM started",
    ]
    assert len(describe_making(Draft(start=False), {}, 0)) == 3


def test_a_draft_survives_its_file():
    draft = Draft(
        "name", "i", (Nic("a"), Nic("b", "10.0.0.1/8", "none")), "t", "n", {"cpus": "x"}, ("~/k",), start=False
    )
    assert draft_from_json(json.loads(json.dumps(draft_to_json(draft)))) == draft
    assert not draft.is_empty
    assert Draft(step="type").is_empty


@pytest.mark.parametrize("broken", [None, 3, [], {}, {"step": 1}, {**draft_to_json(DRAFT), "nics": [["one"]]}])
def test_a_draft_that_cannot_be_read_is_an_empty_one(broken: object):
    assert draft_from_json(broken) == Draft()


def test_the_best_key_is_taken_unless_the_draft_says_otherwise():
    other = PublicKey("~/.ssh/id_rsa.pub", "ssh-rsa AAAA ada")
    assert choose_keys(DRAFT, [KEY, other]) == [KEY]
    assert choose_keys(DRAFT, []) == []
    assert choose_keys(Draft(key_paths=("~/.ssh/id_rsa.pub", "~/gone")), [KEY, other]) == [other]
    assert [switch.is_on for switch in list_switches(DRAFT, [KEY, other], [KEY])] == [True, True, False]


@pytest.mark.parametrize(
    ("error", "place"),
    [
        (RefusedError("VM web", "parameter cpus: 9 is too much", "1 to 4", parameter="cpus"), ("name", "cpus")),
        (ConflictError("VM web", "the name is taken", ""), ("name", "name")),
        (RefusedError("VM 'x'", "not a valid name", ""), ("name", "name")),
        (NotFoundError("VM web", "no network backend", ""), ("network", "")),
        (NotFoundError("VM web", "no machine type tiny", ""), ("type", "")),
        (NotFoundError("VM web", "no image starter", ""), ("image", "")),
        (RefusedError("VM web", "spec.sshKeys.0: not a public SSH key", ""), ("review", "")),
        (FailedError("pool kc", "no space left", ""), ("", "")),
    ],
)
def test_an_error_of_the_service_finds_its_page_and_field(error, place):
    assert locate_error(error, FIELDS) == place
