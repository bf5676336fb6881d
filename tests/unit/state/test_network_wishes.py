"""What the wizard for a network makes of its texts, and what the screens tell of networks and of NICs."""

import shlex
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import RefusedError
from backend.model.network_spec import NetworkSpec
from backend.model.schemas import validate_document
from kc_tui.cli.nic_options import parse_nic
from kc_tui.state.draft import Nic
from kc_tui.state.glyphs import UNICODE
from kc_tui.state.network_details import describe
from kc_tui.state.network_wishes import (
    build_arguments,
    build_changes,
    build_document,
    build_spec,
    list_fields,
    list_hidden,
    locate_error,
    read_texts,
)
from kc_tui.state.networks import build_entry, judge
from kc_tui.state.nic_options import build_nic, complain_about_rate, list_words, read_nic, show_rate
from kc_tui.state.vm_wiring import describe_wiring

FIELDS = {field.name: field for step in list_fields(frozenset, lambda: frozenset({"gw"})).values() for field in step}
INITIAL = {name: field.initial for name, field in FIELDS.items()}
NIC = Nic("lab", "static", "dhcpv6 fd00::5/64", "address", "off", "on", "on", "10MB", "8MiB")


def complaints(values: dict[str, str]) -> list[str]:
    hidden = list_hidden(values)
    return [name for name, field in FIELDS.items() if name not in hidden and field.complain(values[name])]


def text_of(lines: Any) -> str:
    return "\n".join("".join(run.text for run in line) for line in lines)


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(st.sampled_from(sorted(FIELDS)), st.text(alphabet="0123456789abcdef.:/-, vm", max_size=24)))
def test_texts_without_a_complaint_make_a_document_or_are_refused(texts: dict[str, str]):
    choices = {name for name, field in FIELDS.items() if field.options}
    values = INITIAL | {"name": "lab"} | {name: text.strip() for name, text in texts.items() if name not in choices}
    if complaints(values):
        return
    with suppress(RefusedError):
        assert validate_document(build_document(values["name"], values))["name"] == values["name"]


def test_a_network_read_into_texts_and_back_is_the_same():
    spec = NetworkSpec.model_validate(
        {
            "uplink": "routed", "gateway": "vm:gw/nic1", "dns": ["10.0.0.3"], "searchDomain": "lab.example",
            "mtu": 1400, "ipv4": {"subnet": "10.0.0.0/24", "mode": "dhcp",
                     "ranges": [{"start": "10.0.0.9", "end": "10.0.0.20"}],
                     "leaseSeconds": 900, "routes": [{"to": "10.9.0.0/16", "via": "10.0.0.2"}]},
            "ipv6": {"subnet": "fd00::/64", "mode": "stateless"}, "description": "it's [b]ours",
            "vxlan": {"vni": 7, "local": "192.0.2.1", "group": "239.0.0.7", "port": 8472, "dev": "eth1"},
            "guard": {"antiSpoof": "mac", "isolated": True}, "rateLimit": {"sendBytesPerSecond": 10000},
        }
    ).model_dump(by_alias=True)  # fmt: skip
    spec.pop("gatewayReference")
    values = INITIAL | read_texts(spec)
    assert complaints(values) == ["name"]
    assert build_spec(values, spec) == spec
    assert build_changes("lab", spec, build_spec(values | {"mtu": "1300", "dns": ""}, spec)) == [
        "kc network set", "lab", "'spec.dns=[]'", "spec.mtu=1300",
    ]  # fmt: skip


def test_the_command_says_what_the_document_says():
    values = INITIAL | {
        "name": "lab", "uplink": "bridge", "bridge": "br0", "ipv4": "10.0.0.0/24", "ipv4Mode": "static",
        "gateway": "10.0.0.1", "description": "it's ours",
    }  # fmt: skip
    assert complaints(values) == []
    words = shlex.split(" ".join(build_arguments("lab", build_spec(values))))
    assert words == [
        "kc", "network", "create", "lab", "--uplink", "bridge:br0", "--ipv4", "10.0.0.0/24", "--ipv4-mode", "static",
        "--gateway", "10.0.0.1", "--description", "it's ours",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("vni", "0", "1 to 16777215"), ("vni", "16777216", "1 to 16777215"), ("vni", "16777215", ""),
        ("mtu", "575", "576 to 9216"), ("gateway", "vm:gw", ""), ("gateway", "vm:g", "gw?"),
        ("gateway", "10.0.0.1,fd00::1", ""), ("gateway", "nobody", "host, none, an address"),
        ("peers", "239.0.0.1, 10.0.0.1", "a multicast group stands alone"), ("bridge", "a/b", "the name of a bridge"),
        ("ipv4", "fd00::/64", "such as 10.0.0.0/24"), ("dns", "10.0.0.1,, x", "IP addresses"),
    ],
)  # fmt: skip
def test_a_text_is_judged_at_each_key(name: str, text: str, told: str):
    complaint = FIELDS[name].complain(text)
    assert complaint.startswith(told) if told else not complaint


@pytest.mark.parametrize(
    ("why", "place"),
    [
        ("spec.ipv4.ranges.0.end: 10.1.0.1 is not in 10.0.0.0/24", ("addresses", "ipv4Ranges")),
        ("spec.ipv6.subnet: SLAAC needs a /64", ("addresses", "ipv6")),
        ("spec.vxlan.peers.0: it is this host", ("more", "peers")),
        ("spec.vxlan: a bridge of the host is the operator's", ("more", "local")),
        ("spec.gateway: 10.9.0.1 is not in 10.0.0.0/24", ("addresses", "gateway")),
        ("the name is taken", ("segment", "name")),
        ("no space left", ("", "")),
    ],
)
def test_an_error_of_the_service_finds_its_page_and_field(why: str, place: tuple[str, str]):
    assert locate_error(RefusedError("network lab", why)) == place


def test_a_nic_is_the_same_by_form_by_document_and_by_command_line():
    document = build_nic(NIC)
    assert read_nic(document) == NIC
    assert parse_nic(",".join(("lab", *list_words(NIC)))) == document
    assert build_nic(Nic("lab")) == {"network": "lab", "ipv4": {"mode": "network"}, "ipv6": {"mode": "network"}}


@pytest.mark.parametrize("rate", [8192, 10_000_000, 12_345_679, 1 << 40])
def test_a_rate_is_shown_as_a_text_that_means_the_same(rate: int):
    assert complain_about_rate(show_rate(rate)) == ""
    assert read_nic({"rateLimit": {"sendBytesPerSecond": rate}}).send == show_rate(rate)


def test_what_guards_a_nic_and_what_it_stopped_stands_with_the_nic():
    guards = [{"nic": "nic0", "antiSpoof": "mac", "dhcpGuard": True, "raGuard": False, "isolated": True,
               "receiveBytesPerSecond": 10_000_000, "drops": {"mac": 12, "router": 0}}]  # fmt: skip
    vm = {"spec": {"nics": [{"id": "nic0", "network": {"name": "lab"}}]}, "status": {"guards": guards}}
    text = text_of(describe_wiring(vm, {}, UNICODE))
    assert "its own MAC only, no DHCP server, isolated, receives at most 10 MB/s, dropped 12 mac" in text


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ({}, ("unknown", "?")), ({"state": "up"}, ("up", "●")), ({"state": "degraded"}, ("degraded", "▲")),
        ({"state": "down"}, ("down", "✕")), ({"state": "up", "stale": True}, ("up", "?")),
        ({"state": "from a newer KC", "problems": "none"}, ("from a newer KC", "?")),
    ],
)  # fmt: skip
def test_a_state_is_a_word_and_a_sign(status: dict[str, Any], told: tuple[str, str]):
    network = {
        "kind": "Network",
        "name": "lab",
        "uid": "u",
        "metadata": {},
        "spec": {"uplink": "nat"},
        "status": status,
    }
    assert judge(network, UNICODE)[:2] == told
    assert build_entry(network, None, 0, UNICODE).row.glyph.text == told[1]
    assert describe(network, [], UNICODE)


def test_a_vxlan_is_a_way_outside_and_a_full_network_is_listed_in_part():
    addresses = [{"address": f"10.0.0.{n}", "owner": "VM x", "source": "lease"} for n in range(300)]
    network = {
        "name": "lab", "uid": "u", "metadata": {}, "status": {"state": "up", "addresses": addresses},
        "spec": {"uplink": "isolated", "gateway": "vm:gw", "vxlan": {"vni": 100, "local": "10.0.0.1"}},
    }  # fmt: skip
    assert [cell.text for cell in build_entry(network, None, 2, UNICODE).row.cells] == [
        "lab", "up", "vxlan 100", "–", "vm:gw", "2",
    ]  # fmt: skip
    text = text_of(describe(network, [], UNICODE))
    assert "Addresses in use  300" in text
    assert "and 100 more" in text
