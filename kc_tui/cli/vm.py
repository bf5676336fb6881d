"""`kc vm`: virtual machines."""

from __future__ import annotations

from argparse import Namespace

from backend.model.kinds import VM
from kc_tui.cli.arguments import Parser
from kc_tui.cli.commands import Command
from kc_tui.cli.session import Session
from kc_tui.cli.verbs import delete_command, kept_commands, list_command, show_command

_CREATE_TEXT = """Make a VM and start it. It waits until the VM runs; with --wait ready, until the guest has its
addresses and its agent answers. A creation that fails leaves nothing behind. A network may be followed, after commas,
by ipv4=MODE or ipv4=CIDR, the same of ipv6, and mac=M; MODE is network, none, dhcp, slaac or dhcpv6, a CIDR is a
static address."""


def _add_create_arguments(parser: Parser) -> None:
    from kc_tui.cli.vm_create import add_arguments  # noqa: PLC0415 - only the chosen parser is built

    add_arguments(parser)


def _create(session: Session, arguments: Namespace) -> int:
    from kc_tui.cli.vm_create import create  # noqa: PLC0415 - as above

    return create(session, arguments)


def _add_console_arguments(parser: Parser) -> None:
    parser.add("name", metavar="NAME", complete="vm", help="which VM")
    parser.add("--log", action="store_true", help="print what the console has said so far, and end")


def _console(session: Session, arguments: Namespace) -> int:
    from kc_tui.cli.console import open_console, print_log  # noqa: PLC0415 - only consoles need termios

    return print_log(session, arguments.name) if arguments.log else open_console(session, arguments.name)


def _add_nic_arguments(parser: Parser) -> None:
    from kc_tui.cli.nic import add_arguments  # noqa: PLC0415 - only the chosen parser is built

    add_arguments(parser)


def _change_nics(session: Session, arguments: Namespace) -> int:
    from kc_tui.cli.nic import run  # noqa: PLC0415 - as above

    return run(session, arguments)


def _action_command(action: str, summary: str, force: str, example: str) -> Command:
    def add_arguments(parser: Parser) -> None:
        from kc_tui.cli.vm_power import add_arguments as add  # noqa: PLC0415 - only the chosen parser is built

        add(parser, action, force)

    def run(session: Session, arguments: Namespace) -> int:
        from kc_tui.cli.vm_power import act  # noqa: PLC0415 - as above

        return act(session, action, arguments)

    return Command(summary, add_arguments, run, f"{summary.capitalize()}.", (example,))


COMMANDS = {
    "create": Command(
        "make a VM and start it",
        _add_create_arguments,
        _create,
        _CREATE_TEXT,
        (
            "kc vm create web --image starter --network default --type tiny --wait ready",
            "kc vm create db --image debian --network lab,ipv4=10.0.0.5/24 --type small --set memoryMiB=4096",
            "kc vm create lab --image debian --network default --type tiny --ssh-key ~/.ssh/id_ed25519.pub --count 3",
        ),
    ),
    "list": list_command(VM, "kc vm create NAME --image I --network N --type T"),
    "show": show_command(VM),
    "start": _action_command("start", "start VMs that are off", "", "kc vm start web"),
    "stop": _action_command(
        "stop", "shut VMs down", "cut the power where the guest does not shut down", "kc vm stop -l tenant=acme"
    ),
    "reboot": _action_command("reboot", "reboot VMs", "reset at once, without asking the guest", "kc vm reboot web"),
    **kept_commands(VM),
    "nic": Command(
        "list, add and remove the NICs of a VM",
        _add_nic_arguments,
        _change_nics,
        "List the NICs of a VM, add some, or remove some, while it runs or not.",
        (
            "kc vm nic list web",
            "kc vm nic add web --network lab,ipv4=10.20.0.5/24",
            "kc vm nic remove web nic1",
        ),
    ),
    "delete": delete_command(VM),
    "console": Command(
        "speak to a VM's serial console",
        _add_console_arguments,
        _console,
        "Speak to a VM's serial console; ctrl-] leaves. With --log: print what it has said so far.",
        ("kc vm console web", "kc vm console web --log"),
        finishes=False,
    ),
}
