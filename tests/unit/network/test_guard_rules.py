"""Guards as nftables commands: what they say, and that nothing from outside is a part of them unread."""

from __future__ import annotations

import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.errors import RefusedError
from backend.network.guard_rules import (
    LARGEST_RATE,
    REASONS,
    Port,
    Rule,
    build_port,
    is_guarding,
    plain_uid,
    read_port,
    remove_port,
    rules_for_received,
    rules_for_sent,
    table_of,
)
from backend.network.plan import PortGuard

UID = "4cac02f2-4624-4a25-baba-ad7227406426"
PLAIN = "4cac02f246244a25babaad7227406426"
GUARD = PortGuard(
    "kt0123456789", "52:54:00:ab:cd:ef", mac_only=True, ipv4=("10.0.0.1",), ipv6=("fd00::1",), strict=True,
    no_dhcp_server=True, no_router=True, receive_rate=8192, send_rate=16384,
)  # fmt: skip
# One command a line, of letters that neither end a command nor begin another, nor go on in the next line.
COMMAND = re.compile(r"(add|flush|delete) (chain|rule|element) bridge kc_[0-9a-f]{10} [a-z0-9_:.@/,!=<>&{}\" -]+")


def matches(guard: PortGuard) -> str:
    return "\n".join(rule.match for rule in rules_for_sent(guard))


def test_a_store_has_a_table_of_its_own() -> None:
    # Identities begin with the time: two stores that were made at once differ only further on.
    assert table_of("01a205c8-a100-7000-8000-000000000001") != table_of("01a205c8-a100-7000-8000-000000000002")
    assert len({table_of(owner) for owner in (UID, str(uuid.uuid4()), "owner", "other", "", "ABCDEF0123456")}) == 6


def test_a_vm_is_known_by_the_names_of_its_chains() -> None:
    chains = {line.split()[4] for line in build_port("kc_0123456789", UID, GUARD) if line.startswith("add chain")}
    assert chains == {f"vm_{PLAIN}_kt0123456789_send", f"vm_{PLAIN}_kt0123456789_receive"}
    assert {read_port(chain) for chain in chains} == {Port(PLAIN, "kt0123456789")}
    assert [read_port(other) for other in ("from_guests", "vm_1_kt_send", f"vm_{PLAIN}_kt_send\n")] == [None] * 3


def test_a_uid_is_told_from_what_is_none() -> None:
    assert plain_uid(UID.upper()) == PLAIN
    for wrong in ("", "web", f"{UID}0", f"{UID}\n", "g" * 32):
        with pytest.raises(RefusedError):
            plain_uid(wrong)


def test_a_rate_comes_first_in_its_own_direction() -> None:
    first, *rest = rules_for_sent(GUARD)
    assert first == Rule("limit rate over 16384 bytes/second burst 65536 bytes", "send-rate")
    assert not [rule for rule in rest if "limit" in rule.match]
    assert list(rules_for_received(GUARD)) == [
        Rule("limit rate over 8192 bytes/second burst 65536 bytes", "receive-rate"),
    ]  # fmt: skip


@pytest.mark.parametrize("rate", [0, -1, LARGEST_RATE, 1 << 40])
def test_a_rate_that_is_none_or_that_nothing_reaches_limits_nothing(rate: int) -> None:
    guard = PortGuard("kt1", "", send_rate=rate, receive_rate=rate)
    assert [*rules_for_sent(guard), *rules_for_received(guard)] == []


def test_who_has_no_guard_has_no_chain_and_no_counter() -> None:
    commands = build_port("kc_0123456789", UID, PortGuard("kt1", "52:54:00:ab:cd:ef"))
    assert not is_guarding(PortGuard("kt1", "52:54:00:ab:cd:ef", strict=True))
    assert is_guarding(PortGuard("kt1", "", send_rate=8192))
    assert is_guarding(PortGuard("kt1", "", receive_rate=8192))
    assert commands == remove_port("kc_0123456789", Port(PLAIN, "kt1"))
    assert not [command for command in commands if command.startswith("add rule")]
    made = {command.removeprefix("add ") for command in commands if command.startswith("add ")}
    assert made == {command.removeprefix("delete ") for command in commands if command.startswith("delete ")}


def test_a_guard_counts_what_it_drops_and_nothing_else() -> None:
    commands = build_port("kc_0123456789", UID, GUARD._replace(ipv6=None, no_router=False, send_rate=0))
    rules = [command for command in commands if command.startswith("add rule")]
    counted = {
        REASONS[int(number)] for number in re.findall(r"update @drops \{ [io]ifname \. (\d) \} drop", "".join(rules))
    }
    assert counted == {"mac", "protocol", "ipv4", "dhcp-server", "receive-rate"}
    gone = {
        int(command.split()[-2]) for command in commands if command.startswith("delete element") and "drops" in command
    }
    assert {REASONS[number] for number in gone} == {"ipv6", "router", "send-rate"}


def test_a_strict_guard_knows_the_link_local_address_of_its_mac() -> None:
    # RFC 4291, appendix A: the second bit of the first octet is turned over, ff:fe goes into the middle.
    assert "ip6 saddr != fd00::1 ip6 saddr != fe80::5054:ff:feab:cdef" in matches(GUARD)
    assert "fe80::/10" not in matches(GUARD)
    assert "ip6 saddr != fd00::1 ip6 saddr != fe80::/10" in matches(GUARD._replace(strict=False))


@pytest.mark.parametrize("guard", [GUARD, GUARD._replace(ipv4=None, ipv6=None), GUARD._replace(ipv4=(), ipv6=())])
def test_no_rule_leaves_it_to_nftables_which_protocol_a_tagged_frame_is_of(guard: PortGuard) -> None:
    for rule in rules_for_sent(guard):
        if not rule.match.startswith(("limit ", "ether saddr ")):
            assert rule.match.startswith("meta protocol "), rule


@pytest.mark.parametrize(
    "changes",
    [
        {"tap": ""}, {"tap": "kt 1"}, {"tap": 'kt"1'}, {"tap": "kt*"}, {"tap": "KT1"}, {"tap": "k" * 16},
        {"tap": "kt1\n"},
        {"mac": ""}, {"mac": "52:54:00:ab:cd"}, {"mac": "52:54:00:ab:cd:ef drop"}, {"mac": "52:54:00:ab:cd:ef\n"},
        {"ipv4": ("10.0.0.0/8",)}, {"ipv4": ("fd00::1",)}, {"ipv4": ("",)}, {"ipv4": ("1.2.3.4; flush ruleset",)},
        {"ipv6": ("10.0.0.1",)}, {"ipv6": ("fe80::1%eth0",)}, {"ipv6": ("::1 }",)},
    ],
)  # fmt: skip
def test_what_is_no_address_or_name_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(RefusedError):
        build_port("kc_0123456789", UID, GUARD._replace(**changes))


_words = st.text(max_size=20) | st.sampled_from(["kt1", "52:54:00:ab:cd:ef", "10.0.0.1", "fd00::1", "::ffff:1.2.3.4"])
_lists = st.none() | st.lists(_words, max_size=3).map(tuple)


@given(st.builds(PortGuard, _words, _words, ipv4=_lists, ipv6=_lists))
def test_whatever_a_guard_says_it_is_refused_or_commands_of_known_words(guard: PortGuard) -> None:
    try:
        commands = build_port("kc_0123456789", UID, guard)
    except RefusedError:
        return
    for command in commands:
        assert COMMAND.fullmatch(command), command
