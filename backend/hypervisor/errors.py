"""From libvirt's errors to KC's, with what to do next."""

from __future__ import annotations

import re

import libvirt

from backend.errors import (
    ConflictError,
    FailedError,
    KCError,
    NotFoundError,
    RefusedError,
    TimedOutError,
    UnreachableError,
)
from backend.text import sanitise

WHY_LIMIT = 400

_KINDS: dict[int, type[KCError]] = {
    libvirt.VIR_ERR_NO_DOMAIN: NotFoundError,
    libvirt.VIR_ERR_NO_NETWORK: NotFoundError,
    libvirt.VIR_ERR_NO_STORAGE_POOL: NotFoundError,
    libvirt.VIR_ERR_NO_STORAGE_VOL: NotFoundError,
    libvirt.VIR_ERR_DOM_EXIST: ConflictError,
    libvirt.VIR_ERR_STORAGE_VOL_EXIST: ConflictError,
    libvirt.VIR_ERR_OPERATION_INVALID: ConflictError,
    libvirt.VIR_ERR_RESOURCE_BUSY: ConflictError,
    libvirt.VIR_ERR_OPERATION_TIMEOUT: TimedOutError,
    libvirt.VIR_ERR_AGENT_UNRESPONSIVE: TimedOutError,
    libvirt.VIR_ERR_AGENT_UNSYNCED: TimedOutError,
    libvirt.VIR_ERR_NO_SUPPORT: RefusedError,
    libvirt.VIR_ERR_INVALID_ARG: RefusedError,
    libvirt.VIR_ERR_INVALID_MAC: RefusedError,
    libvirt.VIR_ERR_XML_ERROR: RefusedError,
    libvirt.VIR_ERR_XML_DETAIL: RefusedError,
    libvirt.VIR_ERR_XML_INVALID_SCHEMA: RefusedError,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED: RefusedError,
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED: RefusedError,
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED: RefusedError,
    libvirt.VIR_ERR_NO_CONNECT: UnreachableError,
    libvirt.VIR_ERR_INVALID_CONN: UnreachableError,
    libvirt.VIR_ERR_RPC: UnreachableError,
    libvirt.VIR_ERR_AUTH_FAILED: UnreachableError,
    libvirt.VIR_ERR_AUTH_CANCELLED: UnreachableError,
    libvirt.VIR_ERR_AUTH_UNAVAILABLE: UnreachableError,
}
_LOST = frozenset(
    {
        libvirt.VIR_ERR_INTERNAL_ERROR,
        libvirt.VIR_ERR_SYSTEM_ERROR,
        libvirt.VIR_ERR_RPC,
        libvirt.VIR_ERR_INVALID_CONN,
        libvirt.VIR_ERR_NO_CONNECT,
        libvirt.VIR_ERR_OPERATION_FAILED,
    }
)
# Another job has the domain, the volume or the pool for now; or the QEMU that had the image has not quite ended; or a
# network is just being made anew.
_BUSY = (
    r"(?i)cannot acquire state change lock|asynchronous jobs running|still being allocated"
    r"|failed to get (shared )?\".*\" lock|network '.*' is not active|no network with matching name"
)
_NO_ROOM = r"(?i)no space left|disk quota exceeded|not enough (free )?space|enospc"
_HINTS: tuple[tuple[str, str], ...] = (
    (r"virtlogd", "start it: `virtlogd -d`, or `systemctl start virtlogd`"),
    (r"network '.*' is not active", "start the network: `virsh net-start NAME`"),
    (r"interface MTU on '.*'|bridge .*No such device", "the host has no such bridge: `ip link add NAME type bridge`"),
    (r"pool '.*' is not active", "start the pool: `virsh pool-start NAME`, or `kc init`"),
    (r"[Cc]annot allocate memory|set up guest memory", "stop another VM, or give this one less memory"),
    (r"dnsmasq.*(not found|[Nn]o such file)|find .*dnsmasq", "install it: `apt-get install dnsmasq-base`"),
    (r"(binary|emulator).*(not|find)|no emulator", "install QEMU for this architecture"),
    (r"firmware|OVMF|AAVMF", "install the firmware: `apt-get install ovmf qemu-efi-aarch64`"),
    (r"[Pp]ermission denied", "QEMU's user must be allowed to read it, and to pass its folders"),
)


def message_of(error: libvirt.libvirtError) -> str:
    """Return libvirt's own words, safe for a terminal, without a full stop at the end."""
    return sanitise(error.get_error_message() or str(error), WHY_LIMIT).rstrip(". ")


def is_lost(error: libvirt.libvirtError) -> bool:
    """Return whether the error is of the connection itself, not of what was asked through it."""
    return (
        error.get_error_domain() in (libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE) and error.get_error_code() in _LOST
    )


def is_code(error: libvirt.libvirtError, *codes: int) -> bool:
    """Return whether the error is one of these."""
    return error.get_error_code() in codes


def translate(error: libvirt.libvirtError, what: str) -> KCError:
    """Return KC's error for what libvirt says about `what`."""
    why = message_of(error)
    if re.search(_NO_ROOM, why):
        return no_room(what, why)
    kind = _KINDS.get(error.get_error_code() or 0, FailedError)
    is_busy = is_code(error, libvirt.VIR_ERR_RESOURCE_BUSY) or re.search(_BUSY, why)
    return kind(what, why, _hint_for(why), **({"transient": True} if is_busy else {}))


def no_room(what: str, why: str) -> FailedError:
    """Return the error of a pool that is full."""
    return FailedError(what, f"no room in the pool: {why}", "make room, or name another pool with KC_POOL")


def unreachable(uri: str, why: str) -> UnreachableError:
    """Return the error of a libvirt that cannot be opened or does not answer, with what to start."""
    return UnreachableError(f"libvirt {sanitise(uri)}", why, _opening_hint(uri, why))


def _hint_for(why: str) -> str:
    return next((hint for pattern, hint in _HINTS if re.search(pattern, why)), "")


def _opening_hint(uri: str, why: str) -> str:
    if re.search(r"no connection driver|does not include a driver", why):
        return "correct KC_LIBVIRT_URI: qemu:///system, or qemu+ssh://USER@HOST/system"
    if "+ssh" in uri or "+libssh" in uri:
        return "check that `ssh` reaches the host without asking for anything"
    if re.search(r"[Pp]ermission denied|authentication|polkit", why):
        return "join the group libvirt (`adduser USER libvirt`), or set KC_LIBVIRT_URI=qemu:///session"
    if "://" in uri and not uri.split("://", 1)[1].startswith("/"):
        return "check that the host is up and its libvirt listens"
    return "start it: `systemctl start libvirtd`, or without systemd `virtlogd -d; libvirtd -d`"
