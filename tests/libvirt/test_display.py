"""The screen of a real guest: found, looked at by several at once, and photographed."""

from __future__ import annotations

import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hosts import GREETING, PrivateHost, wait_until
from test_ssh import remote as remote  # noqa: PLC0414 - a fixture

from backend.errors import ConflictError, RefusedError
from backend.hypervisor.host import open_hypervisor
from backend.hypervisor.plan import DomainPlan
from backend.hypervisor.protocol import Hypervisor
from backend.service import ConsoleStream

pytestmark = pytest.mark.libvirt


@pytest.fixture
def vm(hypervisor: Hypervisor, make: Callable[..., DomainPlan]) -> DomainPlan:
    """A VM that is on, with SeaBIOS's text on its screen."""
    plan = make()
    hypervisor.ensure_defined(plan)
    hypervisor.ensure_running(plan.uid)
    wait_until(lambda: GREETING in hypervisor.read_log(plan.console_log, 1000), "the guest is up", 30)
    return plan


class Viewer:
    """One who looks at a screen, and speaks RFC 6143 as far as it takes."""

    def __init__(self, stream: ConsoleStream) -> None:
        self.stream = stream
        self._data = b""

    def read(self, size: int) -> bytes:
        ends = time.monotonic() + 10
        while len(self._data) < size and time.monotonic() < ends:
            chunk = self.stream.read(0.5)
            assert chunk != b"", "the screen has gone"
            self._data += chunk or b""
        read, self._data = self._data[:size], self._data[size:]
        assert len(read) == size
        return read

    def shake_hands(self) -> tuple[int, int]:
        """Come in without a password, as one who shares the screen; return its size."""
        assert self.read(12) == b"RFB 003.008\n"
        self.stream.write(b"RFB 003.008\n")
        assert 1 in self.read(self.read(1)[0])
        self.stream.write(b"\x01")
        assert self.read(4) == bytes(4)
        self.stream.write(b"\x01")
        width, height = struct.unpack(">HH", self.read(24)[:4])
        return width, height

    def ask(self, width: int, height: int) -> None:
        """Ask for a part of the picture."""
        self.stream.write(struct.pack(">BBHHHH", 3, 0, 0, 0, width, height))


def read_png(data: bytes) -> tuple[int, int, set[bytes]]:
    """Return a PNG's width, height, and the different pixels of its unfiltered lines, checking its sums."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    place, body = 8, b""
    width = height = 0
    while place < len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        content = data[place + 8 : place + 8 + length]
        assert struct.unpack(">I", data[place + 8 + length : place + 12 + length])[0] == zlib.crc32(kind + content)
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", content[:10])
            assert (depth, colour) == (8, 2)
        body += content if kind == b"IDAT" else b""
        place += 12 + length
    assert kind == b"IEND"
    rows = unfilter(zlib.decompress(body), width * 3)
    assert len(rows) == height
    return width, height, {row[start : start + 3] for row in rows for start in range(0, width * 3, 3)}


def unfilter(data: bytes, line: int) -> list[bytes]:
    """Undo the filters of PNG's lines, with three bytes a pixel."""
    rows: list[bytes] = []
    above = bytes(line)
    for start in range(0, len(data), line + 1):
        kind, row = data[start], bytearray(data[start + 1 : start + 1 + line])
        for index in range(line):
            left = row[index - 3] if index >= 3 else 0
            corner = above[index - 3] if index >= 3 else 0
            guess = (0, left, above[index], (left + above[index]) // 2, paeth(left, above[index], corner))[kind]
            row[index] = (row[index] + guess) & 0xFF
        above = bytes(row)
        rows.append(above)
    return rows


def paeth(left: int, up: int, corner: int) -> int:
    guess = left + up - corner
    return min((left, up, corner), key=lambda value: abs(guess - value))


def test_the_screen_has_an_address_while_it_is_on(
    hypervisor: Hypervisor, vm: DomainPlan, private_host: PrivateHost
) -> None:
    address = hypervisor.display_address(vm.uid)
    assert address.startswith("vnc+unix:///")
    private_host.run("test", "-S", address.removeprefix("vnc+unix://"))
    hypervisor.ensure_stopped(vm.uid, grace_seconds=0, force=True)
    assert hypervisor.display_address(vm.uid) == ""


def test_several_look_at_one_screen(hypervisor: Hypervisor, vm: DomainPlan) -> None:
    first, second = Viewer(hypervisor.display(vm.uid)), Viewer(hypervisor.display(vm.uid))
    assert first.shake_hands() == second.shake_hands() == (720, 400)
    assert first.stream.read(0.05) is None
    first.ask(720, 400)
    assert first.read(720 * 400 * 4)  # the picture, 32 bits a pixel
    assert hypervisor.screenshot(vm.uid)
    first.stream.close()
    first.stream.close()
    assert first.stream.read(1) == b""
    with pytest.raises(ConflictError):
        first.stream.write(b"x")
    second.ask(8, 8)
    assert second.read(8 * 8 * 4)
    second.stream.close()


def test_a_reader_wakes_when_the_screen_is_closed_and_when_the_vm_goes(hypervisor: Hypervisor, vm: DomainPlan) -> None:
    closed, gone = hypervisor.display(vm.uid), hypervisor.display(vm.uid)
    for stream in (closed, gone):
        Viewer(stream).shake_hands()
    read: list[bytes | None] = []
    reader = threading.Thread(target=lambda: read.append(closed.read(30)))
    reader.start()
    closed.close()
    reader.join(5)
    assert read == [b""]
    hypervisor.ensure_stopped(vm.uid, grace_seconds=0, force=True)
    wait_until(lambda: gone.read(0.1) == b"", "the screen has ended")
    gone.close()


def test_a_picture_shows_what_the_firmware_wrote(hypervisor: Hypervisor, vm: DomainPlan) -> None:
    width, height, colours = read_png(hypervisor.screenshot(vm.uid))
    assert (width, height) == (720, 400)
    assert len(colours) > 1
    assert bytes(3) in colours


def test_a_vm_that_is_off_has_no_screen(hypervisor: Hypervisor, make: Callable[..., DomainPlan]) -> None:
    plan = make()
    hypervisor.ensure_defined(plan)
    with pytest.raises(ConflictError, match="is off"):
        hypervisor.display(plan.uid)
    with pytest.raises(ConflictError, match="is off"):
        hypervisor.screenshot(plan.uid)
    assert hypervisor.display_address(plan.uid) == ""


def test_a_vm_without_a_screen_says_so(hypervisor: Hypervisor, private_host: PrivateHost, tmp_path: Path) -> None:
    xml = tmp_path / "plain.xml"
    xml.write_text(
        "<domain type='qemu'><name>plain</name><memory unit='MiB'>32</memory><os><type>hvm</type></os></domain>"
    )
    private_host.virsh("create", str(xml))
    uid = private_host.virsh("domuuid", "plain").strip()
    with pytest.raises(ConflictError, match="no VNC screen"):
        hypervisor.display(uid)
    with pytest.raises(ConflictError, match="no screen"):
        hypervisor.screenshot(uid)
    assert hypervisor.display_address(uid) == ""
    private_host.virsh("destroy", "plain")


def test_another_s_vm_on_a_port_is_found_and_looked_at(
    hypervisor: Hypervisor, private_host: PrivateHost, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    xml = tmp_path / "foreign.xml"
    xml.write_text(
        "<domain type='qemu'><name>foreign</name><memory unit='MiB'>32</memory><os><type>hvm</type></os><devices>"
        f"<graphics type='vnc' port='{max(port, 5900)}' autoport='no' listen='0.0.0.0' passwd='secret'/>"
        "<video><model type='cirrus'/></video></devices></domain>"
    )
    private_host.virsh("create", str(xml))
    uid = private_host.virsh("domuuid", "foreign").strip()
    assert hypervisor.display_address(uid) == f"vnc://127.0.0.1:{max(port, 5900)}"
    stream = hypervisor.display(uid)
    Viewer(stream).shake_hands()  # libvirt lets its friends in without the password
    stream.close()
    private_host.virsh("destroy", "foreign")


def test_the_screen_of_another_machine_is_reached_by_a_tunnel(
    remote: str, hypervisor: Hypervisor, vm: DomainPlan, tmp_path: Path
) -> None:
    driver = open_hypervisor(remote, "kc", tmp_path)
    with pytest.raises(RefusedError) as refused:
        driver.display(vm.uid)
    path = hypervisor.display_address(vm.uid).removeprefix("vnc+unix://")
    assert f":{path} " in refused.value.hint
    assert "root@127.0.0.1" in refused.value.hint
    assert read_png(driver.screenshot(vm.uid))[0] == 720
    driver.close()
