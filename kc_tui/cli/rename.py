"""`kc vm rename`: another name for a VM."""

from __future__ import annotations

from argparse import Namespace

from backend.model.kinds import VM
from kc_tui.cli.arguments import Parser, add_if_version, add_timeout
from kc_tui.cli.changing import explaining_conflicts, finish, read_current
from kc_tui.cli.following import Follower
from kc_tui.cli.session import Session


def add_arguments(parser: Parser) -> None:
    """Add what `kc vm rename` takes."""
    parser.add("name", metavar="NAME", complete="vm", help="which VM")
    parser.add("new_name", metavar="NEW", help="what it is to be called")
    add_if_version(parser, VM)
    add_timeout(parser)


def run(session: Session, arguments: Namespace) -> int:
    """Give the VM its name, print it and return the exit code."""
    name, version = arguments.name, arguments.if_version
    if version is not None:
        read_current(session, VM, name, version)
    follower = Follower(session, timeout=arguments.timeout)
    with explaining_conflicts(session, VM, name, version):
        accepted = session.service.rename(name, arguments.new_name, if_version=version)
    code = finish(session, VM, follower, [accepted])
    if name == arguments.new_name and session.output == "table":
        session.note(f"VM {name} is called so already")
    return code
