"""libvirt's event loop: one for the whole process, on a thread that never ends.

Without it no keepalive works, and keepalive is the only thing that ends a call to a daemon that has stopped answering.
It must be registered before the first connection is opened, and run for ever: the bindings may call back after a
connection was closed.
"""

from __future__ import annotations

import threading
import time

import libvirt

_lock = threading.Lock()
_started = False
_kept: set[libvirt.virConnect] = set()


def start() -> None:
    """Register the event loop and start its thread, once for the process; errors are no longer written to stderr."""
    global _started  # noqa: PLW0603 - the event loop is the process's, not an object's
    with _lock:
        if _started:
            return
        libvirt.registerErrorHandler(_ignore, None)
        libvirt.virEventRegisterDefaultImpl()
        threading.Thread(target=_run, args=(_kept,), name="kc-libvirt-events", daemon=True).start()
        _started = True


def keep(connection: libvirt.virConnect) -> None:
    """Keep a connection alive until `release`.

    An open connection that is garbage collected is closed, which asks the daemon and can block. The interpreter
    collects everything at its end, except what the frame of a running thread holds: this module's.
    """
    _kept.add(connection)


def release(connection: libvirt.virConnect) -> None:
    """Undo `keep`."""
    _kept.discard(connection)


def _ignore(_context: object, _error: object) -> None:
    """Say nothing: every libvirt error is raised as an exception too."""


def _run(_hold: set[libvirt.virConnect]) -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:
            time.sleep(0.1)  # poll itself failed; not to be tried again in a tight loop
