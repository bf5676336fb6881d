"""The envelope that every object shares, as plain JSON values; cheap to import and cheap to make.

A document is `{"apiVersion", "kind", "name", "uid", "version", "metadata", "spec", "status", "createdAt", "updatedAt",
"updatedBy"}`. `uid`, `version`, `status` and the times are KC's; `metadata` is the customer's and is never interpreted.
"""

from __future__ import annotations

import copy
import time
from typing import Any

API_VERSION = "kc/v1"
Document = dict[str, Any]
"""A whole document, as JSON values."""


def is_readable(document: Document) -> bool:
    """Return whether this KC knows the shape of a document; what a newer one wrote is shown, and left as it is."""
    return bool(document.get("apiVersion", API_VERSION) == API_VERSION)


VM_ADDITIONS: dict[str, Any] = {
    "disks": [], "cdrom": None, "autostart": True, "onCrash": "restart", "adopted": False, "passwordHash": "",
}  # fmt: skip
"""What VMs have had since their first shape, and what it is where a stored one does not say."""
NIC_ADDITIONS: dict[str, Any] = {
    "guard": {"antiSpoof": "network", "dhcpGuard": "network", "raGuard": "network", "isolated": "network"},
    "rateLimit": None,
}
"""The same of their NICs."""
NETWORK_ADDITIONS: dict[str, Any] = {
    "gatewayReference": None, "searchDomain": "", "vxlan": None,
    "guard": {"antiSpoof": "auto", "dhcpGuard": "auto", "raGuard": "auto", "isolated": False},
    "rateLimit": {"receiveBytesPerSecond": None, "sendBytesPerSecond": None},
}  # fmt: skip
"""The same of networks."""
SIDE_ADDITIONS: dict[str, Any] = {"ranges": [], "reservations": [], "leaseSeconds": 3600, "routes": [], "ntp": []}
"""The same of each family of a network's addresses."""


def complete(document: Document) -> Document:
    """Return a stored VM or network with what its kind has had since it was written; anything else as it is."""
    spec = document.get("spec", {})
    if not spec or not is_readable(document):
        return document
    if document["kind"] == "VM":
        nics = spec["nics"]
        if VM_ADDITIONS.keys() <= spec.keys() and all(NIC_ADDITIONS.keys() <= nic.keys() for nic in nics):
            return document
        return {**document, "spec": {**_add(VM_ADDITIONS, spec), "nics": [_add(NIC_ADDITIONS, nic) for nic in nics]}}
    if document["kind"] == "Network" and not NETWORK_ADDITIONS.keys() <= spec.keys():
        sides = {family: _add(SIDE_ADDITIONS, spec[family]) for family in ("ipv4", "ipv6")}
        return {**document, "spec": {**_add(NETWORK_ADDITIONS, spec), **sides}}
    return document


def _add(additions: dict[str, Any], to: dict[str, Any]) -> dict[str, Any]:
    return {**copy.deepcopy(additions), **to}


def format_time(seconds: float | None = None) -> str:
    """Return a time (Unix seconds; now by default) as RFC 3339 in UTC with milliseconds and `Z`."""
    at = time.time() if seconds is None else seconds
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at))
    return f"{whole}.{int(at % 1 * 1000):03d}Z"


def parse_time(text: str) -> float:
    """Return the Unix seconds of a time that `format_time` wrote; raise ValueError for another text."""
    import calendar  # noqa: PLC0415 - the list path never parses a time

    whole, _, fraction = text.rstrip("Z").partition(".")
    seconds = calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S"))
    return seconds + (float(f"0.{fraction}") if fraction else 0.0)


def name_of(reference: object) -> str:
    """Return the name in a reference, which is a name or `{"name", "uid"}`; empty where there is none."""
    if isinstance(reference, dict):
        return str(reference.get("name", ""))
    return reference if isinstance(reference, str) else ""
