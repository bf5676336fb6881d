"""User-data is held against cloud-init's own schema, and no password goes into a guest in plain text."""

import email
import json
import time
from itertools import product
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft4Validator, Draft7Validator

from backend.errors import RefusedError
from backend.images.cloud_config import MAXIMUM_WARNINGS, find_parts, find_warnings, load_schema
from backend.images.seed import SeedNic, _describe_network
from backend.images.user_data import complete_user_data, join_user_data

HASH = "$6$c3BlYw$Jm1vbm9wb2x5.ZKq/uW9ySBXZ3X3nEyQp1yA2rT5o6vX9bB7cC8dD1eE2fF3gG4hH5iI6jJ7kK8lL9mM0nN1"
YESCRYPT = "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$X3DX6M94c7o.9agCG9G317fhZg9SqC.5i5rd.RhAtQ7"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHx4 me@example.org"


def cloud_config(value: Any) -> str:
    return f"#cloud-config\n{yaml.safe_dump(value)}"


def archive(*parts: tuple[str, str]) -> str:
    """Return a MIME archive of parts, each its type and text."""
    bodies = "".join(f"--b\nContent-Type: {kind}\n\n{text}\n" for kind, text in parts)
    return f'Content-Type: multipart/mixed; boundary="b"\nMIME-Version: 1.0\n\n{bodies}--b--\n'


def refusal(text: str, password_hash: str = "") -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        complete_user_data(text, [], password_hash)
    assert str(caught.value).isprintable()
    return caught.value


# --- the schema


@pytest.mark.parametrize("name", ["schema-cloud-config-v1.json", "schema-network-config-v2.json"])
def test_a_schema_needs_nothing_from_elsewhere(name: str) -> None:
    schema = load_schema(name)
    validator = Draft4Validator if "draft-04" in schema["$schema"] else Draft7Validator
    validator.check_schema(schema)
    assert "draft-0" in schema["$schema"]
    assert json.dumps(schema).count('"$ref": "#/') == json.dumps(schema).count('"$ref"') > 0


@pytest.mark.parametrize(
    "text",
    [
        "",
        "#cloud-config\n{}\n",
        "#!/bin/sh\necho hello\n",
        "#include\nhttp://example.org/x\n",
        cloud_config({"packages": ["vim", ["nginx", "1.2"]], "runcmd": ["ls", ["ls", "-l"]], "ssh_pwauth": False}),
        cloud_config({"users": ["default", {"name": "bob", "ssh_authorized_keys": [KEY], "passwd": HASH}]}),
        cloud_config({"write_files": [{"path": "/etc/x", "content": "x" * 5000, "permissions": "0644"}]}),
        cloud_config({"write_files": [{"path": "/etc/x", "content": b"\xff\xfe"}]}),
        "## template: jinja\n#cloud-config\nhostname: {{ v1.instance_id }}\n",
    ],
)
def test_what_cloud_init_takes_is_not_warned_of(text: str) -> None:
    assert find_warnings(text) == []


@pytest.mark.parametrize("password_hash", ["", YESCRYPT], ids=["key", "both"])
def test_what_kc_adds_fits_the_schema_itself(password_hash: str) -> None:
    for text in ("", cloud_config({"packages": ["vim"]}), cloud_config({"user": {"name": "bob"}})):
        assert find_warnings(join_user_data(text, [KEY], password_hash)) == []


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"packages": 5}, "packages: 5 is not of type 'array'"),
        ({"package": ["vim"]}, "Additional properties are not allowed ('package' was unexpected)"),
        ({"users": [{"nam": "bob"}]}, "users.0: 'name' is a required property or 'snapuser' is a required property"),
        ({"write_files": [{"path": "/x"}, {"contents": ""}]}, "write_files.1: Additional properties are not allowed"),
        ({"swap": {"size": "10Q"}}, "swap.size: '10Q' is not one of ['auto'] or '10Q' does not match"),
        ({5: 1}, "Additional properties are not allowed ('5' was unexpected)"),
    ],
    ids=["type", "name", "inside", "second", "pattern", "number"],
)
def test_a_mistake_is_told_with_its_path(config: dict, line: str) -> None:
    (found,) = {text for text in find_warnings(cloud_config(config)) if text.startswith(line)}
    assert found.isprintable()
    complete_user_data(cloud_config(config), [])


def test_each_part_of_an_archive_is_looked_at() -> None:
    wrong = "#cloud-config\npackages: 5\n"
    mime = archive(
        ("text/cloud-config", "#cloud-config\n{}\n"), ("text/x-shellscript", "#!/bin/sh\n"), ("text/plain", wrong)
    )
    assert find_warnings(mime) == ["part 2: packages: 5 is not of type 'array'"]
    listed = f"#cloud-config-archive\n- type: text/cloud-config\n  content: 'packages: 5'\n- {json.dumps(wrong)}\n"
    assert find_warnings(listed) == [f"part {number}: packages: 5 is not of type 'array'" for number in (1, 2)]


def test_warnings_are_few_and_harmless_however_many_there_are() -> None:
    text = cloud_config({f"key-{number} \x1b[2J": 1 for number in range(50)} | {"runcmd": [5] * 900})
    found = find_warnings(text)
    assert len(found) == MAXIMUM_WARNINGS + 1
    assert all(line.isprintable() and len(line) < 700 for line in found)


NAMES = "abcdef"
BELOW = ["1", *(f"*{name}" for name in NAMES)]
BOMB = "".join(f"{name}: &{name} [{','.join([BELOW[index]] * 9)}]\n" for index, name in enumerate(NAMES))


@pytest.mark.parametrize(
    "body",
    [
        BOMB,
        "runcmd: &a [*a]\n",
        "users: &a [*a, {name: bob, groups: *a}]\n",
        "swap: {size: " + "1" * 200_000 + "x}\n",
        "mounts: [" + "[a]," * 15_000 + "]\n",
        "chpasswd: {list: [" + f'"{"a:" * 2000}\\n:{HASH}"' + "]}\n",
    ],
    ids=["bomb", "circle", "two circles", "digits", "many", "colons"],
)
def test_a_hostile_config_keeps_nobody_waiting(body: str) -> None:
    started = time.perf_counter()
    assert len(find_warnings(f"#cloud-config\n{body}")) <= MAXIMUM_WARNINGS + 1
    assert time.perf_counter() - started < 15


TEXTS = st.text(st.sampled_from("#cloud-config\n:-{}[]&*a!|>' \t\x00ü"), max_size=60)


@settings(deadline=None, max_examples=200)
@given(TEXTS.map("#cloud-config\n".__add__) | TEXTS | TEXTS.map(lambda text: archive(("text/cloud-config", text))))
def test_any_text_has_warnings_or_is_refused(text: str) -> None:
    try:
        joined = complete_user_data(text, [KEY], HASH)
    except RefusedError:
        return
    assert all(line.isprintable() for line in find_warnings(text))
    # The user's own parts arrive, and behind them what KC adds.
    before, after = (tuple(part.text for part in find_parts(each)) for each in (text, joined))
    if text.strip() and len(after) > len(before):
        assert after[: len(before)] == before
    assert any(HASH in each for each in after)


# --- passwords


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({"password": "hello"}, "password"),
        ({"password": 12345}, "password"),
        ({"password": YESCRYPT}, "password"),
        ({"chpasswd": {"list": "bob:hello\n"}}, "chpasswd.list.0"),
        ({"chpasswd": {"list": [f"ann:{HASH}", "bob:RANDOM"]}}, "chpasswd.list.1"),
        ({"chpasswd": {"list": f"bob:{YESCRYPT}"}}, "chpasswd.list.0"),
        ({"chpasswd": {"users": [{"name": "bob", "password": "x", "type": "text"}]}}, "chpasswd.users.0.type"),
        ({"chpasswd": {"users": [{"name": "bob", "type": "RANDOM"}]}}, "chpasswd.users.0.type"),
        ({"chpasswd": {"users": [{"name": "bob", "password": "hello"}]}}, "chpasswd.users.0.password"),
        ({"users": ["default", {"name": "bob", "plain_text_passwd": "hello"}]}, "users.1.plain_text_passwd"),
        ({"users": [{"name": "bob", "plain-text-passwd": "hello"}]}, "users.0.plain_text_passwd"),
        ({"users": {"bob": {"plain_text_passwd": "hello"}}}, "users.bob.plain_text_passwd"),
        ({"users": [{"name": "bob", "passwd": "hello"}]}, "users.0.passwd"),
        ({"users": [{"name": "bob", "hashed_passwd": ""}]}, "users.0.hashed_passwd"),
        ({"user": {"hashed_passwd": "$6$hello"}}, "user.hashed_passwd"),
        ({"user": {"plain_text_passwd": "hello"}}, "user.plain_text_passwd"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_password_in_plain_text_is_refused_wherever_it_stands(config: dict, path: str) -> None:
    text = cloud_config(config)
    listed = f"#cloud-config-archive\n- {json.dumps(text)}\n"
    template = text.replace("#cloud-config\n", "## template: jinja\n#cloud-config\n", 1)
    mime = archive(("text/x-shellscript", "#!/bin/sh\n"), ("text/cloud-config", text))
    hidden = archive(("text/plain", f"\n{text.replace('#cloud-config', '#Cloud-Config')}"))
    for whole in (text, listed, template, mime, hidden, archive(("text/cloud-config-archive", listed))):
        error = refusal(whole)
        assert error.why.startswith(f"{path}: ")
        assert "openssl passwd -6" in error.hint
        assert "--password-hash" in error.hint
        assert "hello" not in str(error)


@pytest.mark.parametrize(
    "config",
    [
        {"password": HASH, "chpasswd": {"expire": False}},
        {"chpasswd": {"list": [f"bob:{HASH}"]}},
        {"chpasswd": {"users": [{"name": "bob", "password": YESCRYPT}]}},
        {"users": [{"name": "bob", "passwd": HASH}, {"name": "ann", "hashed_passwd": YESCRYPT, "lock_passwd": False}]},
        {"users": [{"name": "bob", "passwd": "!"}, {"name": "ann", "passwd": None}], "user": {"passwd": "*"}},
        {"users": "bob, ann", "user": "bob", "chpasswd": [], "password": None},
    ],
    ids=["default", "list", "users", "accounts", "locked", "none"],
)
def test_hashes_and_locks_are_taken(config: dict) -> None:
    assert complete_user_data(cloud_config(config), []) == cloud_config(config)


def test_a_seed_of_the_time_before_is_still_written() -> None:
    assert join_user_data("#cloud-config\npassword: hello\n", []) == "#cloud-config\npassword: hello\n"


def test_an_account_that_is_named_a_thousand_times_is_looked_at_once() -> None:
    keys = ",".join(f"k{number}: 1" for number in range(5000))
    started = time.perf_counter()
    complete_user_data(f"#cloud-config\na: &a {{{keys}}}\nusers: [{'*a,' * 20_000}]\n", [])
    assert time.perf_counter() - started < 20


# --- the default user's hash


def test_the_hash_joins_an_empty_text_and_a_config() -> None:
    users = [{"name": "default", "hashed_passwd": YESCRYPT, "lock_passwd": False}]
    assert yaml.safe_load(complete_user_data("", [KEY], YESCRYPT)) == {"ssh_authorized_keys": [KEY], "users": users}
    joined = complete_user_data("#cloud-config\npackages: [vim] # mine\n", [], YESCRYPT)
    assert joined.startswith("#cloud-config\npackages: [vim] # mine\n")
    assert yaml.safe_load(joined) == {"packages": ["vim"], "users": users}


OTHERS = [
    "#!/bin/sh\necho 'grün' >/x\n",
    "#include\nhttp://example.org/x\n",
    "#cloud-boothook\n#!/bin/sh\n",
    "#cloud-config-archive\n- '#!/bin/sh'\n",
    "## template: jinja\n#cloud-config\nhostname: {{ v1.x }}\n",
    "#cloud-config\nusers: [default, bob]\n",
    "#cloud-config\na: &a 1\nruncmd: [*a]\n",
    "#cloud-config\nfinal_message: |\n  bye",
]


@pytest.mark.parametrize("text", OTHERS, ids=range(len(OTHERS)))
def test_the_hash_travels_beside_what_it_cannot_stand_in(text: str) -> None:
    first, second = email.message_from_string(complete_user_data(text, [], HASH)).get_payload()
    assert first.get_payload(decode=True).decode() == text
    assert first.get_content_type() == ("text/cloud-config" if text.startswith("#cloud-config\n") else "text/plain")
    assert yaml.safe_load(second.get_payload(decode=True)) == {
        "users": [{"name": "default", "hashed_passwd": HASH, "lock_passwd": False}]
    }
    assert "list(append)" in second["Merge-Type"]


def test_the_hash_joins_an_archive_and_leaves_its_parts_as_they_are() -> None:
    mine = archive(("text/cloud-config", "#cloud-config\npackages: [vim]\n"), ("text/x-shellscript", "#!/bin/sh\nä\n"))
    once = complete_user_data(mine, [], HASH)
    kinds = [part.get_content_type() for part in email.message_from_string(once).walk() if not part.is_multipart()]
    assert kinds == ["text/cloud-config", "text/x-shellscript", "text/cloud-config"]
    assert mine.partition("MIME-Version: 1.0\n")[2].strip() in once
    # What KC wrote can be what a user gives.
    again = join_user_data(once, [], HASH)
    assert len([part for part in email.message_from_string(again).walk() if not part.is_multipart()]) == 4


@pytest.mark.parametrize(
    "config",
    [
        {"password": HASH},
        {"user": {"name": "bob", "hashed_passwd": HASH}},
        {"user": {"passwd": HASH}},
        {"user": {"lock_passwd": True}},
        {"users": [{"name": "default", "hashed_passwd": HASH}]},
        {"users": {"default": {"passwd": HASH}}},
    ],
    ids=["password", "user", "passwd", "locked", "default", "mapping"],
)
def test_two_passwords_for_the_default_user_are_refused(config: dict) -> None:
    complete_user_data(cloud_config(config), [])
    for text in (cloud_config(config), archive(("text/cloud-config", cloud_config(config)))):
        error = refusal(text, YESCRYPT)
        assert "stands against the VM's password hash" in error.why
        assert error.details == {"field": "passwordHash"}


@pytest.mark.parametrize("users", ["bob, ann", {"bob": {}}], ids=["text", "mapping"])
def test_users_that_are_no_list_leave_no_place_for_a_hash(users: object) -> None:
    complete_user_data(cloud_config({"users": users}), [])
    assert "users: [NAME, …]" in refusal(cloud_config({"users": users}), HASH).hint


def test_the_passwords_of_others_stand_beside_the_hash() -> None:
    config = {"user": "ann", "chpasswd": {"users": [{"name": "bob", "password": HASH}]}}
    assert yaml.safe_load(complete_user_data(cloud_config(config), [], HASH))["users"][0]["hashed_passwd"] == HASH


# --- the network


NETWORK = Draft7Validator(load_schema("schema-network-config-v2.json"))
IPV4 = {
    "none": {},
    "dhcp": {"ipv4_mode": "dhcp"},
    "static": {"ipv4_mode": "static", "ipv4_address": "10.0.0.5/24"},
    "gateway": {"ipv4_mode": "static", "ipv4_address": "10.0.0.5/24", "ipv4_gateway": "10.0.0.1"},
}
IPV6 = {
    "none": {},
    "slaac": {"ipv6_mode": "slaac"},
    "dhcpv6": {"ipv6_mode": "dhcpv6"},
    "static": {"ipv6_mode": "static", "ipv6_address": "fd00::5/64"},
    "gateway": {"ipv6_mode": "static", "ipv6_address": "fd00::5/64", "ipv6_gateway": "fe80::1"},
}


@pytest.mark.parametrize(("ipv4", "ipv6"), sorted(product(IPV4, IPV6)))
def test_the_network_of_every_mode_fits_cloud_inits_schema(ipv4: str, ipv6: str) -> None:
    nics = [
        SeedNic(f"nic{number}", f"52:54:00:00:00:0{number}", **IPV4[ipv4], **IPV6[ipv6], dns=dns, mtu=mtu)
        for number, (dns, mtu) in enumerate(product([(), ("10.0.0.1", "fd00::1")], [0, 1400]))
    ]
    described = _describe_network(nics)
    assert [error.message for error in NETWORK.iter_errors(described)] == []
    assert [error.message for error in NETWORK.iter_errors({"network": described})] == []
    assert list(NETWORK.iter_errors({**described, "ethernets": {"nic0": {"dhcp4": "perhaps"}}}))
