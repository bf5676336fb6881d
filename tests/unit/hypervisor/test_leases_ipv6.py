"""Messages of DHCPv6 by which a lease is given back."""

from __future__ import annotations

from ipaddress import IPv6Address

from hypothesis import given
from hypothesis import strategies as st

from backend.hypervisor.leases_ipv6 import build_release, read_server

TRANSACTION = b"\1\2\3"


def test_a_release_names_the_client_the_server_and_the_address() -> None:
    address = IPv6Address("fd00::5")
    message = build_release(address, b"srv!", b"client", 7)
    assert message[0] == 8
    assert message[4:] == (
        b"\0\1\0\6client\0\2\0\4srv!\0\x08\0\2\0\0"
        b"\0\3\0\x28\0\0\0\7" + b"\0" * 8 + b"\0\5\0\x18" + address.packed + b"\0" * 8
    )  # fmt: skip


def test_the_server_is_who_answers_what_was_asked() -> None:
    answer = b"\7" + TRANSACTION + b"\0\1\0\2me\0\2\0\3srv"
    assert read_server(answer, TRANSACTION) == b"srv"
    assert read_server(b"\2" + answer[1:], TRANSACTION) == b""
    assert read_server(answer, b"\1\2\4") == b""


@given(st.binary(max_size=60))
def test_what_anybody_sends_is_read_without_harm(rest: bytes) -> None:
    assert isinstance(read_server(b"\7" + TRANSACTION + rest, TRANSACTION), bytes)
