"""`kc vm adopt`: an existing libvirt domain becomes a VM of KC's."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator

from backend.model.documents import Document
from backend.model.kinds import VM
from backend.service import Adoption
from backend.text import sanitise
from kc_tui.cli.arguments import Parser, add_dry_run, add_metadata, add_timeout, add_yes, build_tree
from kc_tui.cli.changing import ask, finish, has_terminal, require_terminal
from kc_tui.cli.following import Follower
from kc_tui.cli.output import print_data, print_names
from kc_tui.cli.session import Session


def add_arguments(parser: Parser) -> None:
    """Add what `kc vm adopt` takes."""
    parser.add("domain", metavar="DOMAIN", complete="vm:foreign", help="which domain, by its name or uuid")
    parser.add("--name", metavar="N", default="", help="what the VM is to be called (default: as the domain)")
    add_metadata(parser)
    add_dry_run(parser)
    add_yes(parser)
    add_timeout(parser)


def run(session: Session, arguments: Namespace) -> int:
    """Show what the adoption means, ask, do it, print the VM and return the exit code."""
    metadata: Document = build_tree(arguments.meta, "--meta")
    preview = session.service.preview_adoption(arguments.domain, name=arguments.name)
    if arguments.dry_run:
        _print_preview(session, preview, metadata)
        return 0
    name = str(preview.document["name"])
    asks = not arguments.yes
    if (session.output == "table" and not session.quiet) or (asks and has_terminal()):
        sys.stdout.flush()
        sys.stderr.write("".join(f"{line}\n" for line in _describe(preview)))
    if asks:
        require_terminal("kc vm adopt")
        ask("kc vm adopt", f"Adopt it as VM {sanitise(name)}? [Y/n]", ("", "y", "yes"), "nothing was changed")
    follower = Follower(session, timeout=arguments.timeout)
    accepted = session.service.adopt(arguments.domain, name=arguments.name, metadata=metadata or None)
    code = finish(session, VM, follower, [accepted])
    if code == 0 and session.waits and session.output == "table":
        session.note(f"VM {name} is managed by KC; kc vm delete {name} leaves the domain to libvirt again")
    return code


def _print_preview(session: Session, preview: Adoption, metadata: Document) -> None:
    document = {**preview.document, "metadata": metadata}
    if session.output == "table":
        sys.stdout.write("".join(f"{line}\n" for line in _describe(preview)))
    elif session.output == "name":
        print_names([document])
    else:
        print_data(session, {**preview._asdict(), "document": document})


def _describe(preview: Adoption) -> Iterator[str]:
    yield f"VM {sanitise(preview.document['name'])} would be managed by KC:"
    yield from (f"+ {sanitise(line)}" for line in preview.managed)
    if preview.untouched:
        yield "what stays as it is:"
        yield from (f"  {sanitise(line)}" for line in preview.untouched)
