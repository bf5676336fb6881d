"""The parts of the starter image's builder that need no network and no guest."""

from __future__ import annotations

import contextlib
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backend.errors import FailedError, RefusedError
from backend.images import starter
from backend.images.starter import archive, builder, content, disk, elf, packages, tools


def test_recipe_is_twelve_hex_digits_and_the_same_in_every_process() -> None:
    assert re.fullmatch("[0-9a-f]{12}", starter.RECIPE)
    elsewhere = subprocess.run(
        [sys.executable, "-c", "from backend.images.starter import RECIPE; print(RECIPE)"],
        cwd=Path(starter.__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert elsewhere.stdout.strip() == starter.RECIPE


def test_recipe_differs_for_another_architecture() -> None:
    assert starter.recipe("aarch64") != starter.RECIPE


@pytest.mark.parametrize(
    "files",
    [
        pytest.param({"init": b"two", "boot": b"one"}, id="contents swapped"),
        pytest.param({"init": b"one!", "boot": b"two"}, id="a content changed"),
        pytest.param({"init2": b"one", "boot": b"two"}, id="a name changed"),
        pytest.param({"init": b"one"}, id="a file gone"),
        pytest.param({"ini": b"tone", "boot": b"two"}, id="a boundary moved"),
    ],
)
def test_recipe_changes_with_any_input(files: dict[str, bytes]) -> None:
    before = builder._digest("x86_64", {"init": b"one", "boot": b"two"})
    assert builder._digest("x86_64", {"boot": b"two", "init": b"one"}) == before
    assert builder._digest("x86_64", files) != before


def test_a_machine_without_tools_is_told_which_packages_it_lacks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tools, "_PATH", str(tmp_path))
    assert starter.missing_tools() == ["apt", "dosfstools", "dpkg", "kmod", "mtools", "syslinux"]
    for tool in set(tools.PACKAGE_OF_TOOL) - {"mcopy", "depmod"}:
        (tmp_path / tool).touch(mode=0o755)
    assert starter.missing_tools() == ["kmod", "mtools"]
    with pytest.raises(RefusedError) as refused:
        starter.build(tmp_path / "image.raw")
    assert refused.value.hint == "apt-get install kmod mtools"


def test_a_machine_without_apt_is_sent_to_an_upload(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tools, "_PATH", str(tmp_path))
    with pytest.raises(RefusedError, match="no apt"):
        starter.build(tmp_path / "image.raw")


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="aarch64"):
        starter.build(tmp_path / "image.raw", arch="aarch64")


def test_a_folder_that_is_not_there_is_found_before_anything_is_fetched(tmp_path: Path) -> None:
    heard: list[str] = []
    with pytest.raises(FailedError, match="cannot be written"):
        starter.build(tmp_path / "none" / "image.raw", report=heard.append)
    assert heard == []


@pytest.mark.skipif(bool(starter.missing_tools()), reason="the builder's tools are not installed")
def test_without_package_lists_the_hint_is_the_command_that_fetches_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    configuration = tmp_path / "apt.conf"
    configuration.write_text(f'Dir::State::lists "{tmp_path}/none";\n')
    monkeypatch.setenv("APT_CONFIG", str(configuration))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "work"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "work").mkdir()
    with pytest.raises(FailedError) as failed:
        starter.build(tmp_path / "image.raw")
    assert "apt-get update" in failed.value.hint
    assert list((tmp_path / "work").iterdir()) == []
    assert not (tmp_path / "image.raw").exists()


LISTING = """\
qemu-guest-agent
  PreDepends: init-system-helpers
  Depends: libc6
 |Depends: libfirst
  Depends: libsecond
  Depends: <libvirtual>
    libprovider
  Depends: zlib1g
libc6
  Depends: libgcc-s1
  Depends: libc-bin
libfirst
  Depends: libc6
  Suggests: libsuggested
libgcc-s1
"""


def test_dependencies_are_read_as_apt_prints_them() -> None:
    depends = packages._dependencies(LISTING)
    assert depends["qemu-guest-agent"] == ["init-system-helpers", "libc6", "libfirst", "zlib1g"]
    assert depends["libfirst"] == ["libc6"]
    assert depends["libgcc-s1"] == []


def test_libraries_are_followed_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "run_tool", lambda *_, **__: LISTING)
    assert packages.resolve_libraries(["qemu-guest-agent"]) == ["libc6", "libfirst", "libgcc-s1", "zlib1g"]


def test_kernel_is_what_the_meta_package_names(monkeypatch: pytest.MonkeyPatch) -> None:
    listing = "linux-image-cloud-amd64\n  Depends: initramfs-tools\n  Depends: linux-image-6.1.0-9-cloud-amd64\n"
    monkeypatch.setattr(packages, "run_tool", lambda *_, **__: listing)
    assert packages.resolve_kernel("linux-image-cloud-amd64") == "linux-image-6.1.0-9-cloud-amd64"
    with pytest.raises(FailedError, match="names no kernel"):
        packages.resolve_kernel("linux-image-cloud-arm64")


MODULES_DEP = """\
kernel/a/virtio_pci.ko: kernel/a/virtio.ko kernel/a/virtio_ring.ko
kernel/a/virtio.ko: kernel/a/virtio_ring.ko
kernel/a/virtio_ring.ko:
kernel/a/virtio-rng.ko:
kernel/n/nft_ct.ko: kernel/n/nf_tables.ko
kernel/n/nf_tables.ko:
kernel/x/floppy.ko: kernel/x/other.ko
kernel/x/other.ko:
"""


def test_modules_come_with_what_they_depend_on_and_without_the_rest() -> None:
    assert content._with_dependencies(MODULES_DEP) == [
        "kernel/a/virtio-rng.ko",
        "kernel/a/virtio.ko",
        "kernel/a/virtio_pci.ko",
        "kernel/a/virtio_ring.ko",
        "kernel/n/nf_tables.ko",
        "kernel/n/nft_ct.ko",
    ]


@pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump is the judge here")
@pytest.mark.parametrize("program", ["/bin/ls", "/usr/bin/python3", "/bin/true"])
def test_needed_libraries_are_those_that_objdump_sees(program: str) -> None:
    listing = subprocess.run(["objdump", "-p", program], capture_output=True, text=True, timeout=20, check=True).stdout
    assert elf.needed(Path(program).read_bytes()) == re.findall(r"^ +NEEDED +(\S+)$", listing, re.MULTILINE)


def test_what_is_no_elf_file_needs_nothing() -> None:
    assert elf.needed(b"#!/bin/sh\n") == []
    assert elf.needed(b"") == []


@given(st.binary(max_size=512))
def test_a_broken_elf_file_is_a_value_error_at_worst(noise: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(elf.needed(b"\x7fELF\x02\x01" + noise), list)


@given(
    cut=st.integers(min_value=6, max_value=4096), at=st.integers(min_value=6, max_value=4095), byte=st.integers(0, 255)
)
@example(cut=6, at=39, byte=128)
def test_a_damaged_program_is_a_value_error_at_worst(cut: int, at: int, byte: int) -> None:
    damaged = bytearray(Path("/bin/true").read_bytes())
    damaged[at] = byte
    for data in (bytes(damaged), bytes(damaged[:cut])):
        with contextlib.suppress(ValueError):
            assert isinstance(elf.needed(data), list)


def small_tree() -> archive.Tree:
    tree = archive.Tree()
    tree.add_file("usr/bin/tool", b"#!/bin/sh\n", 0o755)
    tree.add_link("bin", "usr/bin")
    tree.add_folder("root", 0o700)
    tree.add_character_device("dev/console", 5, 1)
    tree.add_file("usr-local", b"x")
    return tree


@pytest.mark.skipif(shutil.which("cpio") is None, reason="cpio is the judge here")
def test_the_archive_is_what_cpio_reads() -> None:
    listing = subprocess.run(
        ["cpio", "-itv", "--quiet", "--numeric-uid-gid"],
        input=small_tree().to_cpio(),
        capture_output=True,
        timeout=20,
        check=True,
    )
    entries = [line.split() for line in listing.stdout.decode().splitlines()]
    assert [(entry[0], entry[2], entry[3]) for entry in entries] == [
        ("lrwxrwxrwx", "0", "0"),
        ("drwxr-xr-x", "0", "0"),
        ("crw-------", "0", "0"),
        ("drwx------", "0", "0"),
        ("drwxr-xr-x", "0", "0"),
        ("drwxr-xr-x", "0", "0"),
        ("-rwxr-xr-x", "0", "0"),
        ("-rw-r--r--", "0", "0"),
    ]
    names = ["bin", "dev", "dev/console", "root", "usr", "usr/bin", "usr/bin/tool", "usr-local"]
    assert [entry[-1] if entry[-2] != "->" else entry[-3] for entry in entries] == names


def test_the_same_tree_gives_the_same_bytes_however_it_was_made() -> None:
    other = archive.Tree()
    for path, node in reversed(list(small_tree().nodes.items())):
        other.nodes[path] = node
    assert other.to_initrd() == small_tree().to_initrd()


def test_the_first_sector_has_one_active_partition_to_the_end_of_the_disk() -> None:
    sector = disk.master_boot_record(b"\xeb" * 600)
    assert len(sector) == 512
    assert sector[:440] == b"\xeb" * 440
    assert sector[510:] == b"\x55\xaa"
    active, kind = sector[446], sector[450]
    start, count = struct.unpack_from("<II", sector, 454)
    assert (active, kind) == (0x80, 0x0E)
    assert start * 512 == 1 << 20
    assert (start + count) * 512 == disk.SIZE
    assert sector[462:510] == bytes(48)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(path, id=path.name)
        for path in sorted(content.GUEST_FILES.rglob("*"))
        if path.is_file() and (path.read_bytes().startswith(b"#!") or path.name == "functions")
    ],
)
def test_guest_script_is_a_shell_script(script: Path) -> None:
    checked = subprocess.run(["sh", "-n", str(script)], capture_output=True, text=True, timeout=20, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_no_account_of_the_guest_has_a_password_or_an_empty_one() -> None:
    lines = (content.GUEST_FILES / "etc/shadow").read_text().splitlines()
    accounts = [line.split(":") for line in lines if not line.startswith("#")]
    assert {account[0]: account[1] for account in accounts} == {"root": "*", "nobody": "*", "kc": "*"}


def test_a_tool_that_fails_is_reported_with_its_own_error_line_and_nothing_that_a_terminal_obeys() -> None:
    assert tools._last_words("advice\nE: the \x1b[31mreason\nmore advice\n") == "E: the \ufffd[31mreason"
    assert tools._last_words("") == "nothing said"
