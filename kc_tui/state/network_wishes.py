"""The fields of the wizard for a network, and what follows from their texts: a document, a command line."""

from __future__ import annotations

import copy
import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Any, Final

from backend.errors import KCError
from backend.model.documents import API_VERSION, Document
from backend.model.kinds import NETWORK
from backend.model.network_spec import DEVICE, GATEWAY_PATTERN, LARGEST_VNI
from backend.text import sanitise
from kc_tui.state.create_vm import complain_about_name
from kc_tui.state.form_field import FormField
from kc_tui.state.formatting import join_words
from kc_tui.state.wizard import Step

STEPS: Final = (
    Step("segment", "segment"),
    Step("addresses", "addresses"),
    Step("more", "more"),
    Step("review", "review"),
)
TITLES: Final = {
    "segment": "Name, and the way outside",
    "addresses": "Addresses and gateway",
    "more": "DNS, VXLAN, safety; all of it may stay empty",
}
Spec = dict[str, Any]
Values = Mapping[str, str]
Names = Callable[[], frozenset[str]]
_EXAMPLES: Final = {4: "10.0.0.0/24", 6: "fd00:1::/64"}
_MTU: Final = (576, 9216)
_UPLINKS: Final = {
    "nat": "nat: behind this host",
    "routed": "routed: as what they are",
    "isolated": "isolated: no way out",
    "bridge": "bridge: one of this host",
}
_YES_NO: Final = {"no": "no", "yes": "yes: the gateway alone"}


def list_fields(taken: Names, vms: Names, *, is_new: bool = True) -> dict[str, list[FormField]]:
    """Return the fields by their step; `taken` gives the names of networks, `vms` of VMs that can be a gateway."""
    gateways = ("host", "none", *(f"vm:{name}" for name in sorted(vms())))
    name = FormField("name", "Name", hint="small letters, digits, hyphens", complain=partial(_complain_name, taken))
    return {
        "segment": [
            *([name] if is_new else []),
            FormField("uplink", "Uplink", "nat", tuple(_UPLINKS), _UPLINKS),
            FormField("bridge", "Bridge", hint="its name, such as br0", complain=_complain_bridge),
            FormField("description", "Description", hint="for people"),
        ],
        "addresses": [
            *_list_side("ipv4", 4, ("dhcp", "static", "none")),
            *_list_side("ipv6", 6, ("slaac", "stateless", "dhcpv6", "static", "none")),
            FormField(
                "gateway", "Gateway", "host", hint="host, none, an address, vm:NAME",
                complain=partial(_complain_gateway, vms), suggestions=gateways,
            ),
        ],
        "more": [
            FormField("dns", "DNS", hint="empty: this host", complain=_complain_addresses),
            FormField("searchDomain", "Search domain", hint="such as lab.example"),
            FormField("mtu", "MTU", unit="bytes", hint="empty: what fits", complain=_complain_mtu),
            FormField("local", "VXLAN local", hint="empty: no VXLAN", complain=_complain_local),
            FormField("vni", "VNI", hint="empty: KC chooses", complain=_complain_vni),
            FormField("peers", "Peers", hint="or a multicast group", complain=_complain_peers),
            FormField("isolated", "Isolation", "no", tuple(_YES_NO), _YES_NO),
        ],
    }  # fmt: skip


def _list_side(family: str, version: int, modes: tuple[str, ...]) -> list[FormField]:
    title = f"IPv{version}"
    example = _EXAMPLES[version]
    subnet = FormField(family, title, hint=f"such as {example}", complain=partial(_complain_subnet, version))
    mode = FormField(f"{family}Mode", f"  {title} by", modes[0], modes)
    ranges = FormField(f"{family}Ranges", "  ranges", hint="FIRST-LAST; empty: KC's", complain=_complain_ranges)
    return [subnet, mode, ranges]


def list_hidden(values: Values) -> frozenset[str]:
    """Return the fields that other fields' values make pointless."""
    hidden = set()
    if values.get("uplink") != "bridge":
        hidden.add("bridge")
    for family in ("ipv4", "ipv6"):
        if not values.get(family):
            hidden |= {f"{family}Mode", f"{family}Ranges"}
        elif values.get(f"{family}Mode") not in ("dhcp", "dhcpv6"):
            hidden.add(f"{family}Ranges")
    if not values.get("local"):
        hidden |= {"vni", "peers"}
    return frozenset(hidden)


# --- what is wrong with a text, at each key


def _complain_name(taken: Names, text: str) -> str:
    return complain_about_name(text, taken())


def _complain_bridge(text: str) -> str:
    return "" if re.fullmatch(DEVICE, text) else "the name of a bridge of this host, such as br0"


def _complain_subnet(version: int, text: str) -> str:
    if not text:
        return ""
    try:
        subnet = ip_network(text)
    except ValueError as error:
        why = "it has host bits set: " if "host bits" in str(error) else ""
        return f"{why}such as {_EXAMPLES[version]}"
    return "" if subnet.version == version and "/" in text else f"such as {_EXAMPLES[version]}"


def _complain_ranges(text: str) -> str:
    for part in _split(text):
        first, sign, last = part.partition("-")
        if not sign or not (_is_address(first) and _is_address(last)):
            return "FIRST-LAST, several with commas"
    return ""


def _complain_gateway(vms: Names, text: str) -> str:
    if text.startswith("vm:"):
        name = text.removeprefix("vm:").partition("/")[0]
        near = [known for known in sorted(vms()) if known.startswith(name)]
        return "" if name in near else f"{join_words(near, 3)}?" if near else "there is no such VM"
    if re.fullmatch(GATEWAY_PATTERN, text) and (
        text in ("host", "none") or text.startswith("router:") or all(map(_is_address, text.split(",")))
    ):
        return ""
    return "host, none, an address (or one of each family), or vm:NAME"


def _complain_addresses(text: str) -> str:
    return "" if all(map(_is_address, _split(text))) else "IP addresses, several with commas"


def _complain_mtu(text: str) -> str:
    return _complain_number(text, *_MTU)


def _complain_vni(text: str) -> str:
    return _complain_number(text, 1, LARGEST_VNI)


def _complain_number(text: str, least: int, most: int) -> str:
    is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(most))
    return "" if not text or (is_number and least <= int(text) <= most) else f"{least} to {most}"


def _complain_local(text: str) -> str:
    return "" if not text or _is_address(text) else "this host's own address below"


def _complain_peers(text: str) -> str:
    parts = _split(text)
    if not parts or not all(map(_is_address, parts)):
        return "the other hosts' addresses, with commas, or one multicast group"
    groups = [part for part in parts if ip_address(part).is_multicast]
    return "a multicast group stands alone" if groups and len(parts) > 1 else ""


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _is_address(text: str) -> bool:
    try:
        ip_address(text.strip())
    except ValueError:
        return False
    return True


# --- from texts to a document, and back


def build_spec(values: Values, before: Spec | None = None) -> Spec:
    """Return the spec that the texts ask for; what no field is about stays as it was."""
    spec = copy.deepcopy(before) if before is not None else {}
    # KC pins the reference anew.
    spec.pop("gatewayReference", None)
    uplink = values["uplink"]
    spec |= {
        "uplink": f"bridge:{values['bridge']}" if uplink == "bridge" else uplink,
        "gateway": values["gateway"] or "host",
        "dns": _split(values["dns"]),
        "searchDomain": values["searchDomain"],
        "mtu": int(values["mtu"]) if values["mtu"] else None,
        "description": values["description"],
        "vxlan": _build_vxlan(values, spec.get("vxlan")),
        "guard": {**spec.get("guard", {}), "isolated": values["isolated"] == "yes"},
    }
    for family in ("ipv4", "ipv6"):
        spec[family] = {**spec.get(family, {}), **_build_side(values, family)}
    return spec


def _build_side(values: Values, family: str) -> Spec:
    subnet, mode = values[family], values[f"{family}Mode"]
    ranges = _split(values[f"{family}Ranges"]) if subnet and mode in ("dhcp", "dhcpv6") else []
    return {
        "subnet": subnet,
        "mode": mode if subnet else "none",
        "ranges": [_build_range(part) for part in ranges],
        # There is nobody to keep an address for where there are none.
        **({} if subnet else {"reservations": []}),
    }


def _build_range(text: str) -> Spec:
    first, _, last = text.partition("-")
    return {"start": first.strip(), "end": last.strip()}


def _build_vxlan(values: Values, before: Spec | None) -> Spec | None:
    if not values["local"]:
        return None
    peers = _split(values["peers"])
    is_group = len(peers) == 1 and _is_address(peers[0]) and ip_address(peers[0]).is_multicast
    return {
        **(before or {}),
        "vni": int(values["vni"]) if values["vni"] else None,
        "local": values["local"],
        "peers": [] if is_group else peers,
        "group": peers[0] if is_group else "",
    }


def read_texts(spec: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts that stand for a spec."""
    uplink, _, bridge = str(spec.get("uplink", "nat")).partition(":")
    vxlan = spec.get("vxlan") or {}
    texts = {
        "uplink": uplink,
        "bridge": bridge,
        "gateway": str(spec.get("gateway", "host")),
        "dns": ", ".join(map(str, spec.get("dns") or ())),
        "searchDomain": str(spec.get("searchDomain") or ""),
        "mtu": str(spec.get("mtu") or ""),
        "description": str(spec.get("description") or ""),
        "local": str(vxlan.get("local") or ""),
        "vni": str(vxlan.get("vni") or ""),
        "peers": str(vxlan.get("group") or ", ".join(map(str, vxlan.get("peers") or ()))),
        "isolated": "yes" if (spec.get("guard") or {}).get("isolated") else "no",
    }
    for family in ("ipv4", "ipv6"):
        side = spec.get(family) or {}
        ranges = [f"{each.get('start', '')}-{each.get('end', '')}" for each in side.get("ranges") or ()]
        texts[family] = str(side.get("subnet") or "")
        # Without a subnet there is no mode yet: the usual one is offered once there is.
        texts |= {f"{family}Mode": str(side.get("mode") or "none")} if texts[family] else {}
        texts[f"{family}Ranges"] = ", ".join(ranges)
    return texts


def build_document(name: str, values: Values) -> Document:
    """Return the document that makes the network."""
    return {
        "apiVersion": API_VERSION, "kind": NETWORK.name, "name": name, "metadata": {}, "spec": build_spec(values)
    }  # fmt: skip


# --- the command line


def build_arguments(name: str, spec: Mapping[str, Any]) -> list[str]:
    """Return the `kc network create` that makes a network, as shell words, each quoted."""
    return ["kc network create", shlex.quote(name), *_list_flags(spec)]


def _list_flags(spec: Mapping[str, Any]) -> Iterator[str]:
    given = [("uplink", spec["uplink"] if spec["uplink"] != "nat" else "")]
    for family in ("ipv4", "ipv6"):
        side = spec[family]
        given += [(family, side["subnet"]), (f"{family}-mode", side["mode"] if side["subnet"] else "")]
        given += [("range", f"{each['start']}-{each['end']}") for each in side["ranges"]]
    given += [
        ("gateway", spec["gateway"] if spec["gateway"] != "host" else ""),
        ("vxlan", _write_vxlan(spec["vxlan"])),
        *(("dns", server) for server in spec["dns"]),
        ("search", spec["searchDomain"]),
        ("mtu", str(spec["mtu"] or "")),
        ("description", spec["description"]),
    ]
    yield from (f"--{flag} {shlex.quote(text)}" for flag, text in given if text)
    if spec["guard"]["isolated"]:
        yield "--isolate-vms"


def _write_vxlan(vxlan: Mapping[str, Any] | None) -> str:
    if vxlan is None:
        return ""
    parts = [f"vni={vxlan['vni']}"] if vxlan["vni"] else []
    parts += [f"local={vxlan['local']}", *(f"peer={peer}" for peer in vxlan["peers"])]
    return ",".join([*parts, f"group={vxlan['group']}"] if vxlan["group"] else parts)


def build_changes(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the `kc network set` that makes one spec of another, as shell words, each quoted."""
    words = ["kc network set", shlex.quote(name)]
    for path, value in _list_assignments(before, after):
        text = value if isinstance(value, str) and not _reads_as_json(value) else json.dumps(value)
        words.append(shlex.quote(f"spec.{path}={text}"))
    return words


def _list_assignments(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in after.items():
        old = before.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            yield from ((f"{key}.{inner}", item) for inner, item in value.items() if item != old.get(inner))
        elif value != old:
            yield key, value


def _reads_as_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


# --- errors

_PLACES: Final = (
    (r"spec\.uplink", "uplink"),
    (r"spec\.(ipv4|ipv6)\.subnet", r"\1"),
    (r"spec\.(ipv4|ipv6)\.mode", r"\1Mode"),
    (r"spec\.(ipv4|ipv6)\.ranges", r"\1Ranges"),
    (r"spec\.gateway", "gateway"),
    (r"spec\.(dns|searchDomain|mtu|description)", r"\1"),
    (r"spec\.vxlan\.vni", "vni"),
    (r"spec\.vxlan\.(peers|group)", "peers"),
    (r"spec\.vxlan", "local"),
    (r"spec\.guard\.isolated", "isolated"),
    (r"name is taken|not a valid name", "name"),
)


def locate_error(error: KCError) -> tuple[str, str]:
    """Return the step and the field that an error of the service belongs to; both empty where it is none of them."""
    for pattern, field in _PLACES:
        match = re.search(pattern, error.why)
        if match:
            name = match.expand(field)
            if name == "uplink" and "bridge" in error.why:
                name = "bridge"
            return _STEP_OF[name], name
    return "", ""


def describe_error(error: KCError) -> str:
    """Return an error as it stands beside its field, without the path that its place says already."""
    why = re.sub(r"^spec\.[\w.]+: ", "", error.why)
    # Where documents are described helps nobody who sees no document.
    hint = "" if error.hint.startswith("see kc schema") else error.hint
    return sanitise(f"{why}. {hint}" if hint else why, 400)


_STEP_OF: Final = {
    field.name: step for step, fields in list_fields(frozenset, frozenset).items() for field in fields
}  # fmt: skip
