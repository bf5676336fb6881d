"""The storage pool: found, made, started, and what is in it by name."""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path, PurePosixPath

import libvirt

from backend.errors import FailedError, NotFoundError, RefusedError
from backend.hypervisor.errors import is_code, is_lost
from backend.hypervisor.link import Link
from backend.hypervisor.volume_xml import VolumeDetails, build_pool, read_pool, read_volume

SYSTEM_FOLDER = "/var/lib/libvirt/images"
REFRESH_SECONDS = 2.0
POLL_SECONDS = 0.05
# Stands beside a volume while it is being uploaded: `NAME.TOKEN.part`.
_MARKER = re.compile(r"(?P<name>.+)\.(?P<token>[0-9a-f]{8})\.part", re.DOTALL)


def marker_name(name: str, token: str) -> str:
    """Return the name of the volume that says that `name` is not whole yet."""
    return f"{name}.{token}.part"


def marked_name(volume: str) -> str:
    """Return the name that a marker speaks of; empty for a volume that is none."""
    match = _MARKER.fullmatch(volume)
    return match["name"] if match else ""


def marker_token(volume: str) -> str:
    """Return whose a marker is; empty for a volume that is none."""
    match = _MARKER.fullmatch(volume)
    return match["token"] if match else ""


def find_pool(connection: libvirt.virConnect, name: str) -> libvirt.virStoragePool | None:
    """Return the handle of a pool, or None."""
    try:
        return connection.storagePoolLookupByName(name)
    except libvirt.libvirtError as error:
        if is_code(error, libvirt.VIR_ERR_NO_STORAGE_POOL):
            return None
        raise


def require_pool(connection: libvirt.virConnect, name: str) -> libvirt.virStoragePool:
    """Return the handle of a pool; raise NotFoundError."""
    pool = find_pool(connection, name)
    if pool is None:
        raise NotFoundError(f"storage pool {name}", "the host has none of that name", "run `kc init`")
    return pool


def find_volume(pool: libvirt.virStoragePool, name: str) -> libvirt.virStorageVol | None:
    """Return the handle of a volume, or None."""
    try:
        return pool.storageVolLookupByName(name)
    except libvirt.libvirtError as error:
        if is_code(error, libvirt.VIR_ERR_NO_STORAGE_VOL):
            return None
        raise


def list_names(pool: libvirt.virStoragePool) -> list[str]:
    """Return the names of a pool's volumes as they are at one moment.

    virStoragePoolListVolumes needs their number first, and leaves one out where another came in between.
    """
    return [volume.name() for volume in pool.listAllVolumes()]


def find_details(pool: libvirt.virStoragePool, name: str) -> VolumeDetails | None:
    """Return a volume and what backs it, or None."""
    volume = find_volume(pool, name)
    try:
        return None if volume is None else read_volume(volume.XMLDesc())
    except libvirt.libvirtError as error:
        # Deleted since it was looked up, or its file since the pool was read.
        if is_lost(error):
            raise
        return None


def delete_volume(pool: libvirt.virStoragePool, name: str) -> bool:
    """Delete a volume; False where there was none (any more)."""
    volume = find_volume(pool, name)
    if volume is None:
        return False
    try:
        volume.delete()
    except libvirt.libvirtError as error:
        if is_code(error, libvirt.VIR_ERR_NO_STORAGE_VOL):
            return False
        raise
    return True


def refresh(pool: libvirt.virStoragePool) -> None:
    """Have the daemon look again what is in the pool; while a volume is being made it cannot, and need not."""
    ends = time.monotonic() + REFRESH_SECONDS
    while True:
        try:
            pool.refresh()
        except libvirt.libvirtError as error:
            if "asynchronous jobs" not in str(error):
                raise
            if time.monotonic() < ends:
                time.sleep(POLL_SECONDS)
                continue
        return


def ensure_pool(link: Link, name: str) -> None:
    """Make the pool, a folder, where there is none of that name, and start it."""
    what = f"storage pool {name}"
    if name in ("", ".", "..") or "/" in name:
        raise RefusedError(what, "no such name can be", "name another one with KC_POOL")

    def make(connection: libvirt.virConnect) -> None:
        pool = find_pool(connection, name)
        if pool is None:
            pool = _define(connection, name, choose_folder(link, connection, name))
        if not pool.isActive():
            _start(pool)

    link.control(what, make)


def choose_folder(link: Link, connection: libvirt.virConnect, name: str) -> str:
    """Return the folder of a new pool: where libvirt's own images are, which QEMU may read.

    Raises FailedError for a remote session, whose home folder libvirt does not tell.
    """
    is_session = connection.getURI().partition("?")[0].endswith("/session")
    # Root's own session is the system's daemon, whose QEMU may not look into root's home.
    if not is_session or (link.is_local and os.geteuid() == 0):
        return f"{SYSTEM_FOLDER}/{name}"
    if link.is_local:
        data = os.environ.get("XDG_DATA_HOME", "")
        base = Path(data) if data.startswith("/") else Path.home() / ".local" / "share"
        return str(base / "libvirt" / "images" / name)
    for pool in connection.listAllStoragePools():
        details = read_pool(pool.XMLDesc())
        if details.type == "dir":
            return str(PurePosixPath(details.path).parent / name)
    raise FailedError(
        f"storage pool {name}",
        "a remote session does not tell where its images belong",
        f"make one there: `virsh -c {link.uri} pool-define-as {name} dir --target FOLDER`",
    )


def _define(connection: libvirt.virConnect, name: str, folder: str) -> libvirt.virStoragePool:
    try:
        pool = connection.storagePoolDefineXML(build_pool(name, folder))
    except libvirt.libvirtError:
        # Another process may have been faster.
        existing = find_pool(connection, name)
        if existing is None:
            raise
        return existing
    with contextlib.suppress(libvirt.libvirtError):
        pool.setAutostart(1)  # a comfort: whoever needs the pool starts it
    return pool


def _start(pool: libvirt.virStoragePool) -> None:
    try:
        # Makes the folder where it is missing; an existing one is left as it is.
        if read_pool(pool.XMLDesc()).type == "dir":
            pool.build()
        pool.create()
    except libvirt.libvirtError:
        if not pool.isActive():
            raise
