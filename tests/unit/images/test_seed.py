"""The seed says to a guest what the document says, in the same bytes each time, whatever stands in its values."""

import email
import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pycdlib
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from backend.errors import RefusedError
from backend.images.cloud_config import load_schema
from backend.images.seed import SeedNic, build_seed

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHx4 me@example.org"
OTHER = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTY= you"
MAC = "52:54:00:00:00:01"
NETWORK = Draft7Validator(load_schema("schema-network-config-v2.json"))


def build(**changes: object) -> bytes:
    values: dict = {"hostname": "web-1", "instance_id": "7e1f", "ssh_keys": [], "user_data": "", "nics": []}
    return build_seed(**{**values, **changes})


def read(image: bytes, name: str, *, by: str = "rr_path") -> bytes:
    """Return a file of the image by its Rock Ridge or Joliet name."""
    reader, content = pycdlib.PyCdlib(), io.BytesIO()
    reader.open_fp(io.BytesIO(image))
    reader.get_file_from_iso_fp(content, **{by: f"/{name}"})
    reader.close()
    return content.getvalue()


def read_yaml(image: bytes, name: str) -> dict:
    """Return a file's value, which YAML and JSON must read alike."""
    content = read(image, name)
    value = yaml.safe_load(content)
    assert value == json.loads(content)
    return value


def describe(**fields: object) -> dict:
    """Return the network configuration of a single NIC, which fits cloud-init's own schema."""
    image = build(nics=[SeedNic("nic0", MAC, **fields)])
    config = read_yaml(image, "network-config")
    NETWORK.validate(config)
    assert config["version"] == 2
    return config["ethernets"]["nic0"]


def user_data(text: str, *keys: str) -> str:
    return read(build(user_data=text, ssh_keys=keys), "user-data").decode()


def refusal(**changes: object) -> str:
    with pytest.raises(RefusedError) as caught:
        build(**changes)
    line = str(caught.value)
    assert line.isprintable()
    return line


# --- the image


def test_the_image_is_labelled_and_holds_the_three_files_under_both_kinds_of_names(tmp_path: Path) -> None:
    image = build(ssh_keys=[KEY])
    path = tmp_path / "seed.iso"
    path.write_bytes(image)
    blkid = shutil.which("blkid", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    found = subprocess.run([blkid, "-p", "-o", "export", path], capture_output=True, text=True, check=True, timeout=20)
    assert "LABEL=cidata" in found.stdout
    assert "TYPE=iso9660" in found.stdout
    for name in ("meta-data", "user-data", "network-config"):
        assert read(image, name) == read(image, name, by="joliet_path") != b""


def test_equal_values_give_equal_bytes_on_any_day_in_any_time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    nics = [SeedNic("nic0", MAC, ipv4_mode="dhcp")]
    first = build(ssh_keys=[KEY], nics=nics)
    try:
        for moment, zone in ((1_000_000_000, "Asia/Kolkata"), (2_000_000_000, "America/New_York")):
            monkeypatch.setenv("TZ", zone)
            time.tzset()
            monkeypatch.setattr(time, "time", lambda moment=moment: moment)
            assert build(ssh_keys=[KEY], nics=nics) == first
    finally:
        monkeypatch.undo()
        time.tzset()
    assert build(ssh_keys=[KEY], nics=nics, hostname="web-2") != first


def test_a_seed_costs_milliseconds() -> None:
    build()
    started = time.perf_counter()
    for _ in range(10):
        build(ssh_keys=[KEY], nics=[SeedNic("nic0", MAC, ipv4_mode="dhcp")])
    assert (time.perf_counter() - started) / 10 < 0.05


def test_one_key_stands_on_each_line_for_guests_without_a_parser() -> None:
    content = read(build(nics=[SeedNic("nic0", MAC, ipv4_mode="static", ipv4_address="10.0.0.5/24")]), "network-config")
    lines = [line.strip() for line in content.decode().splitlines()]
    assert f'"macaddress": "{MAC}"' in lines
    assert '"dhcp4": false,' in lines
    assert '"10.0.0.5/24"' in lines


# --- meta-data


def test_the_instance_is_named_and_has_its_keys() -> None:
    assert read_yaml(build(ssh_keys=[f" {KEY}\n", OTHER]), "meta-data") == {
        "instance-id": "7e1f",
        "local-hostname": "web-1",
        "public-keys": [KEY, OTHER],
    }


@pytest.mark.parametrize("name", ["", "-web", "web-", "a b", "web\nroot: x", "ü", "a" * 64, "a." * 127 + "a", "{}"])
def test_what_is_no_host_name_is_refused(name: str) -> None:
    assert "not a usable host name" in refusal(hostname=name)


@pytest.mark.parametrize(
    "key", ["", "hello", f"{KEY}\nroot", "ssh-rsa", "ssh-rsa AAAA x\x1b[31m", "ssh-rsa A\udcff", "-"]
)
def test_what_is_no_public_key_is_refused(key: str) -> None:
    assert "not a public key" in refusal(ssh_keys=[key])


def test_a_key_with_options_and_any_comment_arrives_whole() -> None:
    key = 'command="echo \\"a: b\\"",no-pty ssh-rsa AAAA # {"x": [1]} – größer 😀'
    assert read_yaml(build(ssh_keys=[key]), "meta-data")["public-keys"] == [key]
    assert yaml.safe_load(user_data("", key))["ssh_authorized_keys"] == [key]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_no_comment_of_a_key_breaks_out(comment: str) -> None:
    key = f"ssh-rsa AAAA {comment}".strip()
    try:
        image = build(ssh_keys=[key], user_data="#cloud-config\npackages: [vim]\n")
    except RefusedError:
        assert not key.isprintable() or any(ord(character) > 0xFFFF or character == "\ufeff" for character in key)
        return
    assert set(read_yaml(image, "meta-data")) == {"instance-id", "local-hostname", "public-keys"}
    assert yaml.safe_load(read(image, "user-data")) == {"packages": ["vim"], "ssh_authorized_keys": [key]}


# --- network-config


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"ipv4_mode": "dhcp"}, {"dhcp4": True, "dhcp6": False, "accept-ra": False}),
        ({"ipv6_mode": "slaac"}, {"dhcp4": False, "dhcp6": False, "accept-ra": True}),
        ({"ipv6_mode": "stateless"}, {"dhcp4": False, "dhcp6": False, "accept-ra": True}),
        ({"ipv6_mode": "dhcpv6"}, {"dhcp4": False, "dhcp6": True, "accept-ra": True}),
        ({"ipv4_mode": "dhcp", "ipv6_mode": "slaac"}, {"dhcp4": True, "dhcp6": False, "accept-ra": True}),
        ({}, {"dhcp4": False, "dhcp6": False, "accept-ra": False, "optional": True}),
    ],
)
def test_each_mode_turns_on_what_it_needs_and_nothing_else(fields: dict, expected: dict) -> None:
    assert describe(**fields) == {"match": {"macaddress": MAC}, **expected}


def test_a_static_nic_has_its_addresses_routes_name_servers_and_mtu() -> None:
    nic = describe(
        ipv4_mode="static",
        ipv4_address="10.0.0.5/24",
        ipv4_gateway="10.0.0.1",
        ipv6_mode="static",
        ipv6_address="FD00:1::0:5/64",
        ipv6_gateway="fe80::1",
        dns=("10.0.0.1", "fd00:1::1"),
        search=("kc.example", "example.org"),
        routes=(("10.9.0.0/16", "10.0.0.9"), ("FD09::/48", "fd00:1::0:9")),
        mtu=1450,
    )
    assert nic == {
        "match": {"macaddress": MAC},
        "dhcp4": False,
        "dhcp6": False,
        "accept-ra": False,
        "addresses": ["10.0.0.5/24", "fd00:1::5/64"],
        "routes": [
            {"to": "0.0.0.0/0", "via": "10.0.0.1"},
            {"to": "10.9.0.0/16", "via": "10.0.0.9"},
            {"to": "::/0", "via": "fe80::1"},
            {"to": "fd09::/48", "via": "fd00:1::9"},
        ],
        "nameservers": {"addresses": ["10.0.0.1", "fd00:1::1"], "search": ["kc.example", "example.org"]},
        "mtu": 1450,
    }


def test_a_static_nic_without_a_gateway_has_no_route() -> None:
    assert "routes" not in describe(ipv4_mode="static", ipv4_address="10.0.0.5/24")


@pytest.mark.parametrize("mode", ["slaac", "stateless", "dhcpv6"])
def test_only_routes_that_no_server_tells_are_given_to_a_nic_that_asks_one(mode: str) -> None:
    routes = (("10.9.0.0/16", "10.0.0.9"), ("fd09::/48", "fd00:1::9"))
    nic = describe(ipv4_mode="dhcp", ipv6_mode=mode, ipv6_gateway="fd00:1::1", routes=routes)
    assert nic["routes"] == [{"to": "fd09::/48", "via": "fd00:1::9"}]
    assert "routes" not in describe(routes=routes)


def test_search_domains_stand_without_name_servers_too() -> None:
    assert describe(ipv4_mode="dhcp", search=("kc.example",))["nameservers"] == {"search": ["kc.example"]}


def test_addresses_of_another_mode_are_left_out() -> None:
    nic = describe(ipv4_mode="dhcp", ipv4_address="10.0.0.5/24", ipv4_gateway="10.0.0.1")
    assert "addresses" not in nic
    assert "routes" not in nic


def test_every_nic_is_found_by_its_own_mac() -> None:
    nics = [SeedNic(f"nic{number}", f"52:54:00:00:00:0{number}", ipv4_mode="dhcp") for number in range(3)]
    ethernets = read_yaml(build(nics=nics), "network-config")["ethernets"]
    assert {name: nic["match"]["macaddress"] for name, nic in ethernets.items()} == {nic.id: nic.mac for nic in nics}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"id": "nic0: {}"}, "NIC id"),
        ({"id": ""}, "NIC id"),
        ({"mac": "52:54:00:00:00:0G"}, "MAC address"),
        ({"mac": "52:54:00:AA:00:00"}, "MAC address"),
        ({"ipv4_mode": "slaac"}, "IPv4 mode"),
        ({"ipv6_mode": "dhcp"}, "IPv6 mode"),
        ({"ipv4_mode": "static"}, "address in CIDR form"),
        ({"ipv4_mode": "static", "ipv4_address": "10.0.0.5"}, "address in CIDR form"),
        ({"ipv4_mode": "static", "ipv4_address": "fd00::1/64"}, "not an address"),
        ({"ipv6_mode": "static", "ipv6_address": "fd00::1%eth0\n/64"}, "not an address"),
        ({"ipv4_mode": "static", "ipv4_address": "10.0.0.5/24", "ipv4_gateway": "10.0.0.1\n"}, "not an address"),
        ({"dns": ("resolver.example",)}, "not an address"),
        ({"search": ("a b",)}, "search domain"),
        ({"search": (".".join(["a" * 63] * 4),)}, "search domain"),
        (
            {"ipv4_mode": "static", "ipv4_address": "10.0.0.5/24", "routes": (("10.9.0.1/16", "10.0.0.9"),)},
            "an address",
        ),
        ({"ipv4_mode": "static", "ipv4_address": "10.0.0.5/24", "routes": (("10.9.0.0/16", "fe80::1"),)}, "an address"),
        ({"ipv6_mode": "slaac", "routes": (("fd09::/48", "fd00::9%eth0"),)}, "not an address"),
        ({"mtu": 67}, "MTU"),
        ({"mtu": -1}, "MTU"),
    ],
)
def test_a_nic_with_an_impossible_value_is_refused(fields: dict, said: str) -> None:
    assert said in refusal(nics=[SeedNic(**{"id": "nic0", "mac": MAC, **fields})])


def test_two_nics_with_one_id_or_mac_are_refused() -> None:
    assert "same id" in refusal(nics=[SeedNic("nic0", MAC), SeedNic("nic0", "52:54:00:00:00:02")])
    assert "same mac" in refusal(nics=[SeedNic("nic0", MAC), SeedNic("nic1", MAC)])


# --- user-data


def test_without_user_data_there_is_an_empty_cloud_config() -> None:
    for text in ("", " \n\t"):
        found = user_data(text)
        assert found.startswith("#cloud-config\n")
        assert yaml.safe_load(found) == {}


@pytest.mark.parametrize(
    "text",
    [
        "#cloud-config\npackages: [vim] # an editor\n",
        "#cloud-config",
        "#!/bin/sh\necho 'hello: ['\n",
        "#include\nhttps://example.org/data\n",
        "#include-once\nhttps://example.org/data\n",
        "#cloud-boothook\n#!/bin/sh\n",
        "#cloud-config-archive\n- type: text/cloud-config\n",
        "#part-handler\nimport x\n",
        "## template: jinja\n#cloud-config\nx: {{ v1.cloud_name }}\n",
        'Content-Type: multipart/mixed; boundary="b"\nMIME-Version: 1.0\n\n--b\nContent-Type: text/x-sh\n\n#!\n--b--\n',
    ],
    ids=lambda text: text.split("\n")[0],
)
def test_what_cloud_init_knows_arrives_as_it_was_given(text: str) -> None:
    assert user_data(text) == text
    if not text.startswith("#cloud-config\n") and text != "#cloud-config":
        assert user_data(text, KEY) == text


@pytest.mark.parametrize(
    "text",
    [
        "hello",
        "packages: [vim]",
        "\n#cloud-config\n",
        "  #cloud-config\n",
        "#cloud-configuration\n",
        "\ufeff#cloud-config",
        "# x",
    ],
)
def test_what_cloud_init_does_not_know_is_refused(text: str) -> None:
    assert "cloud-init does not know what begins with" in refusal(user_data=text)


def test_user_data_is_limited_in_bytes() -> None:
    head = "#!/bin/sh\n"
    assert user_data(head + "x" * ((256 << 10) - len(head)))
    assert "262145 bytes" in refusal(user_data=head + "x" * ((256 << 10) - len(head) + 1))
    assert "more than 262144" in refusal(user_data=head + "ä" * (128 << 10))


def test_what_is_no_text_is_refused() -> None:
    assert "NUL" in refusal(user_data="#!/bin/sh\n\0")
    assert "not text in UTF-8" in refusal(user_data="#!/bin/sh\n\udcff")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("a: 1\nb: [1,\nc: 2\n", "line 5"),
        ("a: 1\n\tb: 2\n", "line 3"),
        ("a: !!python/object/apply:os.system [id]\n", "line 2"),
        ("a: 1\n---\nb: 2\n", "line 3"),
        ("a: *nowhere\n", "line 2"),
        ("- a\n- b\n", "no mapping"),
        ("hello\n", "no mapping"),
        ("a: 2024-13-45\n", "no YAML"),
        ("a: !!int ''\n", "no YAML"),
        ("a: !!bool maybe\n", "no YAML"),
        ("a: !!timestamp never\n", "no YAML"),
        ("a: \x07\n", "no YAML"),
        ("a: " + "[" * 100_000, "nests deeper than 64 levels"),
        ("a: " + "{a: " * 200, "nests deeper than 64 levels"),
    ],
    ids=lambda value: value[:20],
)
@pytest.mark.parametrize("keys", [[], [KEY]], ids=["without keys", "with keys"])
def test_a_cloud_config_with_a_fault_is_refused_with_its_line(body: str, said: str, keys: list[str]) -> None:
    assert said in refusal(user_data=f"#cloud-config\n{body}", ssh_keys=keys)


def test_a_cloud_config_that_multiplies_itself_is_no_trap() -> None:
    bomb = "#cloud-config\na0: &a0 [x, x]\n" + "".join(
        f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}]\n" for n in range(1, 60)
    )
    started = time.perf_counter()
    parts = email.message_from_string(user_data(bomb, KEY)).get_payload()
    assert parts[0].get_payload(decode=True).decode() == bomb
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    "body",
    [
        "",
        "packages: [vim]  # an editor",
        "a: 1\nb:\n  - x: |\n      text\n",
        "x: {a: 1}\n",
        "--- # start\na: 1\n",
        "on: 1\n",
    ],
)
def test_keys_join_a_cloud_config_behind_its_own_text(body: str) -> None:
    text = f"#cloud-config\n{body}"
    found = user_data(text, KEY, OTHER)
    assert found.startswith(text.rstrip())
    expected = {**(yaml.safe_load(text) or {}), "ssh_authorized_keys": [KEY, OTHER]}
    assert yaml.safe_load(found) == expected


@pytest.mark.parametrize(
    "body",
    [
        f"ssh_authorized_keys:\n- {OTHER}\n",  # keys of its own
        "ssh_authorized_keys: none\n",  # not a list
        "{packages: [vim]}\n",  # braces, behind which nothing can stand
        "a: 1\n...\n",  # an end before the end
        "a: &x [1]\nb: *x\n",  # aliases
        "a: 'ä 😀'\nssh_authorized_keys: []\n",
        "  a: 1\n",  # indented as a whole
    ],
)
def test_keys_that_cannot_join_travel_in_a_second_part(body: str) -> None:
    text = f"#cloud-config\n{body}"
    archive = email.message_from_string(user_data(text, KEY))
    assert archive.get_content_type() == "multipart/mixed"
    assert "mime-version:" in archive.as_string()[:4096].lower()
    first, second = archive.get_payload()
    assert [part.get_content_type() for part in (first, second)] == ["text/cloud-config"] * 2
    assert first.get_payload(decode=True).decode() == text
    assert yaml.safe_load(second.get_payload(decode=True)) == {"ssh_authorized_keys": [KEY]}
    assert second["Merge-Type"] == "list(append)+dict(no_replace,recurse_list)+str()"


def test_a_key_that_is_there_already_is_not_added() -> None:
    text = f"#cloud-config\nssh_authorized_keys: ['{KEY}']\n"
    assert user_data(text, KEY) == text


def test_what_stands_in_a_block_of_text_at_the_end_swallows_no_key() -> None:
    text = "#cloud-config\nwrite_files:\n- path: /x\n  content: |\n    end\n"
    found = yaml.safe_load(user_data(text, KEY))
    assert found["ssh_authorized_keys"] == [KEY]
    assert found["write_files"] == [{"path": "/x", "content": "end\n"}]


def test_a_text_that_cloud_init_would_mistake_for_an_archive_is_refused() -> None:
    assert "takes it for a MIME archive" in refusal(user_data="#cloud-config\nx: |\n  MIME-Version: 1.0\n")
    assert "takes it for a MIME archive" in refusal(user_data="MIME-Version: 1.0\n\nhello\n")


def test_a_cloud_config_in_an_archive_is_checked_too() -> None:
    text = (
        'Content-Type: multipart/mixed; boundary="b"\nMIME-Version: 1.0\n\n'
        "--b\nContent-Type: text/cloud-config\n\na: [1\n--b--\n"
    )
    assert "line 1: expected" in refusal(user_data=text)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_a_cloud_config_keeps_its_meaning_or_is_refused(body: str) -> None:
    text = f"#cloud-config\n{body}"
    try:
        found = user_data(text, KEY)
    except RefusedError:
        return
    if found.startswith("#cloud-config"):
        assert yaml.safe_load(found) == {**(yaml.safe_load(text) or {}), "ssh_authorized_keys": [KEY]}
    else:
        assert email.message_from_string(found).get_payload()[0].get_payload(decode=True).decode() == text


def test_nothing_heavy_is_imported_before_a_seed_is_built() -> None:
    script = (
        "import sys, backend.images.seed; print(*sorted({'pycdlib', 'yaml', 'email', 'pydantic'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=60, text=True)
    assert result.stdout.strip() == ""
