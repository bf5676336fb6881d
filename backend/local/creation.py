"""From what a caller asks for to what is written: references pinned, NICs filled in, everything checked."""

from __future__ import annotations

import hashlib
import json
import uuid
from ipaddress import ip_interface, ip_network
from typing import Any

from backend.actor import current_actor
from backend.errors import ConflictError, NotFoundError, RefusedError
from backend.images.user_data import complete_user_data
from backend.local.segments import list_warnings, prepare_network
from backend.local.views import check_readable
from backend.model.addressing import FAMILIES, SERVED_MODES, effective_guard, given_address, mode_of
from backend.model.documents import Document, complete, format_time, is_readable
from backend.model.kinds import IMAGE, MACHINE_TYPE, NETWORK, VM, Kind, find_kind
from backend.model.parameters import check_parameters, resolve_hardware
from backend.model.schemas import validate_document
from backend.store.protocol import Store

GIB = 1 << 30
# QEMU's customary prefix; the rest follows from the VM's uid, so that a repeated step finds the same NIC.
MAC_PREFIX = "52:54"


def current_user() -> str:
    """Return who is at work, for `updatedBy`."""
    return current_actor().subject


def make_mac(uid: str, nic: str) -> str:
    """Return the MAC of a VM's NIC: the prefix, and 32 bits of a digest of the VM's uid and the NIC's id."""
    digest = hashlib.sha256(f"{uid}/{nic.removeprefix('nic')}".encode()).digest()
    return ":".join([MAC_PREFIX, *(f"{byte:02x}" for byte in digest[:4])])


def prepare(store: Store, document: Document) -> Document:
    """Return the body that `document` becomes in the store; raise KCErrors naming what is wrong with it."""
    body = validate_document(document)
    kind = find_kind(body["kind"])
    taken = store.find(kind.name, body["name"])
    if taken is not None:
        raise ConflictError(
            f"{kind.title} {body['name']}", "the name is taken", f"choose another, or see kc {kind.command} show"
        )
    now = format_time()
    head = {key: body.pop(key) for key in ("apiVersion", "kind", "name")}
    rest = {key: value for key, value in body.items() if key not in ("uid", "status", "version")}
    body = {**head, "uid": str(uuid.uuid4()), **rest, "createdAt": now, "updatedAt": now, "updatedBy": current_user()}
    if kind is VM:
        _prepare_vm(store, body)
    elif kind is NETWORK:
        prepare_network(store, body)
    return body


def pin(store: Store, kind: Kind, reference: dict[str, Any], what: str) -> Document:
    """Fill the uid into a reference and return what it refers to; raise NotFoundError where there is none."""
    document = store.find(kind.name, reference["name"])
    if document is None:
        known = [item["name"] for item in store.list_documents(kind.name, limit=8).items]
        hint = f"there are {', '.join(known)}" if known else f"there is none yet; kc init makes the first {kind.title}"
        raise NotFoundError(what, f"no {kind.title} {reference['name']}", hint)
    check_readable(document)
    reference["uid"] = document["uid"]
    return document


def _prepare_vm(store: Store, body: Document) -> None:
    what = f"VM {body['name']}"
    spec = body["spec"]
    if spec["adopted"]:
        raise RefusedError(what, "spec.adopted: only KC says so", f"kc vm adopt {body['name']}")
    image = pin(store, IMAGE, spec["image"], what)["spec"]
    machine_type = pin(store, MACHINE_TYPE, spec["type"], what)
    pin_disc(store, spec, what)
    _name_disks(spec["disks"], what)
    spec["type"]["version"] = machine_type["version"]
    check_parameters(spec["parameters"], machine_type["spec"], what)
    complete_user_data(spec["userData"], spec["sshKeys"], spec["passwordHash"])
    if image["arch"] != machine_type["spec"]["arch"]:
        raise RefusedError(
            what,
            f"image {spec['image']['name']} is for {image['arch']}, "
            f"machine type {spec['type']['name']} for {machine_type['spec']['arch']}",
            "choose two that fit",
        )
    hardware = resolve_hardware(machine_type["spec"], spec["parameters"])
    if hardware["diskGiB"] * GIB < image["virtualSizeBytes"]:
        needed = -(-image["virtualSizeBytes"] // GIB)
        raise RefusedError(
            what,
            f"parameter diskGiB: the image needs {needed} GiB, the disk has {hardware['diskGiB']}",
            f"--set diskGiB={needed}, or a larger machine type",
            parameter="diskGiB",
        )
    _prepare_nics(store, body, what)


def describe_warnings(store: Store, body: Document) -> Document:
    """Return `{"status": {"warnings": [line, …]}}` where there is something to know of what was accepted; else {}.

    What cloud-init would find fault with in a VM's user-data; a gateway that is not there yet.
    """
    if body["kind"] == NETWORK.name:
        lines = list_warnings(store, body)
        return {"status": {"warnings": lines}} if lines else {}
    from backend.images.cloud_config import find_warnings  # noqa: PLC0415 - it imports jsonschema

    text = body["spec"].get("userData", "") if body["kind"] == VM.name else ""
    warnings = find_warnings(text) if text else []
    return {"status": {"warnings": warnings}} if warnings else {}


def pin_disc(store: Store, spec: dict[str, Any], what: str) -> None:
    """Pin the image that is to be in the CD-ROM drive; raise RefusedError for one that is no plain disc."""
    if spec["cdrom"] is None:
        return
    image = pin(store, IMAGE, spec["cdrom"], what)
    if image["spec"]["format"] != "raw":
        why = f"spec.cdrom: image {image['name']} is {image['spec']['format']}, a disc is raw (an ISO file)"
        raise RefusedError(what, why, "choose another image")


def _name_disks(disks: list[dict[str, Any]], what: str) -> None:
    for number, disk in enumerate(disks, 1):
        disk["id"] = disk["id"] or f"disk{number}"
    if len({disk["id"] for disk in disks}) < len(disks):
        raise RefusedError(what, "spec.disks: an id is there twice", "give each disk its own")


def _prepare_nics(store: Store, body: Document, what: str) -> None:
    ids: set[str] = set()
    macs: set[str] = set()
    for index, nic in enumerate(body["spec"]["nics"]):
        nic["id"] = nic["id"] or f"nic{index}"
        check_nic(nic, pin(store, NETWORK, nic["network"], what), f"spec.nics.{index}", what)
        chosen = bool(nic["mac"])
        nic["mac"] = nic["mac"] or make_mac(body["uid"], nic["id"])
        if nic["id"] in ids or nic["mac"] in macs:
            raise RefusedError(what, f"spec.nics.{index}: id or mac is there twice", "give each NIC its own")
        ids.add(nic["id"])
        macs.add(nic["mac"])
        if chosen:
            check_mac_free(store, nic, body["uid"], what)


def check_nic(nic: Document, network: Document, path: str, what: str) -> None:
    """Raise RefusedError where what a NIC wishes does not go with its network.

    A static address outside the subnet, or a check of addresses that nobody knows beforehand. An address that KC chose
    on another network is forgotten.
    """
    network = complete(network)
    for family in FAMILIES:
        address, subnet = nic[family]["address"], network["spec"][family]["subnet"]
        fits = not subnet or not address or ip_interface(address).ip in ip_network(subnet)
        if nic[family]["mode"] == "network" and not (fits and given_address(nic, network, family)):
            nic[family]["address"] = ""
        elif not fits:
            why = f"{path}.{family}.address: {address} is not in {subnet} of network {network['name']}"
            raise RefusedError(what, why, "choose one inside")
    if effective_guard(nic, network, is_gateway=False)["strict"]:
        unknown = [
            mode
            for family in FAMILIES
            if (mode := mode_of(nic, network, family)) in SERVED_MODES and not given_address(nic, network, family)
        ]
        if unknown:
            why = f"{path}.guard.antiSpoof: nobody knows beforehand which address {unknown[0]} gives"
            raise RefusedError(what, why, "give the NIC an address, or take antiSpoof mac")


def check_mac_free(store: Store, nic: Document, uid: str, what: str) -> None:
    """Raise ConflictError where another VM than that of `uid` has the MAC on the same network."""

    def has_it(vm: Document) -> bool:
        if not is_readable(vm):
            return False
        return vm["uid"] != uid and any(
            other["mac"] == nic["mac"] and other["network"]["uid"] == nic["network"]["uid"]
            for other in vm["spec"]["nics"]
        )

    found = store.list_documents(VM.name, where=has_it, limit=1).items
    if found:
        raise ConflictError(what, f"mac {nic['mac']} belongs to VM {found[0]['name']}", "leave it out or take another")


def find_users(store: Store, kind: Kind, uid: str) -> list[str]:
    """Return the names of the VMs that refer to an object."""
    if kind not in (IMAGE, NETWORK, MACHINE_TYPE):
        return []

    def refers(vm: Document) -> bool:
        if not is_readable(vm):
            # Whatever it means there, it is named.
            return uid in json.dumps(vm["spec"])
        spec = vm["spec"]
        if kind is IMAGE:
            return any(image is not None and image["uid"] == uid for image in (spec["image"], spec.get("cdrom")))
        if kind is MACHINE_TYPE:
            return bool(spec["type"]["uid"] == uid)
        return any(nic["network"]["uid"] == uid for nic in spec["nics"])

    return [vm["name"] for vm in store.list_documents(VM.name, where=refers, limit=5).items]
