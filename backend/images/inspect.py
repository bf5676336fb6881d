"""The one gate for images: what a file is, that it is what was declared, and that it is safe to give to QEMU.

oslo.utils looks first, then our own eyes, then `qemu-img` under resource limits and told the format; all must agree.
Nothing ever has QEMU probe a format. Raw and qcow2 are taken, everything else is refused by its name. A disc of
ISO 9660 is raw: in a CD-ROM drive the guest reads it as it is, and a hybrid boots as a disk too.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import logging
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from backend.errors import ConflictError, DeniedError, FailedError, KCError, NotFoundError, RefusedError
from backend.images import qcow2, signatures
from backend.text import sanitise

FORMATS: Final = ("raw", "qcow2")

_SECTOR_BYTES = 512
_CHUNK_BYTES = 1 << 20
_REPORT_EVERY_BYTES = 8 << 20
_INSPECTOR_CHUNK_BYTES = 64 << 10
_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{64})")

_CPU_SECONDS = 30
_CHECK_CPU_SECONDS = 120
_WALL_FACTOR = 2
_ADDRESS_SPACE_BYTES = 2 << 30
_CHECK_ADDRESS_SPACE_BYTES = 4 << 30
_LEAKS_ONLY = 3
_NO_LOG = logging.NullHandler()

Report = Callable[[int, int], None]
"""Called with the bytes hashed and the bytes in all; it may raise to give up."""


@dataclass(frozen=True)
class Limits:
    """How large a disk may claim to be: in bytes, and as a multiple of the file (one below a MiB counts as a MiB)."""

    virtual_size_bytes: int = 64 << 40
    virtual_ratio: int = 1 << 20


@dataclass(frozen=True)
class ImageFacts:
    """What an image is: `format` is raw or qcow2, sizes are bytes, `digest` is `sha256:` and 64 hexadecimal digits.

    `title` is what a disc calls itself, sanitised; empty for a disk.
    """

    format: str
    size_bytes: int
    virtual_size_bytes: int
    digest: str
    title: str = ""


@dataclass(frozen=True)
class _Subject:
    """The file under inspection: how to speak of it, its descriptor, size in bytes, beginning and end."""

    what: str
    descriptor: int
    size: int
    head: bytes
    tail: bytes

    def refuse(self, why: str, hint: str = "") -> RefusedError:
        return RefusedError(self.what, why, hint)


def inspect_image(
    path: Path,
    *,
    declared_format: str = "",
    declared_sha256: str = "",
    report: Report | None = None,
    limits: Limits = Limits(),
) -> ImageFacts:
    """Return what the image at `path` is.

    `declared_format` is `raw`, `qcow2` or empty, `declared_sha256` 64 hexadecimal digits (with `sha256:` before them or
    not) or empty. The cheap checks come first; then the file is read once, in constant memory.

    Raises NotFoundError, DeniedError (unreadable), ConflictError (in use), FailedError (no qemu-img, reading fails) and
    RefusedError (not what was declared, no image, unsafe).
    """
    what = f"image file {sanitise(path, 200)}"
    wanted = _parse_digest(what, declared_sha256)
    if declared_format not in ("", *FORMATS):
        shown = sanitise(declared_format, 40)
        raise RefusedError(what, f"format {shown} is not taken", "convert it to qcow2 or raw with qemu-img convert")
    with _open(path, what) as subject:
        before = _fingerprint(subject.descriptor)
        image_format = _decide_format(subject, declared_format)
        virtual_size = _read_virtual_size(subject, image_format, limits)
        _ask_qemu(subject, image_format, virtual_size)
        digest = _hash(subject, report)
        title = _read_title(subject)
        if _fingerprint(subject.descriptor) != before:
            raise ConflictError(what, "it changed while it was read", "try again when nothing writes to it")
    if wanted and digest != wanted:
        raise RefusedError(what, f"its SHA-256 is {digest}, not the declared {wanted}", "fetch it again")
    return ImageFacts(image_format, subject.size, virtual_size, f"sha256:{digest}", title)


# --- the file


@contextmanager
def _open(path: Path, what: str) -> Iterator[_Subject]:
    """Open a regular file; a FIFO is not waited for and a device is not touched."""
    try:
        _require_regular(path.stat().st_mode, what)
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise _describe(error, what) from error
    try:
        status = os.fstat(descriptor)
        _require_regular(status.st_mode, what)
        if status.st_size == 0:
            raise RefusedError(what, "it is empty", "fetch it again")
        try:
            head = os.pread(descriptor, signatures.HEAD_BYTES, 0)
            tail = os.pread(descriptor, signatures.TAIL_BYTES, max(0, status.st_size - signatures.TAIL_BYTES))
        except OSError as error:
            raise _describe(error, what) from error
        yield _Subject(what, descriptor, status.st_size, head, tail)
    finally:
        os.close(descriptor)


def _require_regular(mode: int, what: str) -> None:
    kinds = (
        (stat.S_ISDIR, "a directory"),
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISBLK, "a block device"),
        (stat.S_ISCHR, "a character device"),
    )
    for matches, name in kinds:
        if matches(mode):
            raise RefusedError(what, f"it is {name}, not a file", "copy the disk into a file first")


def _describe(error: OSError | ValueError, what: str) -> KCError:
    if isinstance(error, ValueError):
        return NotFoundError(what, "no such file")  # a name with a NUL in it
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
        return NotFoundError(what, "no such file")
    if error.errno in (errno.EACCES, errno.EPERM):
        return DeniedError(what, "it may not be read", "give yourself the right to read it")
    return FailedError(what, f"it cannot be read: {(error.strerror or str(error)).lower()}")


def _fingerprint(descriptor: int) -> tuple[int, int, int]:
    status = os.fstat(descriptor)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _hash(subject: _Subject, report: Report | None) -> str:
    """Return the SHA-256 of the whole file, as hexadecimal digits."""
    hasher = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    done = reported = 0
    while True:
        try:
            count = os.preadv(subject.descriptor, [buffer], done)
        except OSError as error:
            raise _describe(error, subject.what) from error
        if not count:
            return hasher.hexdigest()
        hasher.update(buffer[:count])
        done += count
        if report and (done - reported >= _REPORT_EVERY_BYTES or done >= subject.size):
            report(done, subject.size)
            reported = done


def _parse_digest(what: str, text: str) -> str:
    if not text:
        return ""
    match = _DIGEST.fullmatch(text.strip().lower())
    if not match:
        raise RefusedError(what, f"{sanitise(text, 80)} is no SHA-256", "give 64 hexadecimal digits")
    return match[1]


# --- what it is


def _decide_format(subject: _Subject, declared: str) -> str:
    """Return `raw` or `qcow2`, where the inspectors, the marks and the declaration agree; raise RefusedError."""
    found = _find_formats(subject)
    if subject.head.startswith(qcow2.MAGIC):
        if declared == "raw" and isinstance(qcow2.read_header(subject.head), qcow2.Header):
            raise subject.refuse("it is a qcow2 image, not the declared raw", "declare the format qcow2 or none")
        if fault := qcow2.find_fault(subject.head, subject.size):
            raise subject.refuse(fault.why, fault.hint)
        if found != {"qcow2"}:
            raise subject.refuse(f"it can be taken for several formats: {', '.join(sorted(found))}", "make it again")
        return "qcow2"
    _refuse_others(subject, found)
    if declared == "qcow2":
        raise subject.refuse("it is no qcow2 image, as was declared", "declare its real format or none")
    if not declared and not (signatures.find_structure(subject.head) or signatures.is_iso(subject.head)):
        raise subject.refuse(
            "it is no disk image: it has no boot sector, partition table or file system",
            "declare the format raw (--format raw) if it is a disk all the same",
        )
    if subject.size % _SECTOR_BYTES:
        raise subject.refuse(
            f"its {subject.size} bytes are no whole number of {_SECTOR_BYTES}-byte sectors",
            "fetch it again; it may be cut off",
        )
    return "raw"


def _find_formats(subject: _Subject) -> set[str]:
    """Return the names of all formats that oslo.utils finds, `gpt` and `raw` included; raise RefusedError."""
    from oslo_utils.imageutils import format_inspector  # noqa: PLC0415 - it costs 0.14 s

    # It logs each failed check; what matters of that is in our own errors.
    logging.getLogger(format_inspector.__name__).addHandler(_NO_LOG)
    wrapper = format_inspector.InspectWrapper(io.BytesIO(subject.head))
    while wrapper.read(_INSPECTOR_CHUNK_BYTES):
        pass
    wrapper.close()
    found = wrapper.formats or []
    for inspector in found:
        # What a partition table says is the guest's business: no host program follows it.
        if inspector.NAME == "qcow2" and not qcow2.find_fault(subject.head, subject.size):
            try:
                inspector.safety_check()
            except (format_inspector.SafetyCheckFailed, format_inspector.ImageFormatError) as error:
                raise subject.refuse(f"it is unsafe: {sanitise(error, 200)}") from error
    return {str(inspector.NAME) for inspector in found}


def _refuse_others(subject: _Subject, found: set[str]) -> None:
    known = signatures.name_other(subject.head, subject.tail)
    if known is None and (others := found - {"gpt", "iso", "raw"}):
        known = signatures.name_inspected(min(others))
    if known is None and ("iso" in found or signatures.is_disc(subject.head)) and not signatures.is_iso(subject.head):
        known = signatures.OTHER_DISC
    if known:
        raise subject.refuse(f"it is no raw or qcow2 image but {known.name}", known.hint)


def _read_title(subject: _Subject) -> str:
    if subject.head.startswith(qcow2.MAGIC) or not signatures.is_iso(subject.head):
        return ""
    return sanitise(f"ISO 9660 {signatures.read_disc_label(subject.head)}".strip(), 80)


def _read_virtual_size(subject: _Subject, image_format: str, limits: Limits) -> int:
    """Return the size of the disk in bytes; raise RefusedError where it is beyond the limits."""
    header = qcow2.read_header(subject.head) if image_format == "qcow2" else None
    size = header.virtual_size if isinstance(header, qcow2.Header) else subject.size
    largest = min(limits.virtual_size_bytes, max(subject.size, 1 << 20) * limits.virtual_ratio)
    if size > largest:
        raise subject.refuse(f"it claims a disk of {size >> 30} GiB, more than the {largest >> 30} GiB allowed for it")
    return size


# --- the second opinion


def _ask_qemu(subject: _Subject, image_format: str, virtual_size: int) -> None:
    """Have `qemu-img` read the file as `image_format`; raise RefusedError where it disagrees or finds damage."""
    facts = _read_info(subject, image_format)
    specific = facts.get("format-specific", {}).get("data", {})
    if facts.get("format") != image_format or facts.get("virtual-size") != virtual_size:
        raise subject.refuse("qemu-img reads it in another way than KC does", "make it again with qemu-img convert")
    if any("backing" in key for key in facts) or "data-file" in specific or facts.get("encrypted"):
        raise subject.refuse("it refers to another file or is encrypted", "make it again with qemu-img convert")
    if facts.get("dirty-flag") or specific.get("corrupt"):
        raise subject.refuse("it is damaged", "repair it with qemu-img check -r all")
    if image_format == "qcow2":
        _check_clusters(subject)


def _read_info(subject: _Subject, image_format: str) -> dict[str, Any]:
    limits = (f"--as={_ADDRESS_SPACE_BYTES}", f"--cpu={_CPU_SECONDS}")
    result = _run_qemu_img(subject, limits, ["info", "-f", image_format, "--output=json"], _CPU_SECONDS)
    if result.returncode:
        reason = sanitise(result.stderr.decode(errors="replace").strip().rpartition("': ")[2], 200)
        if "lock" in reason:
            raise ConflictError(subject.what, "another program writes to it", "stop the VM that uses it")
        raise subject.refuse(f"qemu-img cannot read it: {reason or f'it ended with {result.returncode}'}")
    facts: dict[str, Any] = json.loads(result.stdout)
    return facts


def _check_clusters(subject: _Subject) -> None:
    limits = (f"--as={_CHECK_ADDRESS_SPACE_BYTES}", f"--cpu={_CHECK_CPU_SECONDS}")
    result = _run_qemu_img(subject, limits, ["check", "-q", "-f", "qcow2"], _CHECK_CPU_SECONDS)
    # Leaked clusters waste room and harm nothing.
    if result.returncode not in (0, _LEAKS_ONLY):
        raise subject.refuse("it is damaged or cut off", "fetch it again, or repair it with qemu-img check -r all")


def _run_qemu_img(
    subject: _Subject, limits: tuple[str, ...], arguments: list[str], seconds: int
) -> subprocess.CompletedProcess[bytes]:
    """Run `qemu-img` on the open file itself, so that no name, and no other file of that name, can mislead it."""
    for program, package in (("qemu-img", "qemu-utils"), ("prlimit", "util-linux")):
        if not shutil.which(program):
            raise FailedError(subject.what, f"{program} is missing, so it cannot be checked", f"install {package}")
    command = ["prlimit", *limits, "--core=0", "--fsize=0", "--nofile=64", "qemu-img", *arguments]
    try:
        return subprocess.run(
            [*command, f"/proc/self/fd/{subject.descriptor}"],
            pass_fds=(subject.descriptor,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            # `check` names every bad cluster there: of a hostile image, without end.
            stderr=subprocess.PIPE if arguments[0] == "info" else subprocess.DEVNULL,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            timeout=seconds * _WALL_FACTOR,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise subject.refuse(f"qemu-img did not come to an end within {seconds * _WALL_FACTOR} s") from error
