"""Whose word is taken for where a request began."""

import pytest

from backend.auth.proxies import client_address, parse_proxies
from backend.errors import RefusedError

PROXY = "10.0.0.1"
TRUSTED = ["10.0.0.0/24", "fd00::/64", "unix"]


@pytest.mark.parametrize(
    ("peer", "headers", "expected"),
    [
        ("203.0.113.9", ["192.0.2.1"], "203.0.113.9"),  # nobody's proxy says so
        (PROXY, [], PROXY),
        (PROXY, [""], PROXY),
        (PROXY, ["192.0.2.1"], "192.0.2.1"),
        (PROXY, ["127.0.0.1, 192.0.2.1"], "192.0.2.1"),  # what the client wrote itself is left of it
        (PROXY, ["127.0.0.1", "192.0.2.1"], "192.0.2.1"),
        (PROXY, ["192.0.2.1, 10.0.0.7"], "192.0.2.1"),
        (PROXY, ["192.0.2.1", "10.0.0.7, 10.0.0.8"], "192.0.2.1"),
        (PROXY, ["10.0.0.9, 10.0.0.7"], "10.0.0.9"),  # all are proxies: the first of them asks for itself
        (PROXY, ["192.0.2.1, unknown"], PROXY),
        (PROXY, ["192.0.2.1, _hidden, 10.0.0.7"], "10.0.0.7"),
        (PROXY, ["192.0.2.1:5123"], "192.0.2.1"),
        (PROXY, ["[2001:db8::7]:5123"], "2001:db8::7"),
        (PROXY, ["2001:db8::7"], "2001:db8::7"),
        (PROXY, ["192.0.2.1\r\nX: y"], PROXY),
        (PROXY, ["192.0.2.1, ,"], PROXY),
        ("::ffff:10.0.0.1", ["::ffff:192.0.2.1"], "192.0.2.1"),
        ("fd00::1", ["192.0.2.1"], "192.0.2.1"),
        ("fd01::1", ["192.0.2.1"], "fd01::1"),
        ("", ["192.0.2.1"], "192.0.2.1"),
        ("unix", ["192.0.2.1"], "192.0.2.1"),
        ("unix", [], ""),
    ],
)
def test_the_right_most_address_that_no_proxy_has(peer: str, headers: list[str], expected: str) -> None:
    assert client_address(peer, headers, TRUSTED) == expected


def test_without_trusted_proxies_nobody_is_believed() -> None:
    for peer in ("127.0.0.1", "10.0.0.1", "", "unix"):
        assert client_address(peer, ["192.0.2.1"], []) == ("" if peer == "unix" else peer)


def test_a_long_header_is_looked_at_from_its_end_alone() -> None:
    assert client_address(PROXY, ["x, " * 100_000 + "192.0.2.1"], TRUSTED) == "192.0.2.1"
    assert client_address(PROXY, [", ".join(["10.0.0.2"] * 1000)], TRUSTED) == "10.0.0.2"


@pytest.mark.parametrize("entry", ["0.0.0.0/0", "::/0", "proxy.example", "10.0.0.1/8", "", "10.0.0.0/33", "a\x1b[2J"])
def test_a_bad_entry_is_refused(entry: str) -> None:
    with pytest.raises(RefusedError, match="settings trustedProxies") as error:
        parse_proxies((entry,))
    assert "\x1b" not in str(error.value)
