"""What `kc apply` is to do: every document checked against what is there, and against the others, before any write."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backend.errors import ConflictError, KCError, NotFoundError, RefusedError, UsageError
from backend.model.changes import compare_documents
from backend.model.documents import Document, name_of
from backend.model.kinds import IMAGE, KEPT_KINDS, MACHINE_TYPE, NETWORK, VM, Kind, find_kind
from backend.service import Preview, Service
from backend.text import sanitise
from kc_tui.cli.reading_documents import Given, read_documents

ORDER = (MACHINE_TYPE, IMAGE, NETWORK, VM)
"""What may be referred to comes first."""
# What KC itself knows of a document; `version` is not among them: it says which one the document was made from.
_OWN_FIELDS = ("$schema", "uid", "status", "createdAt", "updatedAt", "updatedBy")

Key = tuple[str, str]
"""A kind's name, and an object's."""


@dataclass
class Item:
    """One document of a set: what is known of it before the write, and what went wrong.

    `after` names the others of the set that it refers to and that are not there yet, or not yet as they will be;
    `preview` then is what can be known all the same.
    """

    where: str
    kind: Kind
    name: str
    document: Document
    message: str = ""
    preview: Preview | None = None
    after: list[str] = field(default_factory=list)
    error: KCError | None = None

    @property
    def key(self) -> Key:
        """What others refer to it by."""
        return self.kind.name, self.name

    @property
    def title(self) -> str:
        """How a line begins that tells of it: `vm web`."""
        return f"{self.kind.command} {self.name}"

    @property
    def what(self) -> str:
        """How errors name it."""
        return f"{self.kind.title} {self.name}"

    @property
    def references(self) -> set[Key]:
        """What it refers to."""
        spec = self.document.get("spec")
        if self.kind is not VM or not isinstance(spec, dict):
            return set()
        nics = spec.get("nics")
        networks = [nic.get("network") for nic in nics if isinstance(nic, dict)] if isinstance(nics, list) else []
        return {
            (IMAGE.name, name_of(spec.get("image"))),
            (MACHINE_TYPE.name, name_of(spec.get("type"))),
            *((NETWORK.name, name_of(network)) for network in networks),
        }

    @property
    def action(self) -> str:
        """What is done with it: `created`, `updated`, `unchanged` or `failed`."""
        if self.error is not None or self.preview is None:
            return "failed"
        if self.preview.before is None:
            return "created"
        return "updated" if self.preview.changes else "unchanged"


def plan(service: Service, paths: Sequence[str], message: str) -> tuple[list[Item], list[KCError]]:
    """Return what is to be done, in the order in which it is, and all that is wrong with the documents.

    What speaks against one object alone (another version, a host that does not answer) is that item's error.
    """
    found, errors = read_documents(paths)
    items: dict[Key, Item] = {}
    for given in found:
        try:
            item = _read_item(given, message)
            if item.key in items:
                why = f"{item.title} is in {items[item.key].where} already"
                raise RefusedError(given.where, why, "keep one of them")
            items[item.key] = item
        except KCError as error:
            errors.append(error)
    if errors:
        return [], errors
    ordered = sorted(items.values(), key=lambda item: ORDER.index(item.kind))
    for item in ordered:
        try:
            _look_ahead(service, item, items)
        except (RefusedError, NotFoundError, UsageError) as error:
            errors.append(_locate(item.where, error))
        except KCError as error:
            item.error = error
    return ordered, errors


def _read_item(given: Given, message: str) -> Item:
    from backend.model.schemas import check_name  # noqa: PLC0415 - pydantic

    where, document = given
    if not isinstance(document, dict):
        raise RefusedError(where, "it is no object with kind, name and spec", "see kc schema")
    known = ", ".join(kind.name for kind in KEPT_KINDS)
    if "kind" not in document:
        raise RefusedError(where, "kind is missing", f"it is one of {known}")
    try:
        kind = find_kind(document["kind"])
    except NotFoundError as error:
        raise RefusedError(where, f"no such kind: {sanitise(document['kind'], 60)}", f"known are {known}") from error
    if kind not in KEPT_KINDS:
        raise RefusedError(where, f"kind {kind.name} is KC's own and cannot be applied", f"known are {known}")
    if "name" not in document:
        raise RefusedError(where, f"{kind.title}: name is missing", "each document names its object")
    try:
        name = check_name(document["name"], kind)
        version = _read_version(document, f"{kind.title} {name}")
    except RefusedError as error:
        raise _locate(where, error) from error
    wish = {key: value for key, value in document.items() if key not in (*_OWN_FIELDS, "version")}
    wish |= {"kind": kind.name} | ({"version": version} if version else {}) | ({"message": message} if message else {})
    return Item(where, kind, name, wish, message)


def _read_version(document: Document, what: str) -> int:
    """Return the version that a document was made from; 0 where it does not say."""
    version = document.get("version")
    if version is None:
        return 0
    if isinstance(version, bool) or not isinstance(version, int) or version < 0:
        raise RefusedError(what, "version: not a whole number from 1 on", "leave it out to apply it to any version")
    if version == 0:
        raise RefusedError(what, "it is foreign: no KC keeps a document of it", "leave it out")
    return version


def _locate(where: str, error: KCError) -> KCError:
    """Return an error that names the place of the document too."""
    return type(error)(f"{where}, {error.what}", error.why, error.hint, **error.details)


def preview(service: Service, item: Item) -> Preview:
    """Return what writing an item's document would do now; raise what the write would."""
    found = service.preview(item.document)
    if found.before is None and "version" in item.document:
        why = f"it is not there, and the document says version {item.document['version']}"
        raise ConflictError(item.what, why, "leave version out to make it anew")
    return found


def _look_ahead(service: Service, item: Item, items: Mapping[Key, Item]) -> None:
    """Find out what is to be done with an item; raise what is wrong with it."""
    try:
        item.preview = preview(service, item)
    except (RefusedError, NotFoundError):
        pending = {other.key: other for other in _find_pending(item, items)}
        if not pending:
            raise
        item.preview = _preview_within(service, item, pending)
        item.after = [other.title for other in pending.values()]


def _find_pending(item: Item, items: Mapping[Key, Item]) -> Iterable[Item]:
    """Return what an item refers to, and the set makes or changes."""
    for key in sorted(item.references):
        other = items.get(key)
        if other is not None and other.kind in (MACHINE_TYPE, NETWORK) and other.action != "unchanged":
            yield other


def _preview_within(service: Service, item: Item, pending: Mapping[Key, Item]) -> Preview:
    """Return what a VM's document would do once the machine type and the networks that it needs are there."""
    live = _find(service, item)
    body = _check_schema(item, live)
    spec: dict[str, Any] = copy.deepcopy(item.document["spec"])
    machine_type = pending.get((MACHINE_TYPE.name, body["type"]["name"]))
    places = [place for place, nic in enumerate(body["nics"]) if (NETWORK.name, nic["network"]["name"]) in pending]
    for place in places:
        _check_addresses(item, body["nics"][place], pending)
    if machine_type is not None:
        _check_parameters(item, body, machine_type)
        if live is None:
            _check_references(service, item, pending)
            made = {**item.document, "metadata": item.document.get("metadata", {}), "spec": _trim(body)}
            return Preview(None, made, compare_documents({}, made), [])
        spec |= {"type": live["spec"]["type"], "parameters": live["spec"]["parameters"]}
    if places:
        spec["nics"] = [nic for place, nic in enumerate(spec["nics"]) if place not in places]
    known = service.preview({**item.document, "spec": spec})
    after = copy.deepcopy(known.after)
    if machine_type is not None:
        after["spec"] |= {"type": _trim(body["type"]), "parameters": body["parameters"]}
    for place in places:
        after["spec"]["nics"].insert(place, _trim(body["nics"][place]))
    return Preview(known.before, after, compare_documents(known.before or {}, after), [])


def _check_references(service: Service, item: Item, pending: Mapping[Key, Item]) -> None:
    """Raise NotFoundError for what an item refers to and neither the service nor the set has."""
    for kind, name in sorted(item.references - set(pending)):
        try:
            service.get(kind, name, observe=False)
        except NotFoundError as error:
            raise NotFoundError(item.what, f"no {find_kind(kind).title} {name}", error.hint) from error


def _find(service: Service, item: Item) -> Document | None:
    try:
        return service.get(item.kind.name, item.name, observe=False)
    except NotFoundError:
        return None


def _check_schema(item: Item, live: Document | None) -> dict[str, Any]:
    """Return an item's spec, checked, with its defaults; raise RefusedError."""
    from backend.model.schemas import validate_document  # noqa: PLC0415 - pydantic

    live_spec = live["spec"] if live is not None else {}
    kept = {key: live_spec[key] for key in ("image", "type", "adopted") if key in live_spec}
    spec: dict[str, Any] = validate_document({**item.document, "spec": kept | item.document["spec"]})["spec"]
    return spec


def _check_parameters(item: Item, spec: Mapping[str, Any], machine_type: Item) -> None:
    from backend.model.parameters import check_parameters  # noqa: PLC0415 - jsonschema

    if machine_type.preview is not None:
        check_parameters(spec["parameters"], machine_type.preview.after["spec"], item.what)


def _check_addresses(item: Item, nic: Mapping[str, Any], pending: Mapping[Key, Item]) -> None:
    """Raise RefusedError where a NIC's static address is not in the subnet that its network is to have."""
    from ipaddress import ip_interface, ip_network  # noqa: PLC0415 - few documents name an address

    network = pending[NETWORK.name, nic["network"]["name"]]
    for family in ("ipv4", "ipv6"):
        address = nic[family]["address"]
        subnet = network.preview.after["spec"][family]["subnet"] if network.preview is not None else ""
        if address and subnet and ip_interface(address).ip not in ip_network(subnet):
            raise RefusedError(item.what, f"{address} is not in {subnet} of {network.title}", "choose one inside")


def _trim(value: Any) -> Any:
    """Return a value without what KC is still to fill in: empty uids, ids and MACs, version 0."""
    if isinstance(value, dict):
        empty = {"uid": "", "id": "", "mac": "", "version": 0}
        return {key: _trim(item) for key, item in value.items() if key not in empty or item != empty[key]}
    return [_trim(item) for item in value] if isinstance(value, list) else value
