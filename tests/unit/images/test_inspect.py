"""The image gate takes sound raw and qcow2 images, and nothing else, however it is dressed up."""

import gzip
import hashlib
import io
import os
import shutil
import socket
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import pycdlib
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backend.errors import ConflictError, DeniedError, FailedError, KCError, NotFoundError, RefusedError
from backend.images import qcow2
from backend.images.inspect import ImageFacts, Limits, inspect_image

MIB = 1 << 20
MBR = bytes(446) + bytes([0x80, 0, 2, 0, 0x83, 0, 0, 0]) + struct.pack("<II", 2048, 4096) + bytes(48) + b"\x55\xaa"


def make(*arguments: object) -> None:
    """Run qemu-img quietly."""
    subprocess.run(["qemu-img", *map(str, arguments)], check=True, capture_output=True, timeout=60)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def refusal(path: Path, **declared: str) -> str:
    """Inspect a file that must be refused, and return the refusal as one line."""
    with pytest.raises(RefusedError) as caught:
        inspect_image(path, **declared)
    line = str(caught.value)
    assert line.startswith("image file ")
    assert "\n" not in line
    return line


def patch(path: Path, offset: int, data: bytes) -> Path:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)
    return path


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A raw disk of 2 MiB with a partition table."""
    path = tmp_path / "disk.raw"
    path.write_bytes(MBR + os.urandom(2 * MIB - len(MBR)))
    return path


@pytest.fixture
def image(tmp_path: Path, disk: Path) -> Path:
    """The same disk as a qcow2 file."""
    path = tmp_path / "disk.qcow2"
    make("convert", "-f", "raw", "-O", "qcow2", disk, path)
    return path


# --- what is taken


@pytest.mark.parametrize("declared", ["", "raw"])
def test_a_raw_disk_is_taken_with_its_digest(disk: Path, declared: str) -> None:
    facts = inspect_image(disk, declared_format=declared)
    assert facts == ImageFacts("raw", 2 * MIB, 2 * MIB, f"sha256:{sha256(disk)}")


@pytest.mark.parametrize("declared", ["", "qcow2"])
def test_a_qcow2_image_is_taken_with_the_size_of_its_disk(image: Path, declared: str) -> None:
    facts = inspect_image(image, declared_format=declared)
    assert facts == ImageFacts("qcow2", image.stat().st_size, 2 * MIB, f"sha256:{sha256(image)}")


@pytest.mark.parametrize(
    "options",
    [
        ["-o", "compat=0.10"],
        ["-c"],
        ["-c", "-o", "compression_type=zstd"],
        ["-o", "cluster_size=512"],
        ["-o", "cluster_size=2M"],
        ["-o", "preallocation=metadata"],
        ["-o", "refcount_bits=1"],
    ],
    ids=" ".join,
)
def test_every_ordinary_kind_of_qcow2_is_taken(tmp_path: Path, disk: Path, options: list[str]) -> None:
    path = tmp_path / "kind.qcow2"
    make("convert", "-f", "raw", "-O", "qcow2", *options, disk, path)
    assert inspect_image(path).virtual_size_bytes == 2 * MIB


def test_a_qcow2_image_with_a_snapshot_and_a_bitmap_inside_is_taken(image: Path) -> None:
    make("snapshot", "-c", "before", image)
    make("bitmap", "--add", "-f", "qcow2", image, "b0")
    assert inspect_image(image).format == "qcow2"


@pytest.mark.parametrize(
    ("offset", "data"),
    [(512, b"EFI PART"), (0, b"XFSB"), (0x10040, b"_BHRfS_M"), (512, b"LABELONE")],
    ids=["GPT", "XFS", "btrfs", "LVM"],
)
def test_a_disk_without_a_boot_sector_is_known_by_its_structure(tmp_path: Path, offset: int, data: bytes) -> None:
    path = tmp_path / "structured.raw"
    path.write_bytes(bytes(MIB))
    assert inspect_image(patch(path, offset, data)).format == "raw"


def test_a_bare_ext4_file_system_is_a_disk(tmp_path: Path) -> None:
    path = tmp_path / "root.raw"
    path.write_bytes(bytes(4 * MIB))
    subprocess.run([shutil.which("mkfs.ext4") or "/sbin/mkfs.ext4", "-q", path], check=True, timeout=60)
    assert inspect_image(path).format == "raw"


def test_a_blank_disk_is_taken_only_where_it_is_declared_raw(tmp_path: Path) -> None:
    path = tmp_path / "blank.raw"
    path.write_bytes(bytes(MIB))
    assert "no boot sector, partition table or file system" in refusal(path)
    assert inspect_image(path, declared_format="raw").virtual_size_bytes == MIB


def test_a_link_to_an_image_is_followed(tmp_path: Path, image: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(image)
    assert inspect_image(link).digest == f"sha256:{sha256(image)}"


@pytest.mark.parametrize("name", ["json:{}", "nbd:localhost:1", "-f", "a b'\"", "http:", "%s", "\x1b[31m", "fat:rw:x"])
def test_no_name_misleads_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: Path, name: str) -> None:
    image.rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert inspect_image(Path(name)).format == "qcow2"


# --- what is refused for what it is


@pytest.mark.parametrize(
    ("format_name", "options", "said"),
    [
        ("vmdk", ["subformat=monolithicSparse"], "VMDK"),
        ("vmdk", ["subformat=streamOptimized"], "VMDK"),
        ("vmdk", ["subformat=monolithicFlat"], "VMDK"),
        ("vmdk", ["subformat=twoGbMaxExtentSparse"], "VMDK"),
        ("vpc", ["subformat=dynamic"], "VHD"),
        ("vpc", ["subformat=fixed"], "VHD image of fixed size"),
        ("vhdx", [], "VHDX"),
        ("vdi", [], "VDI"),
        ("qed", [], "QED"),
        ("parallels", [], "Parallels"),
        ("qcow", [], "qcow image of version 1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
@pytest.mark.parametrize("declared", ["", "raw", "qcow2"])
def test_another_disk_format_is_refused_by_name(
    tmp_path: Path, format_name: str, options: list[str], said: str, declared: str
) -> None:
    path = tmp_path / "other"
    make("create", "-f", format_name, *(part for option in options for part in ("-o", option)), path, "4M")
    line = refusal(path, declared_format=declared)
    assert said in line
    assert "qemu-img convert" in line


def test_a_fixed_vhd_over_a_bootable_disk_is_no_raw_disk(tmp_path: Path, disk: Path) -> None:
    path = tmp_path / "fixed.vhd"
    make("convert", "-f", "raw", "-O", "vpc", "-o", "subformat=fixed,force_size=on", disk, path)
    assert path.read_bytes()[510:512] == b"\x55\xaa"
    assert "VHD image of fixed size" in refusal(path, declared_format="raw")


def test_a_sparse_vmdk_with_a_parent_is_refused(tmp_path: Path, disk: Path) -> None:
    parent = tmp_path / "parent.vmdk"
    make("convert", "-f", "raw", "-O", "vmdk", disk, parent)
    child = tmp_path / "child.vmdk"
    make("create", "-f", "vmdk", "-b", parent, "-F", "vmdk", child)
    assert "VMDK" in refusal(child)


def test_a_luks_disk_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret.luks"
    # Written by hand: qemu-img and cryptsetup time themselves for seconds to choose the cost of a key.
    for version in (1, 2):
        path.write_bytes(b"LUKS\xba\xbe" + struct.pack(">H", version) + bytes(MIB - 8))
        assert "LUKS" in refusal(path, declared_format="raw")


@pytest.mark.parametrize(
    ("program", "said"),
    [("gzip", "gzip"), ("xz", "xz"), ("bzip2", "bzip2"), ("zstd", "zstd"), ("lzma", "lzma")],
)
def test_a_compressed_disk_is_refused_with_what_to_do(tmp_path: Path, disk: Path, program: str, said: str) -> None:
    if not shutil.which(program):
        pytest.fail(f"{program} is missing: make system")
    path = tmp_path / "compressed"
    with path.open("wb") as file:
        subprocess.run([program, "-c", disk], stdout=file, check=True, timeout=60)
    line = refusal(path, declared_format="raw")
    assert f"{said}-compressed" in line
    assert "decompress it first" in line


def test_an_archive_with_a_disk_in_it_is_refused(tmp_path: Path, disk: Path) -> None:
    ova = tmp_path / "vm.ova"
    subprocess.run(["tar", "-cf", ova, "-C", tmp_path, disk.name], check=True, timeout=60)
    assert "tar archive" in refusal(ova)
    with zipfile.ZipFile(tmp_path / "vm.zip", "w") as archive:
        archive.write(disk)
    assert "zip archive" in refusal(tmp_path / "vm.zip")


@pytest.fixture
def iso(tmp_path: Path) -> Path:
    """A plain ISO 9660 image."""
    writer = pycdlib.PyCdlib()
    writer.new()
    writer.add_fp(io.BytesIO(b"hello"), 5, "/HELLO.;1")
    path = tmp_path / "cd.iso"
    writer.write(str(path))
    writer.close()
    return path


@pytest.mark.parametrize("declared", ["", "raw"])
@pytest.mark.parametrize("boot", [b"", MBR], ids=["plain", "hybrid"])
def test_a_disc_is_a_raw_image_with_its_label_for_a_title(iso: Path, declared: str, boot: bytes) -> None:
    patch(iso, 0, boot)
    patch(iso, 0x8028, b"KRAUT \x1b[2J 1.0".ljust(32))
    facts = inspect_image(iso, declared_format=declared)
    assert (facts.format, facts.size_bytes) == ("raw", facts.virtual_size_bytes)
    assert facts.title == "ISO 9660 KRAUT \ufffd[2J 1.0"


def test_a_disk_has_no_title(disk: Path) -> None:
    assert inspect_image(disk, declared_format="raw").title == ""


def test_a_hybrid_with_a_gpt_is_taken_too(iso: Path) -> None:
    patch(iso, 512, b"EFI PART" + bytes(84))
    patch(iso, 0, MBR)
    assert inspect_image(iso).title == "ISO 9660"


def test_a_disc_is_no_qcow2(iso: Path) -> None:
    assert "no qcow2 image" in refusal(iso, declared_format="qcow2")


def test_a_disc_hides_no_other_format(iso: Path) -> None:
    for magic, name in ((b"KDMV", "VMDK"), (b"vhdxfile", "VHDX"), (b"QED\0", "QED"), (b"\x7fELF", "ELF")):
        patch(iso, 0, magic.ljust(16, b"\0"))
        assert name in refusal(iso, declared_format="raw")
    patch(iso, 0, b"QFI\xfb\0\0\0\3".ljust(512, b"\0"))
    refusal(iso)
    refusal(iso, declared_format="qcow2")


@pytest.mark.parametrize("declared", ["", "raw"])
def test_a_disc_of_udf_alone_is_refused(iso: Path, declared: str) -> None:
    patch(iso, 0x8000, bytes(4096))
    patch(iso, 0x8001, b"BEA01")
    patch(iso, 0x8801, b"NSR02")
    assert "UDF" in refusal(iso, declared_format=declared)


def test_half_a_disc_is_no_image_by_itself(iso: Path) -> None:
    with iso.open("r+b") as file:
        file.truncate(0x8000)
    assert "no disk image" in refusal(iso)


def test_a_file_that_is_two_formats_at_once_is_refused(disk: Path) -> None:
    patch(disk, 0x40, b"\x7f\x10\xda\xbe")
    assert "VDI" in refusal(disk, declared_format="raw")


@pytest.mark.parametrize("declared", ["", "raw", "qcow2"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (Path("/etc/passwd").read_bytes(), "a text file"),
        (Path(sys.executable).read_bytes(), "an ELF program"),
        (b"<!DOCTYPE html>\n<html><body>404 Not Found</body></html>" + b" " * 457, "an HTML page"),
        (b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "an XML document"),
        ('{"message": "größer"}'.encode() * 40, "a text file"),
        ("ä".encode() * MIB, "a text file"),
        (b"#!/bin/sh\necho hello\n", "a text file"),
        (b"", "it is empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(1016), "a PNG picture"),
        (b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\x00\x00" + bytes(442) + b"\x55\xaa", "program"),
        (MBR + bytes(2) + b"HdrS" + bytes(506), "a Linux kernel"),
    ],
    ids=["passwd", "elf", "html", "xml", "json", "much text", "script", "empty", "png", "efi", "kernel"],
)
def test_a_file_that_is_no_image_is_refused(tmp_path: Path, content: bytes, said: str, declared: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert said in refusal(path, declared_format=declared)


def test_noise_is_no_image(tmp_path: Path) -> None:
    path = tmp_path / "noise"
    path.write_bytes(b"\x00\x01" + bytes(range(255)) * 4096)
    assert "it is no disk image" in refusal(path)


def test_a_raw_disk_that_is_no_whole_number_of_sectors_is_refused(disk: Path) -> None:
    os.truncate(disk, MIB + 100)
    assert "512-byte sectors" in refusal(disk)


# --- what is refused for what it holds


@pytest.mark.parametrize("backing", ["/etc/passwd", 'json:{"driver":"raw","file":{"filename":"/etc/passwd"}}', "base"])
@pytest.mark.parametrize("compat", ["0.10", "1.1"])
def test_a_backing_file_is_refused(tmp_path: Path, backing: str, compat: str) -> None:
    path = tmp_path / "overlay.qcow2"
    make("create", "-u", "-f", "qcow2", "-o", f"compat={compat}", "-b", backing, "-F", "raw", path, "1M")
    assert "it has a backing file" in refusal(path)


def test_a_backing_file_is_refused_by_its_length_too(image: Path) -> None:
    patch(image, 16, struct.pack(">I", 11))
    assert "it has a backing file" in refusal(image)


def test_a_data_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "outer.qcow2"
    make("create", "-f", "qcow2", "-o", f"data_file={tmp_path / 'inner'},data_file_raw=on", path, "1M")
    assert "it keeps its data in another file" in refusal(path)
    # The same with the feature bits hidden: the header extension is still there.
    patch(path, 72, bytes(8))
    patch(path, 88, bytes(8))
    assert "it keeps its data in another file" in refusal(path)


def test_a_data_file_by_its_feature_bit_alone_is_refused(image: Path) -> None:
    assert "it keeps its data in another file" in refusal(patch(image, 72, struct.pack(">Q", 1 << 2)))


def test_an_encrypted_qcow2_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret.qcow2"
    secret = ["--object", "secret,id=s,data=x", "-o", "encrypt.format=aes,encrypt.key-secret=s"]
    make("create", "-f", "qcow2", *secret, path, "1M")
    assert "it is encrypted" in refusal(path)


def test_a_qcow2_with_a_luks_header_inside_is_refused(image: Path) -> None:
    patch(image, 112, struct.pack(">IIQQ", 0x0537BE77, 16, 1 << 20, 4096) + bytes(8))
    assert "it is encrypted" in refusal(image)
    assert "it is encrypted" in refusal(patch(image, 32, struct.pack(">I", 2)))


@pytest.mark.parametrize("bit", [5, 8, 39, 40, 63])
def test_an_unknown_incompatible_feature_is_refused(image: Path, bit: int) -> None:
    assert "not known here" in refusal(patch(image, 72, struct.pack(">Q", 1 << bit)))


def test_extended_l2_entries_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "extended.qcow2"
    make("create", "-f", "qcow2", "-o", "extended_l2=on", path, "1M")
    assert "extended L2" in refusal(path)


@pytest.mark.parametrize(("bit", "said"), [(0, "not closed cleanly"), (1, "marked as corrupt")])
def test_a_damaged_image_is_refused_with_the_cure(image: Path, bit: int, said: str) -> None:
    line = refusal(patch(image, 72, struct.pack(">Q", 1 << bit)))
    assert said in line
    assert "qemu-img check -r all" in line


@pytest.mark.parametrize("length", [4, 5, 60, 71, 72, 103, 111, 600, 65536, 131072, 196608, 1 << 20, (2 << 20) + 4096])
def test_a_truncated_qcow2_is_never_called_raw(image: Path, length: int) -> None:
    os.truncate(image, length)
    for declared in ("", "qcow2"):
        assert "cut off" in refusal(image, declared_format=declared)
    assert "qcow2 image" in refusal(image, declared_format="raw")


@pytest.mark.parametrize(
    ("offset", "data"),
    [
        (4, struct.pack(">I", 4)),  # version
        (20, struct.pack(">I", 0)),  # cluster bits
        (20, struct.pack(">I", 63)),
        (24, struct.pack(">Q", 0)),  # disk size
        (24, struct.pack(">Q", 1000)),
        (36, struct.pack(">I", 1 << 31)),  # L1 entries
        (40, struct.pack(">Q", 1 << 62)),  # L1 offset
        (48, struct.pack(">Q", 1 << 62)),  # refcount table offset
        (96, struct.pack(">I", 31)),  # refcount order
        (100, struct.pack(">I", 0xFFFFFFFF)),  # header length
        (104, b"\x07"),  # compression type
        (116, struct.pack(">I", 0xFFFFFFF0)),  # length of the first extension
        (196608, struct.pack(">Q", 1 << 63 | 0x7FFFFFFF0000)),  # the first L1 entry
    ],
)
def test_a_header_with_impossible_values_is_refused(image: Path, offset: int, data: bytes) -> None:
    refusal(patch(image, offset, data))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(offset=st.integers(4, 111), value=st.binary(min_size=1, max_size=8))
def test_no_change_to_a_header_breaks_the_gate(image: Path, offset: int, value: bytes) -> None:
    changed = image.with_name("changed.qcow2")
    shutil.copyfile(image, changed)
    patch(changed, offset, value)
    try:
        facts = inspect_image(changed)
    except KCError as error:
        assert isinstance(error, RefusedError), error  # noqa: PT017 - either outcome is fine, a third is not
    else:
        header = qcow2.read_header(changed.read_bytes()[:512])
        assert isinstance(header, qcow2.Header)
        assert header.backing_offset == header.backing_size == header.encryption == 0
        assert facts.virtual_size_bytes == header.virtual_size


def test_an_absurd_disk_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "absurd.qcow2"
    make("create", "-f", "qcow2", path, "32T")
    assert "it claims a disk of 32768 GiB, more than the 1024 GiB" in refusal(path)
    assert inspect_image(path, limits=Limits(virtual_ratio=1 << 30)).virtual_size_bytes == 32 << 40
    make("create", "-f", "qcow2", "-o", "cluster_size=2M", path, "1P")
    with pytest.raises(RefusedError, match="more than the 65536 GiB"):
        inspect_image(path, limits=Limits(virtual_ratio=1 << 40))


def test_the_limit_of_the_disk_size_can_be_set(disk: Path) -> None:
    with pytest.raises(RefusedError, match="it claims a disk of"):
        inspect_image(disk, limits=Limits(virtual_size_bytes=MIB))


# --- what was declared


def test_what_is_not_the_declared_format_is_refused(disk: Path, image: Path) -> None:
    assert "not the declared raw" in refusal(image, declared_format="raw")
    assert "no qcow2 image, as was declared" in refusal(disk, declared_format="qcow2")
    assert "format vmdk is not taken" in refusal(disk, declared_format="vmdk")
    assert "format \ufffd[31m is not taken" in refusal(disk, declared_format="\x1b[31m")


def test_the_declared_digest_is_held_to(disk: Path) -> None:
    right = sha256(disk)
    for spelling in (right, right.upper(), f"sha256:{right}", f" {right}\n"):
        assert inspect_image(disk, declared_sha256=spelling).digest == f"sha256:{right}"
    assert f"its SHA-256 is {right}, not the declared {'0' * 64}" in refusal(disk, declared_sha256="0" * 64)
    for wrong in (right[:-1], "md5:" + right, "hello"):
        assert "is no SHA-256" in refusal(disk, declared_sha256=wrong)


# --- what is not a file to read


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        assert "it is a socket" in refusal(tmp_path / "socket")
    assert "it is a named pipe" in refusal(tmp_path / "pipe")
    assert "it is a character device" in refusal(tmp_path / "zero")
    assert "it is a directory" in refusal(tmp_path)


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("absent", "file/below", "n" * 300, "nul\0"):
        with pytest.raises(NotFoundError, match="no such file"):
            inspect_image(tmp_path / name)
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(NotFoundError):
        inspect_image(tmp_path / "dangling")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(FailedError, match="symbolic links"):
        inspect_image(tmp_path / "loop")


def test_what_may_not_be_read_is_denied(disk: Path) -> None:
    disk.chmod(0)
    mighty = os.geteuid() == 0
    if mighty:
        os.seteuid(65534)
    try:
        with pytest.raises(DeniedError, match="it may not be read"):
            inspect_image(disk)
    finally:
        if mighty:
            os.seteuid(0)


def test_an_image_that_another_program_writes_to_is_a_conflict(image: Path) -> None:
    writer = subprocess.Popen(
        ["qemu-io", "-f", "qcow2", str(image)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert writer.stdin
    assert writer.stdout
    try:
        writer.stdin.write("write 0 512\n")
        writer.stdin.flush()
        assert "wrote" in writer.stdout.readline()
        with pytest.raises(ConflictError, match="another program writes to it"):
            inspect_image(image)
    finally:
        writer.communicate("quit\n", timeout=30)


def test_an_image_that_changes_while_it_is_read_is_a_conflict(disk: Path) -> None:
    def write(_done: int, _total: int) -> None:
        patch(disk, MIB, b"changed")

    with pytest.raises(ConflictError, match="it changed while it was read"):
        inspect_image(disk, report=write)


def test_a_missing_qemu_img_is_said(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(FailedError, match=r"qemu-img is missing.*install qemu-utils"):
        inspect_image(disk)


# --- reading


def test_progress_rises_to_the_whole_and_may_give_up(tmp_path: Path) -> None:
    path = tmp_path / "large.raw"
    path.write_bytes(MBR)
    os.truncate(path, 40 * MIB)
    seen: list[tuple[int, int]] = []
    inspect_image(path, report=lambda done, total: seen.append((done, total)))
    assert seen == [(done * MIB, 40 * MIB) for done in (8, 16, 24, 32, 40)]

    class GivenUpError(Exception):
        pass

    def give_up(_done: int, _total: int) -> None:
        raise GivenUpError

    with pytest.raises(GivenUpError):
        inspect_image(path, report=give_up)


def test_memory_stays_flat_however_large_the_image(tmp_path: Path, disk: Path) -> None:
    inspect_image(disk)  # pays for the imports
    path = tmp_path / "large.raw"
    path.write_bytes(MBR)
    os.truncate(path, 64 * MIB)
    tracemalloc.start()
    inspect_image(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * MIB


def test_nothing_is_logged_to_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "bad.vmdk"
    path.write_bytes(gzip.compress(b"x") + b"KDMV" * 1000)
    script = f"""
from pathlib import Path
from backend.images.inspect import inspect_image
from backend.errors import RefusedError
for name in ({str(path)!r},):
    try:
        inspect_image(Path(name))
    except RefusedError:
        pass
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=60)
    assert result.stdout == result.stderr == b""


def test_the_heavy_inspector_is_imported_only_when_an_image_is_inspected() -> None:
    script = "import sys, backend.images.inspect; print(*(m for m in sys.modules if 'oslo' in m or 'pydantic' in m))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=60, text=True)
    assert result.stdout.strip() == ""
