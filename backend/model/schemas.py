"""The shape of each kind's `spec`, and the door through which every written document passes.

JSON is camelCase with units in the names. Unknown fields are refused with their path. References are names on the way
in; the service pins them to a uid.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Interface, IPv6Interface
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from backend.errors import RefusedError
from backend.model.base import Model
from backend.model.documents import API_VERSION, Document
from backend.model.kinds import IMAGE, MACHINE_TYPE, NETWORK, OPERATION, TOKEN, TRASH, VM, Kind, find_kind
from backend.model.machine_types import MachineTypeSpec
from backend.model.network_spec import NetworkSpec, NicGuard, RateLimit
from backend.model.tokens import TokenSpec
from backend.text import sanitise

# A name is a DNS label (RFC 1123): it becomes a host name, a domain's name and a part of a URL.
NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
_NAME = re.compile(NAME_PATTERN)
MAXIMUM_DOCUMENT_BYTES = 700 * 1024

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]


class Reference(Model):
    """A reference to another object: by name on the way in, pinned to its uid inside."""

    name: Name
    uid: str = ""


class TypeReference(Reference):
    """A reference to a machine type, pinned to the version that the VM was made from."""

    version: int = 0


def _expand_reference(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


Referring = Annotated[Reference, BeforeValidator(_expand_reference, json_schema_input_type=Name | Reference)]
ReferringToType = Annotated[
    TypeReference, BeforeValidator(_expand_reference, json_schema_input_type=Name | TypeReference)
]


class AddressPlan(Model):
    """How one NIC gets its address of one family; `network` leaves it to the network."""

    mode: Literal["network", "none", "static", "dhcp", "slaac", "stateless", "dhcpv6"] = "network"
    address: str = Field(
        default="",
        description="CIDR of its address, such as 10.0.0.5/24: with static the guest's own, chosen by KC where it is "
        "left out; with dhcp and dhcpv6 what the server keeps for it",
    )

    def check(self, parse: Callable[[str], object]) -> None:
        """Raise ValueError where mode and address do not go together, or the address is not in CIDR form."""
        if not self.address:
            return
        if self.mode in ("none", "slaac", "stateless"):
            msg = f".address: mode {self.mode} takes no address"
            raise ValueError(msg)
        if "/" not in self.address:
            msg = f".address: write {sanitise(self.address, 60)} in CIDR form, with the length of its prefix"
            raise ValueError(msg)
        try:
            parse(self.address)
        except ValueError as error:
            msg = f".address: {sanitise(str(error), 120)}"
            raise ValueError(msg) from None


class IPv4Plan(AddressPlan):
    """A NIC's IPv4."""

    mode: Literal["network", "none", "static", "dhcp"] = "network"

    @model_validator(mode="after")
    def _check_address(self) -> Self:
        self.check(IPv4Interface)
        return self


class IPv6Plan(AddressPlan):
    """A NIC's IPv6."""

    mode: Literal["network", "none", "static", "slaac", "stateless", "dhcpv6"] = "network"

    @model_validator(mode="after")
    def _check_address(self) -> Self:
        self.check(IPv6Interface)
        return self


def _check_device_id(name: str) -> str:
    if name in ("root", "seed", "console", "cdrom"):
        msg = f"{name} is the id of something else"
        raise ValueError(msg)
    return name


class Nic(Model):
    """One network interface of a VM; KC fills in `id` and `mac`."""

    id: Annotated[str, StringConstraints(pattern=r"^([a-z][a-z0-9]{0,14})?$")] = ""
    network: Referring
    # A unicast address: the lowest bit of the first octet is 0 (IEEE 802).
    mac: Annotated[str, StringConstraints(pattern=r"^([0-9a-f][02468ace](:[0-9a-f]{2}){5})?$")] = ""
    ipv4: IPv4Plan = IPv4Plan()
    ipv6: IPv6Plan = IPv6Plan()
    guard: NicGuard = NicGuard()
    rate_limit: RateLimit | None = Field(default=None, description="null: as the network says")

    @field_validator("id")
    @classmethod
    def _check_id(cls, name: str) -> str:
        return _check_device_id(name)


class Disk(Model):
    """A disk beside the first, which is the image's; KC fills in `id`."""

    id: Annotated[str, StringConstraints(pattern=r"^([a-z][a-z0-9]{0,14})?$")] = ""
    size_gib: Annotated[int, Field(ge=1, le=1 << 20)]

    @field_validator("id")
    @classmethod
    def _check_id(cls, name: str) -> str:
        return _check_device_id(name)


class VMSpec(Model):
    """What a VM is to be; only one that was adopted has no image."""

    image: Referring | None = None
    type: ReferringToType
    parameters: dict[str, Any] = Field(default_factory=dict, description="values for the machine type's parameters")
    nics: list[Nic] = Field(default_factory=list, max_length=16)
    disks: list[Disk] = Field(default_factory=list, max_length=16)
    cdrom: Referring | None = Field(default=None, description="the image that is in the CD-ROM drive")
    power: Literal["running", "paused", "stopped"] = "running"
    autostart: bool = Field(default=True, description="a VM that is to run is started with its host")
    on_crash: Literal["restart", "stop", "preserve"] = "restart"
    adopted: bool = Field(
        default=False, description="somebody else made the domain: its disks and devices are not KC's"
    )
    description: Annotated[str, StringConstraints(max_length=2000)] = ""
    ssh_keys: list[Annotated[str, StringConstraints(max_length=16384)]] = Field(default_factory=list, max_length=100)
    user_data: Annotated[str, StringConstraints(max_length=262144)] = ""
    password_hash: Annotated[
        str, StringConstraints(pattern=r"^(\$(y|gy|7|2[aby]|6|5)\$[./0-9A-Za-z$=,-]{8,500})?$")
    ] = Field(default="", description="crypt(5) hash of the default user's password; never the password itself")
    host: str = ""
    hidden: bool = False

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        if (self.image is None) != self.adopted:
            msg = "an adopted VM has no image, and every other has one"
            raise ValueError(msg)
        if self.adopted and (self.disks or self.cdrom is not None):
            msg = "the disks of an adopted VM are not KC's"
            raise ValueError(msg)
        return self

    @field_validator("ssh_keys")
    @classmethod
    def _check_keys(cls, keys: list[str]) -> list[str]:
        for key in keys:
            if "\n" in key.strip() or not re.match(r"^(\S+ )?(ssh-|ecdsa-|sk-)\S+ [A-Za-z0-9+/=]+( |$)", key):
                msg = f"not a public SSH key: {sanitise(key, 60)}"
                raise ValueError(msg)
        return [key.strip() for key in keys]


class ImageSpec(Model):
    """A disk image; its bytes are named by their digest and never change."""

    title: str = ""
    arch: Literal["x86_64", "aarch64"] = "x86_64"
    format: Literal["raw", "qcow2"]
    digest: Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
    size_bytes: Annotated[int, Field(gt=0)]
    virtual_size_bytes: Annotated[int, Field(gt=0)]
    source: str = ""


class Target(Model):
    """What an operation works on."""

    kind: str
    name: str
    uid: str
    version: int = 0


class OperationSpec(Model):
    """Work that was asked for; its journal is its status."""

    type: str
    target: Target
    parameters: dict[str, Any] = Field(default_factory=dict)
    idempotency_key: Annotated[str, StringConstraints(max_length=200)] = ""


class TrashSpec(Model):
    """A deleted object that can be brought back; its metadata is what the object's was."""

    target: Target
    document: dict[str, Any] = Field(description="the object as it was")
    until: str = Field(description="when what it has on the host is removed for good")
    disk: str = Field(default="", description="the id of the one disk that was taken from a VM that goes on")


SPECS: dict[str, type[Model]] = {
    VM.name: VMSpec,
    IMAGE.name: ImageSpec,
    NETWORK.name: NetworkSpec,
    MACHINE_TYPE.name: MachineTypeSpec,
    OPERATION.name: OperationSpec,
    TRASH.name: TrashSpec,
    TOKEN.name: TokenSpec,
}


def check_name(name: str, kind: Kind) -> str:
    """Return `name` where it is a DNS label; raise RefusedError otherwise."""
    if not isinstance(name, str) or not _NAME.match(name):
        shown = sanitise(name, 80)
        raise RefusedError(
            f"{kind.title} {shown!r}",
            "not a valid name",
            "use 1 to 63 lower-case letters, digits and hyphens, first and last no hyphen",
        )
    return name


def _describe(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False)[0]
    path = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "unknown field"
    if message.startswith("."):  # a validator that knows the path better
        path, _, message = f"{path}{message}".removeprefix(".").partition(": ")
    return sanitise(f"spec.{path}: {message}" if path else message, 400)


def validate_document(document: Document) -> Document:
    """Return `document` with its spec checked and its defaults filled in; raise RefusedError naming the fault."""
    kind = find_kind(str(document.get("kind", "")))
    name = check_name(document.get("name", ""), kind)
    what = f"{kind.title} {name}"
    unknown = set(document) - _FIELDS
    if unknown:
        raise RefusedError(what, f"{sanitise(min(unknown), 80)}: unknown field", f"see kc schema {kind.command}")
    if document.get("apiVersion", API_VERSION) != API_VERSION:
        raise RefusedError(what, f"apiVersion is not {API_VERSION}", "this KC writes no other version")
    metadata = document.get("metadata", {})
    if not isinstance(metadata, dict):
        raise RefusedError(what, "metadata: not an object", "")
    try:
        spec = SPECS[kind.name].model_validate(document.get("spec", {}))
    except ValidationError as error:
        raise RefusedError(what, _describe(error), f"see kc schema {kind.command}") from error
    head = {"apiVersion": API_VERSION, "kind": kind.name, "name": name}
    return {
        **head,
        **document,
        **head,
        "metadata": metadata,
        "spec": spec.model_dump(mode="json", by_alias=True),
    }


_FIELDS = {
    "$schema", "apiVersion", "kind", "name", "uid", "version", "metadata", "spec", "status", "message",
    "createdAt", "updatedAt", "updatedBy",
}  # fmt: skip


def document_schema(kind: Kind) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of one kind's documents."""
    spec = SPECS[kind.name].model_json_schema(by_alias=True, ref_template="#/$defs/{model}")
    definitions = spec.pop("$defs", {})
    read_only: dict[str, Any] = {"readOnly": True}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:kc:schema:v1:{kind.name}",
        "title": kind.name,
        "type": "object",
        "required": ["kind", "name", "spec"],
        "additionalProperties": False,
        "properties": {
            "$schema": {"type": "string"},
            "apiVersion": {"const": API_VERSION},
            "kind": {"const": kind.name},
            "name": {"type": "string", "pattern": NAME_PATTERN},
            "uid": {"type": "string", **read_only},
            "version": {"type": "integer", "minimum": 1, **read_only},
            "metadata": {"type": "object", "description": "the customer's own; never interpreted"},
            "spec": spec,
            "status": {"type": "object", **read_only},
            "message": {"type": "string", "description": "why this version was written"},
            "createdAt": {"type": "string", "format": "date-time", **read_only},
            "updatedAt": {"type": "string", "format": "date-time", **read_only},
            "updatedBy": {"type": "string", **read_only},
        },
        "$defs": definitions,
    }
