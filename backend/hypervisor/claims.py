"""Whole volumes, or none: who may write one, and how everybody knows that it is not whole yet.

libvirt cannot rename a volume, so a marker beside it (`NAME.TOKEN.part`) says that it is not whole. The marker is made
before the volume and deleted after its last byte; one who is killed leaves it behind, and everybody knows. It is the
lock, too: who finds no other marker beside his own has the volume to himself, and who finds one waits for it. A marker
beside which nothing moves for a while is a dead one's; what he made goes first, then his marker, and he, should he come
back to life, sees at the end that it is gone, and begins again.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import libvirt

from backend.errors import KCError
from backend.hypervisor.link import Channel
from backend.hypervisor.plan import Volume
from backend.hypervisor.pools import (
    delete_volume,
    find_details,
    find_volume,
    list_names,
    marked_name,
    marker_name,
    require_pool,
)
from backend.hypervisor.volume_xml import build_raw

POLL_SECONDS = 0.1
BACK_OFF_SECONDS = 0.2
BEAT_SECONDS = 1.0

T = TypeVar("T")


def _leave(_connection: libvirt.virConnect, _markers: tuple[str, ...]) -> None:
    """Find nothing to stop: an upload ends with the connection of the dead."""


class Claim:
    """One process's claim to write the volume `name`.

    `stop_others` is called with a connection and the markers of the dead, before what they made is deleted.
    """

    def __init__(
        self,
        channel: Channel,
        pool: str,
        name: str,
        stall_seconds: float,
        stop_others: Callable[[libvirt.virConnect, tuple[str, ...]], None] = _leave,
    ) -> None:
        self.token = os.urandom(4).hex()
        self.has_buried = False
        self._channel = channel
        self._pool_name = pool
        self._name = name
        self._what = f"volume {name}"
        self._stall_seconds = stall_seconds
        self._stop_others = stop_others
        self._marker = marker_name(name, self.token)
        self._beats = 1
        self._beat_at = 0.0

    def make(
        self,
        build: Callable[[], str],
        fill: Callable[[], None],
        report: Callable[[int], None],
        *,
        replace: Callable[[Volume | None], bool],
    ) -> Volume:
        """Make the volume of the XML that `build` returns, and have `fill` fill it; on any failure nothing stays.

        While another process is at it, `report` gets the bytes that the volume takes by then. `replace` is asked with
        what that one has made (None: with what was there before) whether it is to be made anew all the same.
        """
        while True:
            volume = self._await_others(report)
            if volume is not None and not replace(volume):
                return volume
            with contextlib.suppress(_BusyError):
                volume = self._take(build(), replace=replace(None))
                if volume is None:
                    volume = self._fill(fill)
                if volume is not None:
                    return volume

    def _await_others(self, report: Callable[[int], None]) -> Volume | None:
        """Wait while others write, and bury the dead; return what another one finished meanwhile."""
        seen: _Progress | None = None
        moved_at = time.monotonic()
        while (progress := self._call(self._look)).markers:
            if progress != seen:
                seen, moved_at = progress, time.monotonic()
            elif time.monotonic() - moved_at > self._stall_seconds:
                self._bury(tuple(name for name, _ in progress.markers))
                return None
            report(progress.volume.allocation_bytes if progress.volume is not None else 0)
            time.sleep(POLL_SECONDS)
        return progress.volume if seen is not None else None

    def _take(self, xml: str, *, replace: bool) -> Volume | None:
        """Make the volume, empty, this one's alone, and return None; one that is to stay is returned instead."""
        try:
            return self._call(lambda pool: self._make_empty(pool, xml, replace=replace))
        except _BusyError:
            time.sleep(random.uniform(0, BACK_OFF_SECONDS))  # noqa: S311 - two that back off are not to meet again
            raise
        except BaseException:
            self._give_up()
            raise

    def _fill(self, fill: Callable[[], None]) -> Volume | None:
        """Return the whole volume; None where this one had been taken for dead."""
        try:
            fill()
        except BaseException:
            self._give_up()
            raise
        if not self._call(lambda pool: delete_volume(pool, self._marker)):
            return None
        details = self._call(lambda pool: find_details(pool, self._name))
        return details.volume if details is not None else None

    def beat(self) -> None:
        """Show those who wait that this one lives, by a marker that grows."""
        now = time.monotonic()
        if now - self._beat_at < BEAT_SECONDS:
            return
        self._beat_at = now
        self._beats += 1

        def grow(pool: libvirt.virStoragePool) -> None:
            marker = find_volume(pool, self._marker)
            if marker is not None:
                marker.resize(self._beats)

        self._call(grow)

    def _give_up(self) -> None:
        """Take everything back, unless another one has taken over; a lost connection leaves the marker to tell."""

        def undo(pool: libvirt.virStoragePool) -> None:
            if find_volume(pool, self._marker) is not None:
                delete_volume(pool, self._name)
                delete_volume(pool, self._marker)

        with contextlib.suppress(KCError):
            self._call(undo)

    def _call(self, function: Callable[[libvirt.virStoragePool], T]) -> T:
        return self._channel.call(self._what, lambda raw: function(require_pool(raw, self._pool_name)))

    def _others(self, pool: libvirt.virStoragePool) -> list[str]:
        return sorted(name for name in list_names(pool) if name != self._marker and marked_name(name) == self._name)

    def _look(self, pool: libvirt.virStoragePool) -> _Progress:
        markers = tuple((name, _capacity(pool, name)) for name in self._others(pool))
        details = find_details(pool, self._name)
        return _Progress(markers, details.volume if details is not None else None)

    def _bury(self, markers: tuple[str, ...]) -> None:
        self._channel.call(self._what, lambda raw: self._stop_others(raw, markers))

        def delete(pool: libvirt.virStoragePool) -> None:
            # In this order nobody takes for whole what is not.
            for name in (self._name, *markers):
                delete_volume(pool, name)

        self._call(delete)
        self.has_buried = True

    def _make_empty(self, pool: libvirt.virStoragePool, xml: str, *, replace: bool) -> Volume | None:
        pool.createXML(build_raw(self._marker, 1))
        if self._others(pool):
            delete_volume(pool, self._marker)
            raise _BusyError
        existing = None if replace else find_details(pool, self._name)
        if existing is not None:
            delete_volume(pool, self._marker)
            return existing.volume
        delete_volume(pool, self._name)
        pool.createXML(xml)
        return None


class _BusyError(Exception):
    """Another process is at the volume."""


class _Progress(NamedTuple):
    """What others have of a volume: their markers with their sizes, and the volume itself."""

    markers: tuple[tuple[str, int], ...]
    volume: Volume | None


def _capacity(pool: libvirt.virStoragePool, name: str) -> int:
    details = find_details(pool, name)
    return details.volume.capacity_bytes if details is not None else 0
