"""What is joined to what: networks, the VMs on them, who routes for them, and what leads outside, as a graph.

Pure: documents in, a graph of JSON values out. `kc_tui.state.topology_drawing` makes lines of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address, ip_interface
from typing import Any, Final, NamedTuple

from backend.model.addressing import FAMILIES, host_address
from backend.model.documents import Document, is_readable, name_of
from kc_tui.state.listing import natural_key

Graph = dict[str, Any]
"""`{"nodes": [{"id", "kind", "name", …}], "edges": [{"from", "to", "kind", "address"?, "addresses"?, "nic"?}]}`.

Kinds of nodes: `network` (`state`, `uplink`, `ipv4` and `ipv6` as {"subnet", "mode"}, `gateway`), `vm` (`power`),
`router` (a VM that some network's gateway is), `host`, `gateway` (an address, or one whom nobody knows: `missing`),
`uplink` (`type`: nat, routed, bridge or vxlan, with `vni`, `local`, `peers`, `group`). An id is `network:NAME`,
`vm:NAME`, `host`, … Kinds of edges, all from something to a network: `nic`, `gateway`, `uplink`.
"""

HOST: Final = "host"
_LINK_LOCAL: Final = ("fe80:", "169.254.")
_DEFAULT_PORT: Final = 4789


class _Link(NamedTuple):
    """A VM's NIC on a network."""

    vm: str
    network: str
    nic: str
    addresses: list[str]


def build_topology(networks: Iterable[Document], vms: Iterable[Document]) -> Graph:
    """Return what is joined to what; foreign VMs, of whose networks nobody knows, are left out."""
    networks = sorted(networks, key=lambda document: natural_key(str(document.get("name", ""))))
    own = [vm for vm in vms if not vm.get("status", {}).get("foreign") and is_readable(vm)]
    own.sort(key=lambda document: natural_key(str(document.get("name", ""))))
    links = list(_list_links(own, networks))
    nodes = {node["id"]: node for node in [*map(_read_network, networks), *map(_read_vm, own)]}
    edges = [_make_edge("nic", link.vm, link.network, link.addresses, nic=link.nic) for link in links]
    for network in networks:
        if not is_readable(network):
            continue
        for node, edge in (*_find_gateways(network, own, links), *_find_uplinks(network)):
            known = nodes.setdefault(node["id"], node)
            if known["kind"] == "vm":
                known["kind"] = "router"
            edges.append(edge)
    return {"nodes": list(nodes.values()), "edges": edges}


def _make_edge(kind: str, start: str, network: str, addresses: Sequence[str] = (), *, nic: str = "") -> Document:
    edge: Document = {"from": start, "to": network, "kind": kind}
    if nic:
        edge["nic"] = nic
    if addresses:
        edge |= {"address": addresses[0], "addresses": list(addresses)}
    return edge


# --- nodes


def _identify(network: Mapping[str, Any]) -> str:
    return f"network:{network.get('name', '')}"


def _read_network(document: Document) -> Document:
    spec = document.get("spec", {}) if is_readable(document) else {}
    node: Document = {
        "id": _identify(document),
        "kind": "network",
        "name": str(document.get("name", "")),
        "state": str(document.get("status", {}).get("state") or "unknown"),
        "uplink": str(spec.get("uplink", "")),
        "gateway": str(spec.get("gateway", "")),
    }
    for family in FAMILIES:
        side = spec.get(family) or {}
        if side.get("subnet"):
            node[family] = {"subnet": str(side["subnet"]), "mode": str(side.get("mode", ""))}
    return node


def _read_vm(document: Document) -> Document:
    name = str(document.get("name", ""))
    node = {"id": f"vm:{name}", "kind": "vm", "name": name}
    node["power"] = str(document.get("status", {}).get("power") or "unknown")
    return node | ({"hidden": True} if document.get("spec", {}).get("hidden") else {})


# --- NICs


def _list_links(vms: Sequence[Document], networks: Sequence[Document]) -> Iterator[_Link]:
    known = {str(network.get("uid")): _identify(network) for network in networks if network.get("uid")}
    known |= {str(network.get("name", "")): _identify(network) for network in networks}
    for vm in vms:
        for nic in vm.get("spec", {}).get("nics") or ():
            reference = nic.get("network")
            uid = str(reference.get("uid", "")) if isinstance(reference, dict) else ""
            network = known.get(uid) or known.get(name_of(reference))
            if network is not None:
                yield _Link(f"vm:{vm.get('name', '')}", network, str(nic.get("id", "")), _list_addresses(vm, nic))


def _list_addresses(vm: Document, nic: Document) -> list[str]:
    """Return the addresses of a NIC, IPv4 first: those that it has, else those that it is to have."""
    entries = vm.get("status", {}).get("addresses") or ()
    found = [str(entry.get("address", "")) for entry in entries if entry.get("nic") == nic.get("id")]
    found = [address for address in found if address and not address.startswith(_LINK_LOCAL)]
    if not found:
        given = [str((nic.get(family) or {}).get("address") or "") for family in FAMILIES]
        found = [address.partition("/")[0] for address in given if address]
    return sorted(dict.fromkeys(found), key=lambda address: ":" in address)


# --- gateways


def _find_gateways(
    network: Document, vms: Sequence[Document], links: Sequence[_Link]
) -> Iterator[tuple[Document, Document]]:
    """Yield who routes for a network, each with its edge."""
    spec, identity = network.get("spec", {}), _identify(network)
    given = str(spec.get("gateway", ""))
    if given in ("", "none"):
        return
    if given == "host":
        addresses = _list_gateway_addresses(network) or _list_host_addresses(network)
        if addresses:
            yield {"id": HOST, "kind": "host", "name": "host"}, _make_edge("gateway", HOST, identity, addresses)
    elif given.startswith(("vm:", "router:")):
        yield _find_referred(network, vms, links)
    else:
        yield from _find_by_address(identity, given.split(","), links)


def _list_host_addresses(network: Document) -> list[str]:
    """Return by which addresses the host routes for a network; an isolated one leads nowhere."""
    found: list[str] = []
    if network["spec"].get("uplink") == "isolated":
        return found
    for family in FAMILIES:
        # A document that somebody else wrote may lack what every one of ours has.
        with suppress(KeyError, TypeError, ValueError, IndexError):
            found.append(host_address(network["spec"], family))
    return [address for address in found if address]


def _list_gateway_addresses(network: Document) -> list[str]:
    found = network.get("status", {}).get("gateway") or {}
    return [str(found[family]) for family in FAMILIES if found.get(family)]


def _find_referred(network: Document, vms: Sequence[Document], links: Sequence[_Link]) -> tuple[Document, Document]:
    """Return the VM or router that a network's gateway refers to, by its uid where it is pinned, and its edge."""
    spec, identity = network.get("spec", {}), _identify(network)
    reference, _, nic = str(spec.get("gateway", "")).partition("/")
    pinned = spec.get("gatewayReference") or {}
    name, nic = str(pinned.get("name") or reference.partition(":")[2]), str(pinned.get("nic") or nic)
    if pinned.get("uid"):
        vm = next((vm for vm in vms if vm.get("uid") == pinned["uid"]), None)
    else:
        vm = next((vm for vm in vms if vm.get("name") == name and reference.startswith("vm:")), None)
    if vm is None:
        missing = _make_gateway(identity, f"{reference.partition(':')[0]}:{name}", name) | {"missing": True}
        return missing, _make_edge("gateway", missing["id"], identity, _list_gateway_addresses(network))
    node = _read_vm(vm)
    mine = [link for link in links if (link.vm, link.network) == (node["id"], identity) and nic in ("", link.nic)]
    addresses = _list_gateway_addresses(network) or [address for link in mine for address in link.addresses]
    return node, _make_edge("gateway", node["id"], identity, addresses, nic=mine[0].nic if mine else nic)


def _find_by_address(
    identity: str, addresses: Sequence[str], links: Sequence[_Link]
) -> Iterator[tuple[Document, Document]]:
    """Yield whose addresses a network's gateways are: a VM's on it, or something's that nobody knows."""
    owners: dict[tuple[str, str], list[str]] = {}
    for address in addresses:
        owner = next((link for link in links if link.network == identity and address in link.addresses), None)
        owners.setdefault((owner.vm, owner.nic) if owner else ("", ""), []).append(address)
    for (vm, nic), owned in owners.items():
        if vm:
            yield (
                {"id": vm, "kind": "router", "name": vm.partition(":")[2]},
                _make_edge("gateway", vm, identity, owned, nic=nic),
            )
        else:
            node = _make_gateway(identity, ",".join(owned), ", ".join(owned))
            yield node, _make_edge("gateway", node["id"], identity, owned)


def _make_gateway(network: str, word: str, name: str) -> Document:
    """Return a node for what routes for a network and is nothing that KC has."""
    return {"id": f"gateway:{network.partition(':')[2]}:{word}", "kind": "gateway", "name": name}


# --- uplinks


def _find_uplinks(network: Document) -> Iterator[tuple[Document, Document]]:
    """Yield what joins a network to the outside, each with its edge."""
    spec, identity = network.get("spec", {}), _identify(network)
    kind, _, bridge = str(spec.get("uplink", "")).partition(":")
    if kind in ("nat", "routed"):
        node: Document = {
            "id": f"uplink:{kind}",
            "kind": "uplink",
            "type": kind,
            "name": {"nat": "NAT"}.get(kind, kind),
        }
        yield node, _make_edge("uplink", node["id"], identity)
    elif kind == "bridge":
        node = {"id": f"uplink:bridge:{bridge}", "kind": "uplink", "type": "bridge", "name": f"bridge {bridge}"}
        yield node, _make_edge("uplink", node["id"], identity)
    vxlan = spec.get("vxlan")
    if isinstance(vxlan, dict):
        vni, port = vxlan.get("vni"), vxlan.get("port", _DEFAULT_PORT)
        # Before KC has chosen a VNI, the network's name tells it from others.
        which = network.get("name", "") if vni is None else f"{vni}{'' if port == _DEFAULT_PORT else f':{port}'}"
        node = {
            "id": f"uplink:vxlan:{which}",
            "kind": "uplink",
            "type": "vxlan",
            "name": "vxlan" if vni is None else f"vxlan {vni}",
            "vni": vni,
            "local": str(vxlan.get("local", "")),
            "peers": [str(peer) for peer in vxlan.get("peers") or ()],
            "group": str(vxlan.get("group") or ""),
        }
        yield node, _make_edge("uplink", node["id"], identity)


# --- addresses


def shorten(address: str, subnets: Iterable[str]) -> str:
    """Return an address without what all of its subnet share (`.17`, `::27`); whole where that would not be plain.

    That is so for IPv4 in a /24 or smaller, and for IPv6 in a /64 or smaller.
    """
    with suppress(ValueError):
        given = ip_address(address)
        for text in subnets:
            subnet = ip_interface(text).network
            if given.version != subnet.version or given not in subnet:
                continue
            if given.version == 4 and subnet.prefixlen >= 24:  # noqa: PLR2004 - the last octet alone differs
                return f".{int(given) & 0xFF}"
            if given.version == 6 and subnet.prefixlen >= 64:  # noqa: PLR2004 - the interface identifier alone differs
                rest = type(given)(int(given) & ((1 << 64) - 1))
                return str(rest)
    return address
