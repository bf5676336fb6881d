"""`kc vm create`: from flags to a document, and from the document to a running VM."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from backend.errors import ConflictError, KCError, NotFoundError, RefusedError, UsageError
from backend.model.documents import Document
from backend.model.kinds import VM
from backend.service import Accepted
from kc_tui.cli.arguments import (
    Parser,
    add_idempotency_key,
    add_metadata,
    add_timeout,
    build_tree,
    key_of,
    parse_assignment,
    parse_count,
    parse_gibibytes,
)  # fmt: skip
from kc_tui.cli.changing import tell_warnings
from kc_tui.cli.following import Follower
from kc_tui.cli.nic_options import NIC_OPTIONS, parse_nic
from kc_tui.cli.output import print_results
from kc_tui.cli.quantities import has_quantities, read_quantities
from kc_tui.cli.session import Session
from kc_tui.cli.verbs import plural, report_all

MAXIMUM_TEXT_BYTES = 262144
_KEY_BEGINNINGS = ("ssh-", "ecdsa-", "sk-")


def add_arguments(parser: Parser) -> None:
    """Add what `kc vm create` takes."""
    parser.add("name", metavar="NAME", help="its name: lower-case letters, digits and hyphens")
    parser.add("--image", metavar="I", required=True, complete="image", help="what its disk begins as")
    parser.add(
        "--network",
        metavar="N[,…]",
        action="append",
        default=[],
        type=parse_nic,
        complete="network",
        help=f"a network to join, and after commas {' '.join(NIC_OPTIONS.split())}; again for more NICs",
    )
    parser.add("--no-network", action="store_true", help="no NIC at all")
    parser.add("--type", metavar="T", required=True, complete="type", help="the machine type")
    parser.add(
        "--set", metavar="PARAM=V", dest="parameters", action="append", default=[], type=parse_assignment,
        help="a parameter of the machine type, such as cpus=2; see kc type show T",
    )  # fmt: skip
    parser.add(
        "--disk", metavar="GIB", dest="disks", action="append", default=[], type=parse_gibibytes,
        help="another disk, empty; again for more",
    )  # fmt: skip
    parser.add("--cdrom", metavar="IMAGE", default="", complete="image", help="the image that is in its CD-ROM drive")
    add_metadata(parser)
    parser.add(
        "--ssh-key", metavar="FILE|TEXT", action="append", default=[], complete="file", names_file=is_key_file,
        help="a public key that may log in, or a file with some",
    )  # fmt: skip
    parser.add("--user-data", metavar="FILE", complete="file", help="cloud-init's user-data; - reads standard input")
    parser.add(
        "--password-hash", metavar="H", default="",
        help="crypt(5) hash of the default user's password, as openssl passwd -6 prints it",
    )  # fmt: skip
    parser.add("--no-start", action="store_true", help="make it, and leave it off")
    parser.add("--wait", choices=("running", "ready"), help="until when to wait (default: running)")
    add_timeout(parser)
    parser.add("--count", metavar="N", type=parse_count, help="make N of them: NAME-1 to NAME-N")
    add_idempotency_key(parser)


def read_text(path: str, what: str) -> str:
    """Return the text of a file (`-` is standard input), 256 KiB at most; raise NotFoundError, RefusedError."""
    import sys  # noqa: PLC0415 - for `-` alone

    try:
        if path == "-":
            data = sys.stdin.buffer.read(MAXIMUM_TEXT_BYTES + 1)
        else:
            with Path(path).expanduser().open("rb") as file:
                data = file.read(MAXIMUM_TEXT_BYTES + 1)
        text = data.decode("utf-8")
    except FileNotFoundError as error:
        raise NotFoundError(what, f"no file {path}") from error
    except OSError as error:
        raise RefusedError(what, f"cannot read {path}: {str(error.strerror).lower()}") from error
    except UnicodeDecodeError as error:
        raise RefusedError(what, f"{path} is no text", "it must be UTF-8") from error
    if len(data) > MAXIMUM_TEXT_BYTES:
        raise RefusedError(what, f"{path} is larger than {MAXIMUM_TEXT_BYTES >> 10} KiB")
    return text


def is_key_file(given: str) -> bool:
    """Return whether `--ssh-key` names a file, and is no key itself."""
    return given != "-" and not _is_key(given)


def _is_key(given: str) -> bool:
    return given.startswith(_KEY_BEGINNINGS) and " " in given.strip()


def read_keys(given: str) -> list[str]:
    """Return the public keys that `--ssh-key` names: the text itself, or every key in a file."""
    if _is_key(given):
        return [given.strip()]
    text = read_text(given, "--ssh-key")
    if "PRIVATE KEY-----" in text:
        raise RefusedError("--ssh-key", f"{given} is a private key", "name the public one, which ends in .pub")
    keys = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not keys:
        raise RefusedError("--ssh-key", f"{given} has no key in it", "name a file such as ~/.ssh/id_ed25519.pub")
    return keys


def check_usage(session: Session, arguments: Namespace) -> None:
    """Raise UsageError for flags that contradict each other."""
    what, hint = "usage of kc vm create", "see kc vm create --help"
    if bool(arguments.network) == arguments.no_network:
        raise UsageError(what, "give --network, or --no-network for none", hint)
    if arguments.wait and not session.waits:
        raise UsageError(what, "--wait and --no-wait exclude each other", hint)
    if arguments.wait and arguments.no_start:
        raise UsageError(what, "--wait and --no-start exclude each other", hint)
    if arguments.count is None or arguments.count == 1:
        return
    for nic in arguments.network:
        if "mac" in nic or any(nic.get(family, {}).get("address") for family in ("ipv4", "ipv6")):
            raise UsageError(what, "several VMs cannot share one address", "leave mac and CIDR out with --count")


def build_document(session: Session, arguments: Namespace) -> Document:
    """Return the document that the flags ask for; a value with a unit is read as the machine type wants it."""
    spec: dict[str, Any] = {
        "image": arguments.image,
        "type": arguments.type,
        "nics": arguments.network,
        "power": "stopped" if arguments.no_start else "running",
    }
    if arguments.parameters:
        spec["parameters"] = dict(arguments.parameters)
        if has_quantities(arguments.parameters):
            spec["parameters"] = read_quantities(session, arguments.type, None, arguments.parameters)
    if arguments.disks:
        spec["disks"] = [{"sizeGiB": size} for size in arguments.disks]
    if arguments.cdrom:
        spec["cdrom"] = arguments.cdrom
    if arguments.password_hash:
        spec["passwordHash"] = arguments.password_hash
    keys = [key for given in arguments.ssh_key for key in read_keys(given)]
    if keys:
        spec["sshKeys"] = list(dict.fromkeys(keys))
    if arguments.user_data is not None:
        spec["userData"] = read_text(arguments.user_data, "--user-data")
    metadata = build_tree(arguments.meta, "--meta")
    return {"kind": VM.name, "name": arguments.name, "metadata": metadata, "spec": spec}


def run(session: Session, arguments: Namespace) -> int:
    """Make the VMs, wait as asked, print them and return the exit code."""
    check_usage(session, arguments)
    document = build_document(session, arguments)
    several = arguments.count is not None
    documents = [document]
    if several:
        documents = [{**document, "name": f"{arguments.name}-{number + 1}"} for number in range(arguments.count)]
    if len(documents) > 1:
        # All or none, as far as can be known beforehand.
        _check_all(session, arguments, documents)
    follower = Follower(session, timeout=arguments.timeout)
    accepted, errors = _accept(session, arguments, documents)
    tell_warnings(session, accepted)
    outcomes = follower.follow(accepted)
    shown, more = follower.conclude(outcomes, arguments.wait or "running")
    print_results(session, VM, shown, several=several)
    errors += more
    if len(documents) > 1 and session.waits:
        session.note(f"{len(shown)} of {plural(VM, len(documents))} made")
    return report_all(session, errors)


def _check_all(session: Session, arguments: Namespace, documents: list[Document]) -> None:
    for document in documents:
        try:
            session.service.check(document)
        except ConflictError:
            # With a key it may be there because this is what made it; the service knows.
            if not arguments.idempotency_key:
                raise


def _accept(session: Session, arguments: Namespace, documents: list[Document]) -> tuple[list[Accepted], list[KCError]]:
    """Return what was accepted up to the first error, and that error."""
    accepted: list[Accepted] = []
    for document in documents:
        try:
            accepted.append(session.service.create(document, key=key_of(arguments, document["name"])))
        except KCError as error:
            return accepted, [error]
    return accepted, []
