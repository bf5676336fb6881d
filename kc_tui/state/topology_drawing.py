"""A topology as lines of text: boxes for networks, one below the other, with what is joined to them on either side.

internet ── NAT ──────┤ 192.168.150.0/24  dhcp ├── web-1  .17
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from rich.cells import cell_len, set_cell_size

from backend.text import sanitise
from kc_tui.state.formatting import pluralise
from kc_tui.state.glyphs import ASCII, UNICODE, Glyphs
from kc_tui.state.listing import natural_key
from kc_tui.state.roles import Role
from kc_tui.state.topology import Graph, shorten

LEAST_WIDTH: Final = 80
SHOWN_VMS: Final = 8
"""How many VMs of a network are drawn before the rest is counted."""

_MOST_LEFT: Final = 26
_LEAST_RIGHT: Final = 26
_LEAST_BOX: Final = 18
_LONGEST: Final = 120
_SHOWN_ADDRESSES: Final = 3
_STATES: Final = {"degraded": Role.WARN, "down": Role.DANGER}
_QUIET: Final = ("running", "unknown")


class Piece(NamedTuple):
    """A piece of text in one role; `node` is the id of what it shows, where it shows something."""

    text: str
    role: Role = Role.TEXT
    node: str = ""


Line = tuple[Piece, ...]


class _Strokes(NamedTuple):
    """What boxes are drawn with."""

    line: str
    side: str
    corners: tuple[str, str, str, str]
    left: str
    right: str
    down: str
    up: str
    ellipsis: str


_UNICODE: Final = _Strokes("─", "│", ("┌", "┐", "└", "┘"), "┤", "├", "┬", "┴", UNICODE.ellipsis)
_ASCII: Final = _Strokes("-", "|", ("+", "+", "+", "+"), "+", "+", "+", "+", ASCII.ellipsis)


class _Box(NamedTuple):
    """A network and what stands beside and in it; `routers` are those that join it to the next one below."""

    node: dict[str, Any]
    left: list[Line]
    inside: list[Line]
    right: list[Line]
    routers: list[Line]


def draw_topology(
    graph: Graph, *, width: int = LEAST_WIDTH, limit: int | None = SHOWN_VMS, glyphs: Glyphs = UNICODE
) -> list[Line]:
    """Return the lines of a topology, none wider than `width` cells (80 at least); none where there is no network.

    `limit` VMs of each network are drawn, None for all; those that route are always.
    """
    boxes = _build_boxes(graph, limit, glyphs)
    if not boxes:
        return []
    width = max(width, LEAST_WIDTH)
    left = min(max((_measure(line) for box in boxes for line in box.left), default=0), _MOST_LEFT)
    widest = max(max(_measure(line) for line in (_title(box.node, glyphs), *box.inside)) for box in boxes)
    # The frame, what leads to it from either side, and the margins.
    inner = max(_LEAST_BOX, min(widest, width - left - _LEAST_RIGHT - 4))
    return list(_draw(boxes, left, inner, width, glyphs))


def to_text(lines: Sequence[Line]) -> list[str]:
    """Return lines as plain text."""
    return ["".join(piece.text for piece in line).rstrip() for line in lines]


# --- what stands where


def _build_boxes(graph: Graph, limit: int | None, glyphs: Glyphs) -> list[_Box]:
    nodes = {node["id"]: node for node in graph["nodes"]}
    joined = {node["id"]: [edge for edge in graph["edges"] if edge["to"] == node["id"]] for node in _networks(graph)}
    order = _order(graph, joined)
    routers = {
        network: {edge["from"] for edge in joined[network] if nodes[edge["from"]]["kind"] == "router"}
        for network in order
    }
    boxes = []
    for place, network in enumerate(order):
        below = order[place + 1] if place + 1 < len(order) else ""
        above = order[place - 1] if place else ""
        shared = sorted(routers[network] & routers.get(below, set()), key=natural_key)
        drawn = {*shared, *(routers[network] & routers.get(above, set()))}
        edges = joined[network]
        boxes.append(
            _Box(
                nodes[network],
                [_describe_uplink(nodes[edge["from"]], glyphs) for edge in edges if edge["kind"] == "uplink"],
                list(_describe_network(nodes[network], edges, nodes)),
                _list_vms(nodes, nodes[network], [edge for edge in edges if edge["from"] not in drawn], limit),
                [_describe_joint(nodes, router, nodes[network], nodes[below], joined) for router in shared],
            )
        )
    return boxes


def _networks(graph: Graph) -> list[dict[str, Any]]:
    return [node for node in graph["nodes"] if node["kind"] == "network"]


def _order(graph: Graph, joined: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Return the networks so that those that a router joins follow each other, those that lead outside first."""
    nodes = {node["id"]: node for node in graph["nodes"]}
    on: dict[str, list[str]] = {}
    for network, edges in joined.items():
        for edge in edges:
            if nodes[edge["from"]]["kind"] == "router" and network not in on.setdefault(edge["from"], []):
                on[edge["from"]].append(network)
    beside = {
        network: [other for edge in edges for other in on.get(edge["from"], ()) if other != network]
        for network, edges in joined.items()
    }

    def rank(network: str) -> int:
        uplinks = [nodes[edge["from"]]["type"] for edge in joined[network] if edge["kind"] == "uplink"]
        return 2 if not uplinks else 1 if set(uplinks) == {"vxlan"} else 0

    order: list[str] = []
    for first in sorted(joined, key=rank):
        waiting = [first]
        while waiting:
            network = waiting.pop()
            if network not in order:
                order.append(network)
                waiting += reversed(beside[network])
    return order


def _describe_uplink(node: dict[str, Any], glyphs: Glyphs) -> Line:
    dash = f" {glyphs.rule * 2} "
    name = Piece(_clean(node["name"]), Role.TEXT, node["id"])
    if node["type"] in ("nat", "routed"):
        return (Piece(f"internet{dash}", Role.MUTED), name)
    if node["type"] != "vxlan":
        return (name,)
    others = f"group {_clean(node['group'])}" if node["group"] else pluralise(len(node["peers"]), "peer")
    return (Piece(f"{others}{dash}", Role.MUTED), name)


def _title(node: dict[str, Any], glyphs: Glyphs) -> Line:
    state = node["state"]
    bad = (Piece(f"{glyphs.attention} {state} ", _STATES[state]),) if state in _STATES else ()
    return (Piece(f"{_clean(node['name'])} ", Role.STRONG, node["id"]), *bad)


def _describe_network(node: dict[str, Any], edges: Sequence[dict[str, Any]], nodes: dict[str, Any]) -> Iterator[Line]:
    """Yield what stands in a network's box: its subnets with their modes, and who routes for it."""
    subnets = _subnets(node)
    for family in ("ipv4", "ipv6"):
        if family in node:
            mode = Piece(f"  {_clean(node[family]['mode'])}", Role.MUTED)
            yield (Piece(_clean(node[family]["subnet"])), mode)
    if not subnets:
        yield (Piece("no addresses", Role.MUTED),)
    gateways = [edge for edge in edges if edge["kind"] == "gateway"]
    for edge in gateways:
        who = nodes[edge["from"]]
        missing = (Piece(" (missing)", Role.DANGER),) if who.get("missing") else ()
        known = {_clean(who["name"])} if who["kind"] == "gateway" else set()
        addresses = _shorten_all(edge, subnets, leave=known)
        link = who["id"] if who["kind"] == "router" else ""
        yield (Piece("gateway ", Role.MUTED), Piece(_clean(who["name"]), Role.TEXT, link), *missing, *addresses)
    if not gateways:
        is_unknown = node["gateway"] != "none" and node["uplink"] != "isolated"
        yield (Piece("gateway unknown" if is_unknown else "no gateway", Role.MUTED),)


def _list_vms(
    nodes: dict[str, Any],
    network: dict[str, Any],
    edges: Sequence[dict[str, Any]],
    limit: int | None,
) -> list[Line]:
    """Return what stands at the right of a network: routers first, then its other VMs, the rest counted."""
    nics = [edge for edge in edges if edge["kind"] == "nic"]
    nics.sort(key=lambda edge: nodes[edge["from"]]["kind"] != "router")
    routers = sum(nodes[edge["from"]]["kind"] == "router" for edge in nics)
    shown = nics if limit is None else nics[: routers + limit]
    if len(nics) - len(shown) == 1:
        # Its line is as long as the one that would count it.
        shown = nics
    lines = [_describe_vm(nodes[edge["from"]], _shorten_all(edge, _subnets(network))) for edge in shown]
    more = len(nics) - len(shown)
    return [*lines, *([(Piece(f"+{more:,} more", Role.MUTED),)] if more else [])]


def _describe_vm(node: dict[str, Any], addresses: Sequence[Piece]) -> Line:
    words = [
        *(["router"] if node["kind"] == "router" else []),
        *(["hidden"] if node.get("hidden") else []),
        *([_clean(node["power"])] if node.get("power", "running") not in _QUIET else []),
    ]
    about = (Piece(f"  ({', '.join(words)})", Role.MUTED),) if words else ()
    return (Piece(_clean(node["name"]), Role.TEXT, node["id"]), *addresses, *about)


def _describe_joint(
    nodes: dict[str, Any],
    router: str,
    above: dict[str, Any],
    below: dict[str, Any],
    joined: dict[str, list[dict[str, Any]]],
) -> Line:
    """Return a router between two networks, with its addresses on the upper and on the lower one."""
    addresses: list[Piece] = []
    for network in (above, below):
        nics = [edge for edge in joined[network["id"]] if (edge["kind"], edge["from"]) == ("nic", router)]
        mine = [piece for edge in nics for piece in _shorten_all(edge, _subnets(network))]
        if mine and addresses:
            addresses.append(Piece("  /", Role.MUTED))
        addresses += mine
    return _describe_vm(nodes[router], addresses)


def _subnets(network: dict[str, Any]) -> list[str]:
    return [network[family]["subnet"] for family in ("ipv4", "ipv6") if family in network]


def _shorten_all(edge: dict[str, Any], subnets: Sequence[str], leave: set[str] | None = None) -> list[Piece]:
    addresses = edge.get("addresses", ())
    if not addresses or (leave and ", ".join(addresses) in leave):
        return []
    shown = [_clean(shorten(address, subnets)) for address in addresses[:_SHOWN_ADDRESSES]]
    more = [f"+{len(addresses) - len(shown)}"] if len(addresses) > len(shown) else []
    return [Piece(f"  {' '.join([*shown, *more])}", Role.MUTED)]


# --- drawing


def _draw(boxes: Sequence[_Box], left: int, inner: int, width: int, glyphs: Glyphs) -> Iterator[Line]:
    strokes = _ASCII if glyphs.is_ascii else _UNICODE
    # The margin, what stands at the left, and the line from there to the box.
    margin = " " * (1 + left + 4)
    titles = [_measure(_title(box.node, glyphs)) for box in boxes]
    joint = min(max(inner // 2, max(titles) + 2), inner)
    routers: list[Line] = []
    for box in boxes:
        yield (Piece(margin), *_draw_top(box, inner, strokes, glyphs, joint if routers else None))
        for row in range(max(map(len, (box.left, box.inside, box.right)))):
            line = (*_draw_left(box.left, row, left, strokes), *_draw_inside(box, row, inner, strokes))
            beside = box.right[row] if row < len(box.right) else ()
            lead = (Piece(f"{strokes.line * 2} ", Role.MUTED),) if beside else ()
            yield _clip((*line, *lead, *beside), width, strokes.ellipsis)
        routers = box.routers
        yield (Piece(margin), _draw_bottom(inner, strokes, joint if routers else None))
        for router in routers:
            start = max(0, len(margin) + joint + 1 - _measure(router[:1]) // 2)
            yield _clip((Piece(" " * start), *router), width, strokes.ellipsis)
        if not routers and box is not boxes[-1]:
            yield ()


def _draw_top(box: _Box, inner: int, strokes: _Strokes, glyphs: Glyphs, joint: int | None) -> Line:
    title = _clip(_title(box.node, glyphs), inner - 2, strokes.ellipsis)
    rest = [strokes.line] * (inner + 1 - _measure(title))
    place = None if joint is None else joint - _measure(title) - 1
    if place is not None and 0 <= place < len(rest):
        rest[place] = strokes.up
    return (
        Piece(f"{strokes.corners[0]} ", Role.MUTED),
        *title,
        Piece("".join(rest) + strokes.corners[1], Role.MUTED),
    )


def _draw_bottom(inner: int, strokes: _Strokes, joint: int | None) -> Piece:
    rule = [strokes.line] * (inner + 2)
    if joint is not None:
        rule[joint] = strokes.down
    return Piece(strokes.corners[2] + "".join(rule) + strokes.corners[3], Role.MUTED)


def _draw_left(lines: Sequence[Line], row: int, left: int, strokes: _Strokes) -> Line:
    if row >= len(lines):
        return (Piece(" " * (1 + left + 4)),)
    line = _clip(lines[row], left, strokes.ellipsis)
    return (Piece(" "), *line, Piece(f" {strokes.line * (left - _measure(line) + 3)}", Role.MUTED))


def _draw_inside(box: _Box, row: int, inner: int, strokes: _Strokes) -> Line:
    line = _clip(box.inside[row], inner, strokes.ellipsis) if row < len(box.inside) else ()
    first = strokes.left if row < len(box.left) else strokes.side
    last = strokes.right if row < len(box.right) else strokes.side
    space = " " * (inner - _measure(line))
    return (Piece(f"{first} ", Role.MUTED), *line, Piece(f"{space} {last}", Role.MUTED))


def _clean(value: object) -> str:
    return sanitise(value, _LONGEST)


def _measure(line: Line) -> int:
    return sum(cell_len(piece.text) for piece in line)


def _clip(line: Line, width: int, keep: str) -> Line:
    """Return a line cut to `width` cells, an ellipsis at the end where something is missing."""
    if _measure(line) <= width:
        return line
    room, kept = width - cell_len(keep), []
    for piece in line:
        size = cell_len(piece.text)
        if size > room:
            kept.append(piece._replace(text=set_cell_size(piece.text, max(room, 0)) + keep))
            break
        kept.append(piece)
        room -= size
    return tuple(kept)
