"""`kc network` and the NICs on networks: every flag, what lists and shows say."""

from __future__ import annotations

import json
import re
from argparse import ArgumentTypeError

import pytest
from support.command_line import CommandLine

from backend.model.schemas import validate_document
from kc_tui.cli.nic_options import parse_nic, parse_options
from kc_tui.state.network_values import format_rate, format_seconds, parse_duration, parse_rate

HOSTILE = "\x1b[2J\u202eevil\n"
V4 = ("--ipv4", "10.0.0.0/24")
V6 = ("--ipv6", "fd00::/64")


@pytest.fixture(autouse=True)
def _home(monkeypatch, tmp_path):
    monkeypatch.setenv("KC_HOME", str(tmp_path))
    monkeypatch.setattr("sys.stdin", None)


@pytest.fixture
def kc(capsys):
    return CommandLine(capsys)


def create(kc, *arguments):
    """Return the spec that a command line asks for, which is one that the model takes."""
    result = kc("network", "create", "lab", *arguments, "-o", "json")
    assert result.code == 0, result.err
    (document,) = [call[1] for call in kc.service.calls if call[0] == "create"]
    validate_document(document)
    assert json.loads(result.out)["name"] == "lab"
    return document["spec"]


def lines(result):
    return [" ".join(line.split()) for line in result.out.splitlines()]


# --- create


def test_a_static_network(kc):
    spec = create(kc, *V4, "--ipv4-mode", "static", *V6, "--ipv6-mode", "static", "--search", "lab.example")
    assert (spec["ipv4"], spec["ipv6"]) == (
        {"subnet": "10.0.0.0/24", "mode": "static"}, {"subnet": "fd00::/64", "mode": "static"},
    )  # fmt: skip
    assert spec["searchDomain"] == "lab.example"


def test_what_dhcp_gives_keeps_and_tells_goes_to_the_family_of_its_addresses(kc):
    spec = create(
        kc, *V4, *V6, "--ipv6-mode", "dhcpv6", "--range", "10.0.0.100-10.0.0.119", "--range", "fd00::100-fd00::1ff",
        "--range", "10.0.0.200-10.0.0.209", "--reserve", "10.0.0.9=52:54:00:AA:bb:09",
        "--reserve", "fd00::9=00:01:00:01:2A:bb:52:54", "--reserve", "fd00::a=printer", "--lease", "1h",
        "--route", "10.9.0.0/16,via=10.0.0.2", "--route", "fd09::/48,via=fd00::2", "--ntp", "10.0.0.3",
        "--ntp", "fd00::3", "--dns", "9.9.9.9",
    )  # fmt: skip
    assert spec["ipv4"] == {
        "subnet": "10.0.0.0/24",
        "mode": "dhcp",
        "ranges": [{"start": "10.0.0.100", "end": "10.0.0.119"}, {"start": "10.0.0.200", "end": "10.0.0.209"}],
        "reservations": [{"address": "10.0.0.9", "mac": "52:54:00:aa:bb:09"}],
        "routes": [{"to": "10.9.0.0/16", "via": "10.0.0.2"}],
        "ntp": ["10.0.0.3"],
        "leaseSeconds": 3600,
    }
    assert spec["ipv6"]["reservations"] == [
        {"address": "fd00::9", "duid": "00:01:00:01:2a:bb:52:54"},
        {"address": "fd00::a", "hostname": "printer"},
    ]
    assert spec["ipv6"]["ranges"] == [{"start": "fd00::100", "end": "fd00::1ff"}]
    assert spec["ipv6"]["routes"] == [{"to": "fd09::/48", "via": "fd00::2"}]
    assert (spec["ipv6"]["ntp"], spec["ipv6"]["leaseSeconds"], spec["dns"]) == (["fd00::3"], 3600, ["9.9.9.9"])


@pytest.mark.parametrize(
    ("arguments", "mode"),
    [
        (("--ipv6", "fd00::/64"), "slaac"),
        (("--ipv6", "fd00::/80"), "dhcpv6"),
        (("--ipv6", "fd00::/64", "--ipv6-mode", "stateless"), "stateless"),
        (("--ipv6", "fd00::/64", "--ipv6-mode", "none"), "none"),
    ],
)
def test_ipv6_alone_is_enough(kc, arguments, mode):
    spec = create(kc, *arguments)
    assert (spec["ipv6"]["mode"], spec["ipv4"]) == (mode, {"subnet": "", "mode": "none"})


@pytest.mark.parametrize("uplink", ["nat", "isolated", "routed", "bridge:br0"])
def test_every_uplink(kc, uplink):
    assert create(kc, "--uplink", uplink)["uplink"] == uplink


@pytest.mark.parametrize(
    "gateway", ["host", "none", "10.0.0.254", "10.0.0.254,fd00::ffff", "vm:fw", "vm:fw/nic1", "router:edge"]
)
def test_every_gateway(kc, gateway):
    assert create(kc, *V4, *V6, "--gateway", gateway)["gateway"] == gateway


@pytest.mark.parametrize(
    ("text", "vxlan"),
    [
        (
            "vni=100,local=192.0.2.1,peer=192.0.2.2,peer=192.0.2.3",
            {"vni": 100, "local": "192.0.2.1", "peers": ["192.0.2.2", "192.0.2.3"]},
        ),
        (
            "local=fd01::1,group=ff05::1,port=4790,dev=eth0",
            {"local": "fd01::1", "group": "ff05::1", "port": 4790, "dev": "eth0"},
        ),
    ],
)
def test_a_vxlan(kc, text, vxlan):
    assert create(kc, "--uplink", "isolated", "--vxlan", text)["vxlan"] == vxlan


def test_guards_and_rates(kc):
    spec = create(
        kc, "--anti-spoof", "address", "--dhcp-guard", "on", "--ra-guard", "off", "--isolate-vms",
        "--rate-receive", "10MB", "--rate-send", "100Mbit",
    )  # fmt: skip
    assert spec["guard"] == {"antiSpoof": "address", "dhcpGuard": "on", "raGuard": "off", "isolated": True}
    assert spec["rateLimit"] == {"receiveBytesPerSecond": 10_000_000, "sendBytesPerSecond": 12_500_000}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--uplink", "magic"), "argument --uplink: 'magic' is none of nat, isolated, routed, bridge:BR"),
        (("--uplink", "bridge:"), "argument --uplink: 'bridge:'"),
        (("--gateway", "fw"), "argument --gateway: 'fw' is none of host, none, ADDRESS"),
        (("--gateway", "10.0.0.1/24"), "argument --gateway: "),
        (("--gateway", "10.0.0.1,10.0.0.2"), "argument --gateway: "),
        (("--gateway", "vm:"), "argument --gateway: "),
        (("--ipv4-mode", "magic"), "argument --ipv4-mode: "),
        (("--ipv4-mode", "dhcp"), "--ipv4-mode dhcp needs addresses. give --ipv4 CIDR"),
        (("--ipv6-mode", "slaac", *V4), "--ipv6-mode slaac needs addresses. give --ipv6 CIDR"),
        (("--range", "10.0.0.1", *V4), "argument --range: '10.0.0.1' is not FIRST-LAST"),
        (("--range", "10.0.0.1-fd00::1", *V4), "argument --range: "),
        (("--range", "fd00::1-fd00::9", *V4), "--range is about IPv6, and the network has no such addresses."),
        (("--reserve", "10.0.0.9", *V4), "argument --reserve: '10.0.0.9' is not ADDRESS=MAC"),
        (("--reserve", "10.0.0.9=printer", *V4), "argument --reserve: '10.0.0.9=printer' names no MAC"),
        (("--reserve", "fd00::9=52:54:00:00:00:09", *V6), "argument --reserve: "),
        (("--reserve", "10.0.0.9=52:54:00:00:00:09"), "--reserve is about IPv4, and the network has no such addresses"),
        (("--route", "10.9.0.0/16", *V4), "argument --route: '10.9.0.0/16' is not TO,via=ADDR"),
        (("--route", "10.9.0.0/16,via=fd00::1", *V4, *V6), "argument --route: "),
        (("--ntp", "time.example", *V4), "argument --ntp: 'time.example' is no IP address"),
        (("--ntp", "fd00::3", *V4), "--ntp is about IPv6"),
        (("--lease", "soon", *V4), "argument --lease: 'soon' is no time: write seconds, or 30m, 1h or 7d"),
        (("--lease", "0", *V4), "argument --lease: "),
        (("--lease", "1h"), "--lease: there is no address to lend. give --ipv4 CIDR or --ipv6 CIDR"),
        (("--vxlan", "vni=1"), "argument --vxlan: 'vni=1' does not say local=IP"),
        (("--vxlan", "vni=1,local=192.0.2.1"), "names neither peer=IP nor group=IP"),
        (("--vxlan", "local=192.0.2.1,peer=192.0.2.2,group=239.1.1.1"), "names both peers and a group"),
        (("--vxlan", "vni=many,local=192.0.2.1,peer=192.0.2.2"), "argument --vxlan: 'vni=many' is no number"),
        (("--vxlan", "vni=1,vni=2,local=192.0.2.1,peer=192.0.2.2"), "argument --vxlan: vni is there twice"),
        (("--vxlan", "id=1,local=192.0.2.1"), "argument --vxlan: 'id=1' is no part of vni=N,local=IP"),
        (("--anti-spoof", "on"), "argument --anti-spoof: "),
        (("--rate-send", "10Mb"), "argument --rate-send: '10Mb' is no rate: write 10MB, 8MiB or 100Mbit"),
        (("--rate-receive", "fast"), "argument --rate-receive: "),
        (("--mtu", "big"), "argument --mtu: "),
    ],
)  # fmt: skip
def test_what_no_network_can_be_made_of_is_wrong_usage_that_names_the_flag(kc, arguments, told):
    result = kc("network", "create", "lab", *arguments)
    assert (result.code, result.out) == (2, "")
    assert told in result.err
    assert len(result.err.splitlines()) == 1
    assert [call for call in kc.service.calls if call[0] == "create"] == []


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("8192", 8192), ("10kB", 10_000), ("10KB", 10_000), ("10MB", 10_000_000), ("1.5MB", 1_500_000),
        ("8MiB", 8 << 20), ("1GiB", 1 << 30), ("100Mbit", 12_500_000), ("1Gbit", 125_000_000),
        ("100Mbit/s", 12_500_000), ("10 MB", 10_000_000),
        ("0.5GB", 500_000_000), ("64KiB/s", 65_536), ("80bit", 10), ("9000B", 9000),
    ],
)  # fmt: skip
def test_rates_are_bytes_a_second(text, rate):
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "MB", "10M", "10mb", "10Mbps", "10 Mb", "-1", "1e6", "10MBit", "9" * 40, "1,5MB"])
def test_a_rate_that_may_mean_two_things_is_none(text):
    with pytest.raises(ArgumentTypeError):
        parse_rate(text)


@pytest.mark.parametrize(
    ("rate", "text"),
    [(12_500_000, "12.5 MB/s"), (8 << 20, "8 MiB/s"), (10_000, "10 kB/s"), (999, "999 B/s"), (8192, "8 KiB/s")],
)
def test_a_rate_is_shown_as_it_was_meant(rate, text):
    assert format_rate(rate) == text


@pytest.mark.parametrize("text", ["90s", "30m", "1h", "7d", "3601s"])
def test_times_are_shown_as_they_are_written(text):
    assert format_seconds(parse_duration(text)) == text


# --- NICs


@pytest.mark.parametrize(
    ("text", "nic"),
    [
        ("lab,ipv4=static", {"ipv4": {"mode": "static"}}),
        ("lab,ipv6=stateless", {"ipv6": {"mode": "stateless"}}),
        ("lab,reserve=10.0.0.9/24", {"ipv4": {"mode": "dhcp", "address": "10.0.0.9/24"}}),
        ("lab,reserve=10.0.0.9/24,ipv4=dhcp", {"ipv4": {"mode": "dhcp", "address": "10.0.0.9/24"}}),
        ("lab,ipv4=dhcp,reserve=10.0.0.9/24", {"ipv4": {"mode": "dhcp", "address": "10.0.0.9/24"}}),
        (
            "lab,reserve=10.0.0.9/24,reserve=fd00::9/64",
            {
                "ipv4": {"mode": "dhcp", "address": "10.0.0.9/24"},
                "ipv6": {"mode": "dhcpv6", "address": "fd00::9/64"},
            },
        ),
        (
            "lab,antispoof=mac,dhcp-guard=off,ra-guard=on,isolated=yes",
            {"guard": {"antiSpoof": "mac", "dhcpGuard": "off", "raGuard": "on", "isolated": "on"}},
        ),
        ("lab,isolated=no", {"guard": {"isolated": "off"}}),
        (
            "lab,rate-receive=10MB,rate-send=none",
            {"rateLimit": {"receiveBytesPerSecond": 10_000_000, "sendBytesPerSecond": None}},
        ),
        ("lab,rate=network", {"rateLimit": None}),
    ],
)
def test_a_nic_with_its_options(text, nic):
    parsed = parse_nic(text)
    assert parsed == {"network": "lab", **nic}
    spec = {"image": "starter", "type": "tiny", "nics": [parsed]}
    validate_document({"kind": "VM", "name": "web", "spec": spec})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("lab,antispoof=yes", "antispoof=yes is none of network, auto, off, mac, address"),
        ("lab,isolated=on", "isolated=on is none of yes, no, network"),
        ("lab,reserve=10.0.0.9", "is not a CIDR: write reserve=10.0.0.9/24"),
        ("lab,reserve=10.0.0.9/24,ipv4=static", "ipv4 is there twice"),
        ("lab,reserve=10.0.0.9/24,reserve=10.0.0.8/24", "ipv4 is there twice"),
        ("lab,ipv4=dhcp,ipv4=dhcp", "ipv4 is there twice"),
        ("lab,rate=10MB", "rate-receive= and rate-send= take a rate"),
        ("lab,rate-send=10Mb", "is no rate"),
        ("lab,guard=off", "is none of ipv4=…, ipv6=…, reserve=…, mac=…, antispoof=…"),
    ],
)
def test_options_of_a_nic_that_mean_nothing(text, told):
    with pytest.raises(ArgumentTypeError, match=re.escape(told)):
        parse_nic(text)


def test_a_reserved_address_is_for_one_vm(kc):
    result = kc(
        "vm", "create", "web", "--image", "i", "--type", "t", "--network", "lab,reserve=10.0.0.9/24", "--count", "2"
    )
    assert result.code == 2
    assert "several VMs cannot share one address" in result.err


def test_no_option_is_no_change():
    assert parse_options([]) == []


# --- list and show

SPEC = {
    "uplink": "isolated", "ipv4": {"subnet": "10.0.0.0/24", "mode": "dhcp"}, "ipv6": {"subnet": "", "mode": "none"},
    "gateway": "vm:fw", "dns": [], "description": "for trials",
}  # fmt: skip
VXLAN = {"vni": 100, "local": "192.0.2.1", "peers": ["192.0.2.2", "192.0.2.3"], "group": "", "port": 4789, "dev": ""}
PROBLEMS = [
    {"code": "dnsmasq", "message": "its DHCP server does not run", "hint": "kc network reconcile lab"},
    {"code": "mtu", "message": "its MTU differs", "hint": "kc network reconcile lab"},
]


def test_the_list_says_how_each_network_is_and_what_is_wrong_first(kc):
    kc.service.add("Network", "lab", spec=SPEC | {"vxlan": VXLAN}, status={"state": "degraded", "problems": PROBLEMS})
    kc.service.add(
        "Network", "well", spec=SPEC | {"uplink": "nat", "vxlan": VXLAN | {"vni": None}}, status={"state": "up"}
    )
    kc.service.add("Network", "odd", spec=SPEC, status={"vms": ["a", "b"]})
    nics = [{"id": "nic0", "network": {"name": "lab"}}, {"id": "nic1", "network": {"name": "lab"}}]
    kc.service.add("VM", "web", spec={"nics": nics}, status={"power": "running"})
    rows = lines(kc("network", "list"))
    assert rows[0] == "NAME STATE UPLINK IPV4 IPV6 GATEWAY VMS REMARK"
    assert rows[1] == "lab degraded vxlan 100 10.0.0.0/24 dhcp – vm:fw 1 its DHCP server does not run (+1)"
    assert rows[2] == "odd unknown isolated 10.0.0.0/24 dhcp – vm:fw 2 for trials"
    assert rows[3] == "well up nat, vxlan 10.0.0.0/24 dhcp – vm:fw 0 for trials"
    (first, *_rest) = kc("network", "list", "-o", "json").json()["items"]
    assert first["status"] == {"state": "degraded", "problems": PROBLEMS}
    assert kc("network", "list", "-o", "name").out == "lab\nodd\nwell\n"


def test_a_network_is_shown_with_its_problems_first(kc):
    status = {
        "state": "degraded", "problems": PROBLEMS, "bridge": "virbr7", "mtu": 1450,
        "gateway": {"ipv4": "10.0.0.254", "ipv6": "", "state": "silent"}, "vms": ["db", "web"],
        "leases": [{"mac": "52:54:00:00:00:01", "address": "10.0.0.17", "hostname": "web", "vm": "web", "nic": "nic0"}],
        "addresses": [
            {"address": "10.0.0.1", "owner": "host", "source": "host"},
            {"address": "10.0.0.17", "owner": "VM web/nic0", "source": "lease"},
        ],
        "free": {"ipv4": 1250, "ipv6": (1 << 64) - 2},
    }  # fmt: skip
    side = {
        "subnet": "10.0.0.0/24", "mode": "dhcp", "leaseSeconds": 5400,
        "ranges": [{"start": "10.0.0.100", "end": "10.0.0.199"}],
        "reservations": [{"address": "10.0.0.9", "mac": "52:54:00:00:00:09", "duid": "", "hostname": "printer"}],
        "routes": [{"to": "10.9.0.0/16", "via": "10.0.0.2"}], "ntp": ["10.0.0.3"],
    }  # fmt: skip
    guard = {"antiSpoof": "address", "dhcpGuard": "auto", "raGuard": "off", "isolated": True}
    more = {
        "vxlan": VXLAN, "ipv4": side, "guard": guard, "mtu": 1400, "searchDomain": "lab.example",
        "rateLimit": {"receiveBytesPerSecond": None, "sendBytesPerSecond": 12_500_000},
    }  # fmt: skip
    kc.service.add("Network", "lab", spec=SPEC | more, status=status)
    shown = lines(kc("network", "show", "lab"))
    assert shown[:4] == [
        "name lab",
        "state degraded",
        "problem its DHCP server does not run. kc network reconcile lab",
        "problem its MTU differs. kc network reconcile lab",
    ]
    for line in (
        "uplink vxlan 100", "vxlan VNI 100, local 192.0.2.1, port 4789", "peers 192.0.2.2, 192.0.2.3",
        "ipv4 10.0.0.0/24, dhcp, lent for 90m", "ipv4 range 10.0.0.100-10.0.0.199",
        "ipv4 reserved 10.0.0.9 52:54:00:00:00:09 printer", "ipv4 route 10.9.0.0/16 via 10.0.0.2", "ipv4 ntp 10.0.0.3",
        "ipv6 none", "gateway vm:fw, 10.0.0.254, silent", "search domain lab.example", "bridge virbr7",
        "mtu 1450, wanted 1400", "rate each NIC sends at most 12.5 MB/s", "vms db, web", "in use 10.0.0.1 host host",
        "10.0.0.17 VM web/nic0 lease", "leases 10.0.0.17 52:54:00:00:00:01 web VM web/nic0",
        "free 1,250 ipv4, about 2^64 ipv6",
        "guard anti-spoofing address, DHCP guard auto, RA guard off, VMs isolated from one another",
    ):  # fmt: skip
        assert line in shown, line


def test_a_network_of_an_older_kc_and_an_old_version_are_shown_too(kc):
    kc.service.add("Network", "lab", spec=SPEC, status={})
    shown = lines(kc("network", "show", "lab", "--version", "1"))
    assert not [line for line in shown if line.startswith(("state", "problem", "guard", "free"))]
    assert "gateway vm:fw" in shown


def test_why_nobody_knows_how_a_network_is(kc):
    status = {"state": "unknown", "problems": [], "reason": "libvirt does not answer"}
    kc.service.add("Network", "lab", spec=SPEC, status=status)
    assert "state unknown (libvirt does not answer)" in lines(kc("network", "show", "lab"))
    assert lines(kc("network", "list"))[1].startswith("lab unknown isolated ")


def test_hostile_words_of_a_status_reach_no_terminal(kc):
    status = {
        "state": HOSTILE, "problems": [{"message": HOSTILE, "hint": HOSTILE}], "bridge": HOSTILE, "vms": [HOSTILE],
        "leases": [{"mac": HOSTILE, "address": HOSTILE, "hostname": HOSTILE, "vm": HOSTILE, "nic": HOSTILE}],
        "addresses": [{"address": HOSTILE, "owner": HOSTILE, "source": HOSTILE}],
        "gateway": {"ipv4": HOSTILE, "state": HOSTILE},
    }  # fmt: skip
    kc.service.add("Network", "lab", spec=SPEC, status=status)
    guards = [{"nic": HOSTILE, "antiSpoof": HOSTILE, "drops": {HOSTILE: 3}}]
    kc.service.add_vm("web", status={"guards": guards})
    for arguments in (("network", "list"), ("network", "show", "lab"), ("network", "topology"), ("vm", "show", "web")):
        result = kc(*arguments)
        assert result.code == 0
        assert "\x1b" not in result.out + result.err
        assert "\u202e" not in result.out + result.err


def test_a_vm_is_shown_with_what_guards_its_nics_and_what_was_dropped(kc):
    guard = {
        "nic": "nic0", "antiSpoof": "address", "dhcpGuard": True, "raGuard": True, "isolated": True, "active": True,
        "receiveBytesPerSecond": 8 << 20, "sendBytesPerSecond": 0, "drops": {"mac": 3, "ipv6": 0, "dhcp-server": 2},
    }  # fmt: skip
    quiet = {**guard, "nic": "nic1", "antiSpoof": "off", "dhcpGuard": False, "raGuard": False, "isolated": False,
             "receiveBytesPerSecond": 0, "drops": {}}  # fmt: skip
    kc.service.add_vm("web", status={"guards": [guard, quiet, {**quiet, "nic": "nic2", "active": False}]})
    shown = lines(kc("vm", "show", "web"))
    assert (
        "guard nic0 its own MAC and addresses only, no DHCP server, no router, isolated, receives at most 8 MiB/s, "
        "dropped 3 mac, 2 dhcp-server"
    ) in shown
    assert "guard nic1 any sender, nothing dropped" in shown
    assert "guard nic2 any sender, not in force on the host" in shown
