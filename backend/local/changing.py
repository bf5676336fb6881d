"""From a wish for an object to its next version: what KC filled in stays, what cannot change is refused."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from backend.errors import ConflictError, RefusedError
from backend.images.user_data import complete_user_data
from backend.local.creation import (
    check_mac_free,
    check_nic,
    current_user,
    find_users,
    make_mac,
    pin,
    pin_disc,
)
from backend.local.segments import check_routed, prepare_network
from backend.model.addressing import FAMILIES
from backend.model.documents import Document, format_time, name_of
from backend.model.kinds import IMAGE, MACHINE_TYPE, NETWORK, TOKEN, VM, Kind, find_kind
from backend.model.networks import is_own
from backend.model.parameters import check_parameters, resolve_hardware
from backend.model.schemas import validate_document
from backend.operations.domain_plan import hardware_of
from backend.operations.vm_disks import disks_in_trash

if TYPE_CHECKING:
    from backend.store.protocol import Store

_FIXED: dict[str, dict[str, str]] = {
    VM.name: {
        "image": "its disk was made from it",
        "host": "a VM stays where it is",
        "adopted": "it was so from the first",
    },
    IMAGE.name: dict.fromkeys(
        ("arch", "format", "digest", "sizeBytes", "virtualSizeBytes", "source"), "its bytes are what they are"
    ),
    NETWORK.name: {"libvirtNetwork": "the segment behind it is what it is"},
    MACHINE_TYPE.name: {"arch": "the VMs of this type have that architecture"},
    TOKEN.name: dict.fromkeys(("type", "subject", "groups", "digest"), "whoever holds it was given that one"),
}
"""What of a spec cannot change, and why."""


def prepare_update(store: Store, live: Document, document: Document, message: str = "") -> Document:
    """Return the body that the next version of `live` becomes; raise KCErrors naming what is wrong with it."""
    kind = find_kind(live["kind"])
    what = f"{kind.title} {live['name']}"
    wish = {key: value for key, value in document.items() if key not in ("version", "status", "uid")}
    wish["metadata"] = document.get("metadata", live["metadata"])
    wish["spec"] = copy.deepcopy(document.get("spec", live["spec"]))
    if kind is VM and isinstance(wish["spec"], dict):
        _carry_over(wish["spec"], live["spec"])
    elif kind is TOKEN and isinstance(wish["spec"], dict):
        wish["spec"] = {**live["spec"], **wish["spec"]}
    body = validate_document(wish)
    for field, why in _FIXED.get(kind.name, {}).items():
        if _plain(body["spec"].get(field)) != _plain(live["spec"].get(field)):
            raise RefusedError(what, f"spec.{field} cannot change: {why}", "make a new one")
    if kind is VM:
        _prepare_vm(store, live, body, what)
    if kind is TOKEN:
        from backend.local.tokens import check_narrower  # noqa: PLC0415 - few documents are tokens

        check_narrower(live, body)
    if kind is NETWORK:
        if is_own(body) != is_own(live) or (not is_own(body) and body["spec"]["uplink"] != live["spec"]["uplink"]):
            _check_unused(store, live, what)
        prepare_network(store, {**body, "uid": live["uid"]}, live)
    said = message or (document.get("message", "") if document.get("message") != live.get("message") else "")
    keep = {"uid": live["uid"], "createdAt": live["createdAt"]}
    head = {key: body[key] for key in ("apiVersion", "kind", "name")}
    rest = {"metadata": body["metadata"], "spec": body["spec"]}
    body = {**head, **keep, **rest, "updatedAt": format_time(), "updatedBy": current_user()}
    return {**body, "message": said} if said else body


def _plain(value: object) -> object:
    """Return what a field says, whether or not a reference in it is pinned already."""
    return name_of(value) if isinstance(value, dict) and "name" in value else value


def _check_unused(store: Store, live: Document, what: str) -> None:
    users = find_users(store, NETWORK, live["uid"])
    if users:
        why = f"spec.uplink cannot change: it is in use by VM {', '.join(users)}"
        raise ConflictError(what, why, "move its VMs to another network first")


def _carry_over(spec: dict[str, Any], live: dict[str, Any]) -> None:
    """Fill in what KC had filled in, where a wish leaves it out: power, disks, pins, ids and MACs of NICs.

    The wish has not been validated yet, so its shape is looked at twice.
    """
    # A list of disks that is left out is no wish to lose them.
    for field in ("power", "adopted", "disks", "image", "type"):
        spec.setdefault(field, copy.deepcopy(live[field]))
    for field in ("image", "type"):
        if live[field] is not None and name_of(spec[field]) == live[field]["name"]:
            given = spec[field] if isinstance(spec[field], dict) else {}
            spec[field] = {**live[field], **{key: value for key, value in given.items() if value}}
    nics = spec.get("nics")
    if isinstance(nics, list):
        _carry_over_nics(nics, {nic["id"]: nic for nic in live["nics"]})


def _carry_over_nics(nics: list[Any], left: dict[str, dict[str, Any]]) -> None:
    """Give NICs the id and MAC of the old one that each is meant to be: by id, else by MAC, else by network."""
    for nic in nics:
        if isinstance(nic, dict) and nic.get("id") in left:
            _fill_nic(nic, left.pop(nic["id"]))
    for field in ("mac", "network"):
        for nic in nics:
            if not isinstance(nic, dict) or nic.get("id"):
                continue
            known = next((old for old in left.values() if _is_like(nic, old, field)), None)
            if known is not None:
                _fill_nic(nic, left.pop(known["id"]))


def _is_like(nic: dict[str, Any], old: dict[str, Any], field: str) -> bool:
    if field == "mac":
        return bool(nic.get("mac")) and nic["mac"] == old["mac"]
    return not nic.get("mac") and name_of(nic.get("network")) == old["network"]["name"]


def _fill_nic(nic: dict[str, Any], old: dict[str, Any]) -> None:
    nic["id"] = old["id"]
    nic["mac"] = nic.get("mac") or old["mac"]
    if name_of(nic.get("network")) != old["network"]["name"]:
        return
    for family in FAMILIES:
        side = nic.setdefault(family, {})
        # Who leaves network and way of addressing as they are keeps the address that KC chose.
        if isinstance(side, dict) and side.get("mode", "network") == old[family]["mode"]:
            side.setdefault("address", old[family]["address"])


def _prepare_vm(store: Store, live: Document, body: Document, what: str) -> None:
    spec = body["spec"]
    spec["image"] = live["spec"]["image"]
    machine_type = _pin_type(store, spec["type"], what)
    check_parameters(spec["parameters"], machine_type["spec"], what)
    complete_user_data(spec["userData"], spec["sshKeys"], spec["passwordHash"])
    pin_disc(store, spec, what)
    _prepare_disks(store, live, spec["disks"], what)
    old = hardware_of(store, live)
    new = resolve_hardware(machine_type["spec"], spec["parameters"])
    if machine_type["spec"]["arch"] != old["arch"]:
        why = f"machine type {spec['type']['name']} is for {machine_type['spec']['arch']}, the VM is {old['arch']}"
        raise RefusedError(what, why, "choose one that fits")
    if new["diskGiB"] < old["diskGiB"] and not spec["adopted"]:
        why = f"its disk cannot shrink from {old['diskGiB']} to {new['diskGiB']} GiB"
        raise RefusedError(what, why, f"leave diskGiB at {old['diskGiB']}", parameter="diskGiB")
    _prepare_nics(store, live, spec["nics"], what)
    check_routed(store, live, body)


def _pin_type(store: Store, reference: dict[str, Any], what: str) -> Document:
    """Return the machine type that a VM is to have, as it was at the version that the VM keeps to."""
    kept = find_version(store, MACHINE_TYPE, reference["uid"], reference["version"])
    if kept is not None and kept["name"] == reference["name"]:
        return kept
    newest = pin(store, MACHINE_TYPE, reference, what)
    reference["version"] = newest["version"]
    return newest


def find_version(store: Store, kind: Kind, uid: str, version: int) -> Document | None:
    """Return a kept version of a document, or the newest where no version is named; None where it is not kept."""
    document = store.get(kind.name, uid) if uid else None
    if not version or (document is not None and document["version"] == version):
        return document
    return next((entry.document for entry in store.history(kind.name, uid) if entry.version == version), None)


def _prepare_disks(store: Store, live: Document, disks: list[dict[str, Any]], what: str) -> None:
    """Give new disks their ids; raise RefusedError for one that would shrink."""
    sizes = {disk["id"]: disk["sizeGiB"] for disk in live["spec"]["disks"]}
    # A new disk is not to find the data of one that was taken away.
    used = {disk["id"] for disk in disks if disk["id"]} | disks_in_trash(store, live["uid"]).keys()
    for disk in disks:
        if not disk["id"]:
            disk["id"] = next(name for number in range(1, 1000) if (name := f"disk{number}") not in used)
            used.add(disk["id"])
        if disk["sizeGiB"] < sizes.get(disk["id"], 0):
            why = f"{disk['id']} cannot shrink from {sizes[disk['id']]} to {disk['sizeGiB']} GiB"
            raise RefusedError(what, why, f"leave it at {sizes[disk['id']]}")
    if len({disk["id"] for disk in disks}) < len(disks):
        raise RefusedError(what, "spec.disks: an id is there twice", "give each disk its own")


def _prepare_nics(store: Store, live: Document, nics: list[dict[str, Any]], what: str) -> None:
    old = {nic["id"]: nic for nic in live["spec"]["nics"]}
    ids = [nic["id"] for nic in nics if nic["id"]]
    for index, nic in enumerate(nics):
        known = old.get(nic["id"])
        network = _pin_network(store, nic["network"], known, what)
        if not nic["id"]:
            number = next(number for number in range(len(nics) + 1) if f"nic{number}" not in ids)
            nic["id"] = f"nic{number}"
            ids.append(nic["id"])
        check_nic(nic, network, f"spec.nics.{index}", what)
        if not nic["mac"]:
            nic["mac"] = make_mac(live["uid"], nic["id"])
        elif known is None or known["mac"] != nic["mac"]:
            check_mac_free(store, nic, live["uid"], what)
    if len(set(ids)) < len(nics) or len({nic["mac"] for nic in nics}) < len(nics):
        raise RefusedError(what, "spec.nics: an id or a mac is there twice", "give each NIC its own")


def _pin_network(store: Store, reference: dict[str, Any], known: dict[str, Any] | None, what: str) -> Document:
    """Return the network of a NIC: by its name, or where it was renamed by the uid that the NIC was pinned to."""
    if store.find(NETWORK.name, reference["name"]) is None and known is not None:
        pinned = store.get(NETWORK.name, known["network"]["uid"])
        if pinned is not None and reference["uid"] == known["network"]["uid"]:
            reference["name"] = pinned["name"]
    return pin(store, NETWORK, reference, what)
