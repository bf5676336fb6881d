"""Adopting: an existing domain becomes a VM of KC's, with what KC does not understand left as it is."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from backend.errors import ConflictError, NotFoundError
from backend.hypervisor.plan import FoundDomain, FoundNic, ObservedNetwork
from backend.local.creation import current_user, prepare
from backend.model.documents import API_VERSION, Document, format_time
from backend.model.kinds import MACHINE_TYPE, NETWORK, VM
from backend.model.networks import libvirt_name
from backend.model.schemas import check_name, validate_document
from backend.service import Accepted, Adoption
from backend.text import sanitise

if TYPE_CHECKING:
    from backend.local.home import Home

_LONGEST = 63
_POWER = {"running": "running", "paused": "paused"}


class _Wish:
    """The documents that an adoption makes: the VM's, and what it refers to and is not there yet."""

    def __init__(self, service: Home, found: FoundDomain, name: str, metadata: Document) -> None:
        self._service = service
        self._found = found
        self.missing: list[Document] = []
        self.untouched = list(found.untouched)
        nics = self._describe_nics()
        self._spec: dict[str, Any] = {
            "adopted": True,
            "type": self._choose_type(),
            "parameters": {"cpus": found.cpus, "memoryMiB": found.memory_mib},
            "nics": nics,
            "power": _POWER.get(found.power, "stopped"),
            "autostart": found.autostart,
            "description": sanitise(found.description, 2000),
        }
        self.document = {"kind": VM.name, "name": name, "metadata": metadata, "spec": self._spec}

    def _choose_type(self) -> str:
        """Return the machine type of adopted domains of this architecture and firmware; it leaves everything open."""
        name = f"adopted-{self._found.arch.replace('_', '-')}-{self._found.firmware}"
        if self._service.store.find(MACHINE_TYPE.name, name) is None:
            spec = {
                "arch": self._found.arch,
                "firmware": self._found.firmware,
                "description": "domains that were adopted",
                "parameters": {
                    "cpus": {"type": "integer", "title": "CPUs", "minimum": 1, "maximum": 240},
                    "memoryMiB": {
                        "type": "integer", "title": "Memory", "unit": "MiB", "minimum": 64, "maximum": 16 << 20,
                    },
                },
            }  # fmt: skip
            self.missing.append({"kind": MACHINE_TYPE.name, "name": name, "spec": spec})
        return name

    def _describe_nics(self) -> list[Document]:
        networks = {libvirt_name(each): each["name"] for each in self._networks("")}
        bridges = {each["spec"]["uplink"]: each["name"] for each in self._networks("bridge:")}
        observed = {each.name: each for each in self._service.hypervisor.list_networks()}
        nics: list[Document] = []
        for nic in self._found.nics:
            if nic.kind == "bridge":
                name = bridges.get(f"bridge:{nic.source}") or self._add_network(nic, None)
                bridges[f"bridge:{nic.source}"] = name
            elif nic.source in networks or nic.source in observed:
                name = networks.get(nic.source) or self._add_network(nic, observed[nic.source])
                networks[nic.source] = name
            else:
                why = f"its NIC {nic.mac} is on libvirt network {nic.source}, which the host has not"
                raise ConflictError(f"domain {self._found.name}", why, "define that network, or take the NIC away")
            nics.append({"id": f"nic{len(nics)}", "network": name, "mac": nic.mac.lower()})
        return nics

    def _networks(self, uplink: str) -> list[Document]:
        found = self._service.store.list_documents(NETWORK.name).items
        return [each for each in found if each["spec"]["uplink"].startswith("bridge:") == bool(uplink)]

    def _add_network(self, nic: FoundNic, observed: ObservedNetwork | None) -> str:
        taken = {each["name"] for each in self.missing}
        name = self._free_name(nic.source, taken)
        spec: dict[str, Any] = {"description": "found with an adopted domain"}
        if observed is None:
            spec["uplink"] = f"bridge:{nic.source}"
        else:
            spec |= {
                "uplink": observed.uplink,
                "ipv4": {"subnet": observed.ipv4_subnet, "mode": observed.ipv4_mode},
                "ipv6": {"subnet": observed.ipv6_subnet, "mode": observed.ipv6_mode},
                "libvirtNetwork": observed.name,
            }
        self.missing.append({"kind": NETWORK.name, "name": name, "spec": spec})
        return name

    def _free_name(self, source: str, taken: set[str]) -> str:
        stem = make_label(source)
        names = (stem, *(f"{stem[: _LONGEST - 4]}-{number}" for number in range(2, 1000)))
        return next(
            name for name in names if name not in taken and self._service.store.find(NETWORK.name, name) is None
        )

    def preview(self) -> Adoption:
        """Return it in words."""
        spec = self._spec
        cpus = spec["parameters"]["cpus"]
        managed = [
            f"{cpus} CPU{'' if cpus == 1 else 's'}, {spec['parameters']['memoryMiB']} MiB of memory",
            *(f"NIC {nic['mac']} on network {nic['network']}" for nic in spec["nics"]),
            "name, description, power and start with the host",
            *(f"a {'network' if each['kind'] == NETWORK.name else 'machine type'} {each['name']} is made for it"
              for each in self.missing),
        ]  # fmt: skip
        return Adoption(self.document, managed, self.untouched)


def make_label(text: str) -> str:
    """Return a DNS label (RFC 1123) that is as near to a text as can be."""
    label = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:_LONGEST].strip("-")
    return label or "adopted"


def _find(service: Home, domain: str, name: str, metadata: Document) -> tuple[FoundDomain, _Wish]:
    found = service.hypervisor.find_adoptable(domain)
    shown = sanitise(domain, 80)
    if found is None:
        raise NotFoundError(f"domain {shown}", "the host has no such domain", "virsh list --all shows what there is")
    if service.store.get(VM.name, found.uid) is not None:
        raise ConflictError(f"domain {shown}", "this KC manages it already", "see kc vm list")
    if found.owner.owner and found.owner.owner != service.store.identity:
        raise ConflictError(f"domain {shown}", f"it belongs to {found.owner.label}", "manage it there")
    name = name or (found.name if _is_label(found.name) else make_label(found.name))
    check_name(name, VM)
    if service.store.find(VM.name, name) is not None:
        raise ConflictError(f"VM {name}", "the name is taken", "choose another with --name")
    return found, _Wish(service, found, name, metadata)


def _is_label(name: str) -> bool:
    return make_label(name) == name


def preview_adoption(service: Home, domain: str, name: str) -> Adoption:
    """Return what adopting a domain would do; see the service's `preview_adoption`."""
    return _find(service, domain, name, {})[1].preview()


def adopt(service: Home, domain: str, name: str, metadata: Document | None) -> Accepted:
    """Take a domain under management; see the service's `adopt`."""
    found, wish = _find(service, domain, name, metadata or {})
    body = validate_document(wish.document)
    for document in wish.missing:
        # A document alone: the network behind it is there.
        service.accept(prepare(service.store, document), "", {}, expect=0)
    spec = body["spec"]
    for reference, kind in ((spec["type"], MACHINE_TYPE), *((nic["network"], NETWORK) for nic in spec["nics"])):
        pinned = service.find_own(kind, reference["name"])
        reference["uid"] = pinned["uid"]
        if kind is MACHINE_TYPE:
            reference["version"] = pinned["version"]
    now = format_time()
    head = {"apiVersion": API_VERSION, "kind": VM.name, "name": body["name"], "uid": found.uid}
    rest = {"metadata": body["metadata"], "spec": spec}
    body = {**head, **rest, "createdAt": now, "updatedAt": now, "updatedBy": current_user(), "message": "adopted"}
    # An earlier adoption of the same domain has left its versions under the same uid.
    history = service.store.history(VM.name, found.uid)
    return service.accept(body, "vm.adopt", {}, expect=history[-1].version if history else 0)
