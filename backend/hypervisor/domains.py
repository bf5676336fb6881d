"""One domain at a time: defined, started, stopped, undefined, each so that it may be repeated."""

from __future__ import annotations

import time

import libvirt

from backend.errors import ConflictError, NotFoundError, RefusedError, TimedOutError
from backend.hypervisor.domain_xml import Place, Placement, build_domain, build_machine, read_owner
from backend.hypervisor.errors import is_code, is_lost, message_of
from backend.hypervisor.link import Link
from backend.hypervisor.live_xml import choose_places, find_overlaid, read_places
from backend.hypervisor.plan import DomainOwner, DomainPlan, ObservedDomain
from backend.hypervisor.states import describe
from backend.hypervisor.xml import NAMESPACE, parse
from backend.text import sanitise

# The first call after an update of QEMU waits until libvirt has probed it; with a /dev/kvm that QEMU's user cannot open
# libvirt probes again and again.
DEFINE_SECONDS = 120.0
START_SECONDS = 120.0
# libvirt gives a QEMU that hangs ten seconds before it kills it.
DESTROY_SECONDS = 45.0
POLL_SECONDS = 0.1
# A guest that was still booting may have missed the first press.
PRESS_SECONDS = 5.0
# A guest that shuts down ends its agent early on, unless it does not want to.
REBOOT_SECONDS = 15.0
_AGENT = "devices/channel/target[@name='org.qemu.guest_agent.0']"
_ACTIVE = frozenset(
    {
        libvirt.VIR_DOMAIN_RUNNING,
        libvirt.VIR_DOMAIN_BLOCKED,
        libvirt.VIR_DOMAIN_PAUSED,
        libvirt.VIR_DOMAIN_SHUTDOWN,
        libvirt.VIR_DOMAIN_PMSUSPENDED,
        libvirt.VIR_DOMAIN_CRASHED,
    }
)
_UNDEFINE_TPM: int = getattr(libvirt, "VIR_DOMAIN_UNDEFINE_TPM", 0)
_UNDEFINE = (
    libvirt.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
    | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
    | libvirt.VIR_DOMAIN_UNDEFINE_NVRAM
)


def find(connection: libvirt.virConnect, uid: str) -> libvirt.virDomain | None:
    """Return the handle of a domain, or None; it is good for one call only."""
    try:
        return connection.lookupByUUIDString(uid)
    except libvirt.libvirtError as error:
        if is_code(error, libvirt.VIR_ERR_NO_DOMAIN):
            return None
        raise


class Domains:
    """The domains of one host."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._names: dict[str, str] = {}

    def name(self, uid: str) -> str:
        """Return how errors call a domain."""
        return f"VM {self._names[uid]}" if uid in self._names else f"domain {uid}"

    def require(self, connection: libvirt.virConnect, uid: str) -> libvirt.virDomain:
        """Return the handle of a domain; raise NotFoundError."""
        domain = find(connection, uid)
        if domain is None:
            raise NotFoundError(self.name(uid), "the host has no such domain", "`kc vm list` shows what there is")
        self._names[uid] = sanitise(domain.name(), 100)
        return domain

    def observe(self, uid: str) -> ObservedDomain | None:
        """Return one domain, or None."""

        def fetch(connection: libvirt.virConnect) -> ObservedDomain | None:
            domain = find(connection, uid)
            return None if domain is None else _look(domain)

        return self._link.observe(self.name(uid), fetch)

    def find_by_name(self, name: str) -> ObservedDomain | None:
        """Return the domain of that name, or None."""

        def fetch(connection: libvirt.virConnect) -> ObservedDomain | None:
            domain = find_by_name(connection, name)
            return None if domain is None else _look(domain)

        return self._link.observe(f"VM {name}", fetch)

    def owner_of(self, uid: str) -> DomainOwner:
        """Return who made a domain; raise NotFoundError."""
        return self._link.observe(self.name(uid), lambda connection: read_owner_of(self.require(connection, uid)))

    def ensure_defined(self, plan: DomainPlan, placement: Placement, cpu_model: str = "") -> None:
        """Define the domain, or define it anew; raise ConflictError where the name or the uuid is another's."""
        build_domain(plan, placement, cpu_model)  # a plan that cannot be is refused before the host is asked
        what = f"VM {plan.name}"

        def define(connection: libvirt.virConnect) -> None:
            existing = find(connection, plan.uid)
            if existing is not None:
                self.check_owner(existing, plan)
                _check_overlays(existing, plan, placement)
            check_name(connection, plan)
            if plan.secure_boot:
                _check_firmware(connection, plan)
            name = rename(existing, plan.name) if existing is not None else ""
            places = _read_places(existing) if existing is not None else {}
            try:
                domain = connection.defineXML(build_domain(plan, placement, cpu_model, places, name=name))
            except libvirt.libvirtError:
                # Another process may have taken the name since.
                check_name(connection, plan)
                raise
            set_autostart(domain, wanted=plan.autostart)

        self._link.control(what, define, DEFINE_SECONDS)
        self._names[plan.uid] = plan.name

    def check_owner(self, domain: libvirt.virDomain, plan: DomainPlan) -> None:
        """Raise ConflictError where a domain is another's than the plan's."""
        check_owner(f"VM {plan.name}", read_owner_of(domain), plan.owner)

    def ensure_running(self, uid: str) -> None:
        """Start the domain, or wake it, unless it runs."""

        def start(connection: libvirt.virConnect) -> None:
            domain = self.require(connection, uid)
            _await_off_if_going(domain)
            try:
                _start(domain)
            except libvirt.libvirtError:
                # Another process may have been faster.
                if domain.state()[0] != libvirt.VIR_DOMAIN_RUNNING:
                    raise

        self._link.control(self.name(uid), start, START_SECONDS)

    def ensure_paused(self, uid: str) -> None:
        """Have a domain stand still; raise ConflictError for one that is off."""

        def suspend(connection: libvirt.virConnect) -> None:
            domain = self.require(connection, uid)
            state = domain.state()[0]
            if state not in _ACTIVE - {libvirt.VIR_DOMAIN_CRASHED}:
                raise ConflictError(self.name(uid), "it does not run", "start it first")
            # One that its guest has put to sleep stands still already.
            if state in (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PMSUSPENDED):
                return
            try:
                domain.suspend()
            except libvirt.libvirtError:
                # Another process may have been faster.
                if domain.state()[0] != libvirt.VIR_DOMAIN_PAUSED:
                    raise

        self._link.control(self.name(uid), suspend)

    def ensure_stopped(self, uid: str, *, grace_seconds: float, force: bool) -> bool:
        """Stop the domain by ACPI within the grace time, then, where `force`, at once; True when it is off."""
        try:
            if grace_seconds > 0 and self._power_off(uid, grace_seconds):
                return True
        except TimedOutError:
            # Its QEMU does not even take the press of a button.
            if not force:
                raise
        if force:
            self._link.control(self.name(uid), lambda connection: self._destroy(connection, uid), DESTROY_SECONDS)
        return not self._is_active(uid)

    def reboot(self, uid: str, *, force: bool) -> None:
        """Reboot a running domain by agent or ACPI, or by a reset; raise ConflictError for one that is off.

        Waits until an agent that was there is gone, so that nobody takes it for one of the guest that comes up.
        """

        def restart(connection: libvirt.virConnect) -> bool:
            domain = self.require(connection, uid)
            if domain.state()[0] not in (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED):
                raise ConflictError(self.name(uid), "it does not run", "start it instead")
            had_agent = _has_agent(domain)
            if force:
                domain.reset()
            else:
                domain.reboot(libvirt.VIR_DOMAIN_REBOOT_GUEST_AGENT | libvirt.VIR_DOMAIN_REBOOT_ACPI_POWER_BTN)
            return had_agent

        if self._link.control(self.name(uid), restart, repeat=False):
            self._await_agents_end(uid)

    def ensure_undefined(self, uid: str, owner: str) -> None:
        """Remove the domain with all that libvirt keeps for it; raise ConflictError for another's or a running one."""

        def undefine(connection: libvirt.virConnect) -> None:
            domain = find(connection, uid)
            if domain is None:
                return
            what = f"VM {sanitise(domain.name(), 100)}"
            check_owner(what, read_owner_of(domain), owner)
            if domain.isActive():
                raise ConflictError(what, "it still runs", "stop it first")
            _undefine(domain)

        self._link.control(self.name(uid), undefine)
        self._names.pop(uid, None)

    def _await_agents_end(self, uid: str) -> None:
        """Wait until a guest's agent has let go of its channel, or the time is over."""

        def look(connection: libvirt.virConnect) -> bool:
            domain = find(connection, uid)
            return domain is not None and bool(domain.isActive()) and _has_agent(domain)

        ends = time.monotonic() + REBOOT_SECONDS
        while time.monotonic() < ends and self._link.observe(self.name(uid), look):
            time.sleep(POLL_SECONDS)

    def _power_off(self, uid: str, grace_seconds: float) -> bool:
        """Press the power button until the guest is off; False when the grace time ends first."""
        ends = time.monotonic() + grace_seconds
        press_at = 0.0
        while self._is_active(uid):
            now = time.monotonic()
            if now >= ends:
                return False
            if now >= press_at:
                press_at = now + PRESS_SECONDS
                self._link.control(self.name(uid), lambda connection: self._press(connection, uid))
            time.sleep(POLL_SECONDS)
        return True

    def _is_active(self, uid: str) -> bool:
        def look(connection: libvirt.virConnect) -> bool:
            domain = find(connection, uid)
            return domain is not None and domain.state()[0] in _ACTIVE

        return self._link.observe(self.name(uid), look)

    def _press(self, connection: libvirt.virConnect, uid: str) -> None:
        domain = self.require(connection, uid)
        try:
            if domain.state()[0] == libvirt.VIR_DOMAIN_PAUSED:
                domain.resume()  # a guest that stands still cannot shut down
            domain.shutdownFlags(libvirt.VIR_DOMAIN_SHUTDOWN_ACPI_POWER_BTN)
        except libvirt.libvirtError:
            # It may have gone off by itself since it was looked at.
            if domain.isActive():
                raise

    def _destroy(self, connection: libvirt.virConnect, uid: str) -> None:
        domain = find(connection, uid)
        if domain is None or not domain.isActive():
            return
        try:
            domain.destroy()
        except libvirt.libvirtError:
            if domain.isActive():
                raise


def _has_agent(domain: libvirt.virDomain) -> bool:
    """Return whether a guest's agent has its channel open."""
    channel = parse(domain.XMLDesc()).find(_AGENT)
    return channel is not None and channel.get("state") == "connected"


def _check_overlays(domain: libvirt.virDomain, plan: DomainPlan, placement: Placement) -> None:
    """Raise ConflictError where somebody put a file over a disk: without it, what was written since would be lost."""
    own = [chain[0].path for chain in placement.disks]
    top = find_overlaid(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE), own)
    if top:
        why = f"another tool has put {sanitise(top, 200)} over its disk (an external snapshot)"
        raise ConflictError(f"VM {plan.name}", why, f"merge it: virsh blockcommit {plan.name} vda --active --pivot")


def _read_places(domain: libvirt.virDomain) -> dict[str, Place]:
    """Return where the devices of a domain stay: where its guest sees them now, else where it will."""
    next_start = read_places(domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    return choose_places(read_places(domain.XMLDesc()), next_start) if domain.isActive() else next_start


def _look(domain: libvirt.virDomain) -> ObservedDomain:
    state, reason = domain.state()[:2]
    return describe(domain.UUIDString(), domain.name(), state, reason)


def find_by_name(connection: libvirt.virConnect, name: str) -> libvirt.virDomain | None:
    """Return the handle of the domain of that name, or None; it is good for one call only."""
    try:
        return connection.lookupByName(name)
    except libvirt.libvirtError as error:
        if is_code(error, libvirt.VIR_ERR_NO_DOMAIN):
            return None
        raise


def read_owner_of(domain: libvirt.virDomain) -> DomainOwner:
    """Return who made a domain."""
    try:
        return read_owner(domain.metadata(libvirt.VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE))
    except libvirt.libvirtError as error:
        if is_code(error, libvirt.VIR_ERR_NO_DOMAIN_METADATA):
            return DomainOwner()
        raise


def _describe_owner(owner: DomainOwner) -> str:
    return f"belongs to {owner.label or owner.owner}" if owner.owner else "was made by no KC"


def check_owner(what: str, found: DomainOwner, wanted: str) -> None:
    """Raise ConflictError where a domain's owner is another than the one that wants to change it."""
    if found.owner != wanted:
        raise ConflictError(what, f"its domain {_describe_owner(found)}", "it is not touched; manage it there")


def check_name(connection: libvirt.virConnect, plan: DomainPlan) -> None:
    """Raise ConflictError where another domain has a plan's name."""
    namesake = find_by_name(connection, plan.name)
    if namesake is not None and namesake.UUIDString() != plan.uid:
        why = f"the name is taken by a domain of this host that {_describe_owner(read_owner_of(namesake))}"
        raise ConflictError(f"VM {plan.name}", why, "choose another name")


def rename(domain: libvirt.virDomain, name: str) -> str:
    """Give a domain its name, and return what it is called then.

    libvirt renames none that is on: that gets its name when it is defined before its next start.
    """
    if domain.name() != name and not domain.isActive():
        domain.rename(name)
        return name
    return domain.name()


def set_autostart(domain: libvirt.virDomain, *, wanted: bool) -> None:
    """Have libvirt start a domain with the host, or not."""
    if bool(domain.autostart()) != wanted:
        domain.setAutostart(int(wanted))


def _check_firmware(connection: libvirt.virConnect, plan: DomainPlan) -> None:
    """Raise RefusedError where the host has no firmware for a plan; libvirt 9.0 would say so at the start only."""
    try:
        connection.domainXMLToNative("qemu-argv", build_machine(plan))
    except libvirt.libvirtError as error:
        if is_lost(error) or "firmware" not in message_of(error):
            raise
        why = f"the host has no firmware with secure boot for {plan.arch}"
        raise RefusedError(f"VM {plan.name}", why, "install it: `apt-get install ovmf qemu-efi-aarch64`") from error


def _await_off_if_going(domain: libvirt.virDomain) -> None:
    """Let a domain that is shutting down right now get it done."""
    ends = time.monotonic() + START_SECONDS / 4
    while domain.state()[0] == libvirt.VIR_DOMAIN_SHUTDOWN and time.monotonic() < ends:
        time.sleep(POLL_SECONDS)


def _start(domain: libvirt.virDomain) -> None:
    state = domain.state()[0]
    if state == libvirt.VIR_DOMAIN_PAUSED:
        domain.resume()
    elif state == libvirt.VIR_DOMAIN_PMSUSPENDED:
        domain.pMWakeup()
    elif state == libvirt.VIR_DOMAIN_CRASHED:
        domain.destroy()
        domain.create()
    elif state not in (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_BLOCKED):
        domain.create()


def _undefine(domain: libvirt.virDomain) -> None:
    try:
        domain.undefineFlags(_UNDEFINE | _UNDEFINE_TPM)
    except libvirt.libvirtError as error:
        # A daemon older than this flag.
        if not is_code(error, libvirt.VIR_ERR_INVALID_ARG):
            raise
        domain.undefineFlags(_UNDEFINE)
