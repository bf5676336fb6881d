"""Small parts: errors, addresses, releases, extents, states."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import ConflictError, FailedError, NotFoundError, RefusedError, TimedOutError, UnreachableError
from backend.hypervisor.addresses import read_address
from backend.hypervisor.facts import format_version
from backend.hypervisor.leases import build_release
from backend.hypervisor.memory import MemoryHypervisor
from backend.hypervisor.pools import marked_name, marker_name
from backend.hypervisor.protocol import Hypervisor
from backend.hypervisor.upload import find_extents

libvirt = pytest.importorskip("libvirt")
from backend.hypervisor.errors import is_lost, translate, unreachable  # noqa: E402 - needs libvirt


def error(code: int, message: str, domain: int = 10) -> libvirt.libvirtError:
    made = libvirt.libvirtError(message)
    made.err = (code, domain, message, 2, None, None, None, -1, -1)
    return made


@pytest.mark.parametrize(
    ("code", "message", "kind"),
    [
        (42, "Domain not found: no domain with matching uuid", NotFoundError),
        (50, "Storage volume not found", NotFoundError),
        (90, "storage volume 'a' exists already", ConflictError),
        (55, "Requested operation is not valid: domain is not running", ConflictError),
        (68, "Timed out during operation: cannot acquire state change lock", TimedOutError),
        (67, "unsupported configuration: x", RefusedError),
        (38, "cannot write data to file 'x': No space left on device", FailedError),
        (39, "Failed to connect socket", UnreachableError),
        (1, "internal error", FailedError),
        (99999, "who knows", FailedError),
    ],
)
def test_libvirts_errors_become_kcs(code: int, message: str, kind: type[Exception]) -> None:
    made = translate(error(code, f"{message}."), "VM web")
    assert type(made) is kind
    assert made.what == "VM web"
    assert not made.why.endswith(".")


def test_no_room_and_other_usual_cases_come_with_a_hint() -> None:
    assert "no room" in translate(error(38, "x: No space left on device"), "v").why
    assert "virtlogd" in translate(error(38, "Failed to connect socket to '/run/libvirt/virtlogd-sock'"), "v").hint
    assert "virtlogd" in unreachable("qemu:///system", "Failed to connect socket").hint
    assert "ssh" in unreachable("qemu+ssh://root@h/system", "Cannot recv data: Host key verification failed").hint
    assert "group" in unreachable("qemu:///system", "Permission denied").hint


def test_what_libvirt_says_is_no_command_to_a_terminal() -> None:
    made = translate(error(1, "bad \x1b[2J\u202e name\n" + "x" * 2000), "v")
    assert made.why.isprintable()
    assert len(made.why) <= 400


def test_a_lost_connection_is_told_from_a_failed_call() -> None:
    assert is_lost(error(1, "client socket is closed", 7))
    assert is_lost(error(38, "Cannot write data: Broken pipe", 7))
    assert not is_lost(error(38, "cannot open file", 18))
    assert not is_lost(error(42, "Domain not found", 10))


@pytest.mark.parametrize(
    ("text", "family"),
    [("10.0.0.7", "ipv4"), ("fd00::7", "ipv6"), ("2001:DB8::1", "ipv6")],
)
def test_addresses_are_kept_in_their_usual_form(text: str, family: str) -> None:
    (address,) = read_address(text, 24, "52:54:00:AB:CD:EF", "agent")
    assert (address.address, address.family, address.mac) == (text.lower(), family, "52:54:00:ab:cd:ef")


@pytest.mark.parametrize(
    "text", ["127.0.0.1", "::1", "169.254.1.1", "fe80::1", "0.0.0.0", "::", "224.0.0.1", "", "x\x1b[2J", None, 7.5]
)
def test_addresses_that_lead_nowhere_are_left_out(text: object) -> None:
    assert read_address(text, 24, None, "agent") == []


def test_a_release_is_a_dhcp_message_of_the_guest() -> None:
    packet = build_release("192.168.150.17", "192.168.150.1", "52:54:00:12:34:56", "01:52:54:00:12:34:56", 0xA1B2C3D4)
    assert len(packet) == 300
    assert packet[:8] == bytes([1, 1, 6, 0]) + bytes.fromhex("a1b2c3d4")
    assert packet[12:16] == bytes([192, 168, 150, 17])
    assert packet[28:34] == bytes.fromhex("525400123456")
    options = packet[240:]
    assert packet[236:240] == bytes.fromhex("63825363")
    assert options[:3] == bytes([53, 1, 7])
    assert options[3:9] == bytes([54, 4, 192, 168, 150, 1])
    assert options[9:18] == bytes([61, 7, 1]) + bytes.fromhex("525400123456")
    assert options[18] == 255


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 5)), max_size=8), st.integers(0, 4000))
def test_extents_cover_a_file_once_and_holes_hold_nothing(parts: list[tuple[bool, int]], tail: int) -> None:
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"kc-extents-{os.getpid()}"
    content = b"".join((b"\0" if hole else b"x") * (length * 65536) for hole, length in parts) + b"y" * tail
    try:
        with path.open("wb") as file:
            for start in range(0, len(content), 65536):
                block = content[start : start + 65536]
                file.seek(start)
                if any(block):
                    file.write(block)
            file.truncate(len(content))
        with path.open("rb") as file:
            end = 0
            for start, length, is_hole in find_extents(file, len(content)):
                assert start == end
                assert length > 0
                end = start + length
                if is_hole:
                    assert not any(content[start:end])
            assert end == len(content)
    finally:
        path.unlink()


def test_what_has_no_descriptor_has_no_holes() -> None:
    assert list(find_extents(io.BytesIO(b"\0" * 10), 10)) == [(0, 10, False)]
    assert list(find_extents(io.BytesIO(b""), 0)) == []


def test_a_marker_speaks_of_its_volume_and_of_no_other() -> None:
    assert marked_name(marker_name("kc-image-1", "00ff00ff")) == "kc-image-1"
    assert marked_name("kc-image-1") == ""
    assert marked_name("kc-image-1.part") == ""
    assert marked_name(marker_name(marker_name("a", "00ff00ff"), "11ff11ff")) == "a.00ff00ff.part"


def test_versions_are_read_as_libvirt_counts_them() -> None:
    assert format_version(9_000_000) == "9.0.0"
    assert format_version(7_002_022) == "7.2.22"


def test_the_one_in_memory_is_a_hypervisor() -> None:
    host: Hypervisor = MemoryHypervisor()
    assert host.inventory() == []
