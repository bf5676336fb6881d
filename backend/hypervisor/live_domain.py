"""A domain that is on, for those who change it: looked at, told, and asked to let go of devices."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Sequence

import libvirt

from backend.hypervisor.domains import Domains, find
from backend.hypervisor.errors import is_code, message_of
from backend.hypervisor.guest import answers
from backend.hypervisor.link import Link
from backend.hypervisor.live_devices_xml import LiveDisk, LiveNic
from backend.hypervisor.live_xml import LiveDomain, read_live
from backend.hypervisor.plan import DomainPlan

LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE
CHANGE_SECONDS = 30.0
POLL_SECONDS = 0.1
# How often a guest is asked: one that boots hears nothing at first.
ASK_SECONDS = 5.0
_GONE = (libvirt.VIR_ERR_NO_DOMAIN, libvirt.VIR_ERR_OPERATION_INVALID)
_NO_PORT = r"No more available PCI slots|no free PCI|No PCI buses available"
_IS_LEAVING = r"already in the process of unplug|already being (re|un)"


class RunningDomain:
    """One domain, looked up anew for each call; `patience` is how long a guest may take to let go, in seconds."""

    def __init__(self, link: Link, domains: Domains, plan: DomainPlan, patience: float) -> None:
        self._link = link
        self._domains = domains
        self._plan = plan
        self._what = f"VM {plan.name}"
        self.patience = patience

    def look(self, measured: Collection[str] | None = None) -> LiveDomain | None:
        """Return what the domain is; None when it is off. Raises ConflictError for another owner's.

        With `measured`, paths, what QEMU has to be asked for is there too: the sizes of these disks, and whether the
        balloon has a driver.
        """

        def fetch(connection: libvirt.virConnect) -> LiveDomain | None:
            domain = find(connection, self._plan.uid)
            if domain is None:
                return None
            self._domains.check_owner(domain, self._plan)
            if not domain.isActive():
                return None
            live = read_live(domain.XMLDesc())
            try:
                return live if measured is None else _measure(domain, live, measured)
            except libvirt.libvirtError:
                if domain.isActive():
                    raise
                return None

        return self._link.observe(self._what, fetch)

    def control(self, function: Callable[[libvirt.virDomain], object], deadline: float = CHANGE_SECONDS) -> None:
        """Do something to the domain, unless it has gone off."""

        def act(connection: libvirt.virConnect) -> None:
            domain = find(connection, self._plan.uid)
            if domain is None or not domain.isActive():
                return
            try:
                function(domain)
            except libvirt.libvirtError as error:
                if not is_code(error, *_GONE) or domain.isActive():
                    raise

        self._link.control(self._what, act, deadline)

    def attempt(
        self,
        function: Callable[[libvirt.virDomain], object],
        is_refusal: Callable[[libvirt.libvirtError], bool],
        deadline: float = CHANGE_SECONDS,
    ) -> libvirt.libvirtError | None:
        """Do something that the domain or its guest may refuse; return how it did."""
        refused: list[libvirt.libvirtError] = []

        def act(domain: libvirt.virDomain) -> None:
            refused.clear()
            try:
                function(domain)
            except libvirt.libvirtError as error:
                if not is_refusal(error):
                    raise
                refused.append(error)

        self.control(act, deadline)
        return refused[0] if refused else None

    def is_running(self) -> bool:
        """Return whether the guest moves at all."""
        found = self._domains.observe(self._plan.uid)
        return found is not None and found.power == "running"

    def has_agent(self) -> bool:
        """Return whether the guest's agent answers."""
        return self.is_running() and answers(self._link, self._domains, self._plan.uid)

    def attach(self, build: Callable[[libvirt.virDomain, str], str], is_there: Callable[[LiveDomain], bool]) -> None:
        """Add what `build` makes of the domain and its XML; where there is no room for it on the bus, it waits."""

        def add(domain: libvirt.virDomain) -> None:
            try:
                domain.attachDeviceFlags(build(domain, domain.XMLDesc()), LIVE)
            except libvirt.libvirtError as error:
                # Another process may have been faster.
                if not re.search(_NO_PORT, message_of(error)) and not is_there(read_live(domain.XMLDesc())):
                    raise

        self.control(add)

    def release(self, devices: Sequence[LiveNic | LiveDisk]) -> list[LiveNic | LiveDisk]:
        """Ask the guest to let go of devices until it has or the time is over; return what it holds."""
        wanted = {(device.key, device.alias) for device in devices}
        ends = time.monotonic() + self.patience
        ask_at = 0.0
        while True:
            live = self.look() if wanted else None
            there: tuple[LiveNic | LiveDisk, ...] = (*live.nics, *live.disks) if live is not None else ()
            held = [device for device in there if (device.key, device.alias) in wanted]
            now = time.monotonic()
            # A guest that stands still lets go of nothing; asked now, it would do so later, whatever is wanted then.
            if not held or now >= ends or not self.is_running():
                return held
            if now >= ask_at:
                ask_at = now + ASK_SECONDS
                for device in held:
                    self.control(lambda domain, alias=device.alias: _ask_to_let_go(domain, alias))  # type: ignore[misc]
            time.sleep(POLL_SECONDS)


def _measure(domain: libvirt.virDomain, live: LiveDomain, paths: Collection[str]) -> LiveDomain:
    disks = tuple(
        disk._replace(size_bytes=domain.blockInfo(disk.target)[0]) if disk.path in paths else disk
        for disk in live.disks
    )
    told = domain.memoryStats()
    return live._replace(disks=disks, silent_balloon=live.has_balloon and "available" not in told)


def _ask_to_let_go(domain: libvirt.virDomain, alias: str) -> None:
    try:
        domain.detachDeviceAlias(alias, LIVE)
    except libvirt.libvirtError as error:
        if is_code(error, libvirt.VIR_ERR_DEVICE_MISSING) or re.search(_IS_LEAVING, message_of(error)):
            return
        raise
