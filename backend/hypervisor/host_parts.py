"""The parts of a host, each made by the first who needs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from backend.hypervisor.link import Link

T = TypeVar("T")


class Part(Generic[T]):
    """A part of a host that the first who needs it makes, once, whatever thread that is."""

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make
        self._name = make.__name__

    def __get__(self, host: HostParts, owner: type[HostParts]) -> T:
        with host.lock:
            if self._name not in host.parts:
                host.parts[self._name] = self._make(host)
            made: T = host.parts[self._name]
            return made


class HostParts:
    """What every method of a host may need: the link to its libvirt, and the parts that are made already."""

    def __init__(self, uri: str, pool: str, cache: Path) -> None:
        self._asked = uri
        self._pool = pool
        self._cache_folder = cache
        self.lock = RLock()
        self.parts: dict[str, Any] = {}

    @Part
    def _link(self) -> Link:
        from backend.hypervisor.link import Link  # noqa: PLC0415 - it brings libvirt

        return Link(self._asked)
