"""`kc network topology`: what is joined to what, as a drawing, as JSON, or for Graphviz."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Iterator

from backend.errors import UsageError
from backend.model.kinds import NETWORK, VM
from backend.text import sanitise
from kc_tui.cli.arguments import Parser, terminal_width
from kc_tui.cli.output import print_data
from kc_tui.cli.session import Session
from kc_tui.cli.table import colour, is_coloured
from kc_tui.state.glyphs import choose_glyphs
from kc_tui.state.roles import Role
from kc_tui.state.topology import Graph, build_topology
from kc_tui.state.topology_drawing import LEAST_WIDTH, SHOWN_VMS, draw_topology

_PLAIN_WIDTH = 120
_TONES = {Role.MUTED: "dim", Role.OK: "ok", Role.WARN: "warn", Role.DANGER: "bad"}
_SHAPES = {
    "network": "box", "vm": "ellipse", "router": "hexagon", "host": "house", "gateway": "diamond",
    "uplink": "plaintext",
}  # fmt: skip
_STYLES = {"gateway": "bold", "uplink": "dashed"}


def add_arguments(parser: Parser) -> None:
    """Add what `kc network topology` takes."""
    parser.add("--all", dest="everything", action="store_true", help=f"every VM, not {SHOWN_VMS} of each network")
    parser.add("--dot", action="store_true", help="a graph for Graphviz")


def run(session: Session, arguments: Namespace) -> int:
    """Print the topology and return the exit code."""
    if arguments.dot and session.output != "table":
        raise UsageError("usage of kc network topology", "--dot and -o exclude each other", "leave one of them out")
    networks = session.service.list_documents(NETWORK.name)
    vms = session.service.list_documents(VM.name, everything=True)
    graph = build_topology(networks.items, vms.items)
    if session.output in ("json", "yaml"):
        print_data(session, graph)
    elif session.output == "name":
        sys.stdout.write("".join(f"{sanitise(node['id'])}\n" for node in graph["nodes"]))
    elif arguments.dot:
        sys.stdout.write("".join(f"{line}\n" for line in write_dot(graph)))
    else:
        _print_drawing(session, graph, limit=None if arguments.everything else SHOWN_VMS)
    for warning in dict.fromkeys([*networks.warnings, *vms.warnings]):
        session.note(f"warning: {warning}")
    return 0


def _print_drawing(session: Session, graph: Graph, limit: int | None) -> None:
    width = terminal_width(sys.stdout.fileno()) if sys.stdout.isatty() else _PLAIN_WIDTH
    coloured = is_coloured(sys.stdout)
    lines = draw_topology(graph, width=max(width, LEAST_WIDTH), limit=limit, glyphs=choose_glyphs(os.environ))
    for line in lines:
        text = "".join(colour(piece.text, _TONES.get(piece.role, "") if coloured else "") for piece in line)
        sys.stdout.write(text.rstrip() + "\n")
    if not lines:
        session.note("no networks; make the first with kc init, or kc network create NAME --ipv4 CIDR")


def write_dot(graph: Graph) -> Iterator[str]:
    """Yield the lines of a graph in Graphviz's language; every text in it is quoted."""
    yield "graph kc {"
    yield "  rankdir=LR;"
    for node in graph["nodes"]:
        subnets = [f"{node[family]['subnet']} {node[family]['mode']}" for family in ("ipv4", "ipv6") if family in node]
        peers = [f"peer {peer}" for peer in node.get("peers", ())]
        group = [f"group {node['group']}"] if node.get("group") else []
        missing = ["missing"] if node.get("missing") else []
        label = _label(node["name"], *subnets, *group, *peers, *missing)
        yield f"  {_quote(node['id'])} [label={label}, shape={_SHAPES[node['kind']]}];"
    for edge in graph["edges"]:
        style = f", style={_STYLES[edge['kind']]}" if edge["kind"] in _STYLES else ""
        label = _label(*edge.get("addresses", ()))
        yield f"  {_quote(edge['from'])} -- {_quote(edge['to'])} [label={label}{style}];"
    yield "}"


def _quote(text: str) -> str:
    """Return a text as a quoted string of Graphviz's language, in which a quote ends it and a backslash begins more."""
    escaped = sanitise(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _label(*lines: str) -> str:
    # In labels, and nowhere else, entities of HTML are read.
    return '"' + "\\n".join(_quote(line.replace("&", "&amp;"))[1:-1] for line in lines) + '"'
