"""`kc vm`: virtual machines."""

from __future__ import annotations

from argparse import Namespace

from backend.model.kinds import VM
from kc_tui.cli.arguments import Parser
from kc_tui.cli.commands import Command, Noun, late_command
from kc_tui.cli.session import Session
from kc_tui.cli.verbs import delete_command, kept_commands, list_command, show_command

_CREATE_TEXT = """Make a VM and start it. It waits until the VM runs; with --wait ready, until the guest has its
addresses and its agent answers. A creation that fails leaves nothing behind. With --count each is accepted before any
is waited for; what came of each is said."""


def _add_console_arguments(parser: Parser) -> None:
    parser.add("name", metavar="NAME", complete="vm", help="which VM")
    parser.add("--log", action="store_true", help="print what the console has said so far, and end")


def _console(session: Session, arguments: Namespace) -> int:
    from kc_tui.cli.console import open_console, print_log  # noqa: PLC0415 - only consoles need termios

    return print_log(session, arguments.name) if arguments.log else open_console(session, arguments.name)


def _action_command(action: str, summary: str, force: str, example: str) -> Command:
    def add_arguments(parser: Parser) -> None:
        from kc_tui.cli.vm_power import add_arguments as add  # noqa: PLC0415 - only the chosen parser is built

        add(parser, action, force)

    def run(session: Session, arguments: Namespace) -> int:
        from kc_tui.cli.vm_power import act  # noqa: PLC0415 - as above

        return act(session, action, arguments)

    return Command(summary, add_arguments, run, f"{summary.capitalize()}.", (example,))


COMMANDS: dict[str, Command | Noun] = {
    "create": late_command(
        "vm_create",
        "make a VM and start it",
        _CREATE_TEXT,
        (
            "kc vm create web --image starter --network default --type tiny --wait ready",
            "kc vm create db --image debian --network lab,ipv4=10.0.0.5/24 --type small --set memoryMiB=4096",
            "kc vm create fw --image debian --type tiny --network default --network lab,ipv4=static,antispoof=mac",
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
    "pause": _action_command("pause", "have VMs stand still", "", "kc vm pause web"),
    "resume": _action_command("resume", "have VMs that were paused go on", "", "kc vm resume -l tenant=acme"),
    **kept_commands(VM),
    "resize": late_command(
        "resize",
        "give a VM more or less CPU, memory and disk",
        "Give a VM more or less CPU, memory and disk, within what its machine type allows. What cannot be done while "
        "it runs waits for its next restart, and is said.",
        (
            "kc vm resize web --cpus 2 --memory 2048",
            "kc vm resize web --disk 40",
            "kc vm resize web --set memoryMiB=2GiB",
        ),
    ),
    "rename": late_command(
        "rename",
        "give a VM another name",
        "Give a VM another name. One that runs keeps its own on the host until its next start.",
        ("kc vm rename web www",),
    ),
    "clone": late_command(
        "clone",
        "make a VM like another",
        "Make a VM like another, with copies of its disks and a uid, MACs and a host name of its own. It stays off "
        "unless --start is given.",
        ("kc vm clone web web-2 --start --wait ready", "kc vm clone web trial --meta tenant=acme"),
    ),
    "adopt": late_command(
        "adopt",
        "take an existing libvirt domain under management",
        "Take an existing libvirt domain under management. It shows what KC will manage and what stays as it is, and "
        "asks; without a terminal it needs --yes.",
        ("kc vm adopt old-server --dry-run", "kc vm adopt old-server --name web --yes"),
    ),
    "reconcile": late_command(
        "reconcile",
        "mend what somebody else changed on the host",
        "Show where VMs are not as their documents say, because somebody else was at them, and make them so again.",
        ("kc vm reconcile web", "kc vm reconcile -l tenant=acme"),
    ),
    "nic": Noun("nic", "the NICs of a VM: list, add, set, remove"),
    "disk": Noun("disk", "the disks of a VM: list, add, grow, remove"),
    "cd": Noun("cdrom", "the CD-ROM drive of a VM: insert, eject"),
    "snapshot": Noun("snapshot", "the snapshots of a VM: create, list, restore, delete"),
    "delete": delete_command(VM),
    "console": Command(
        "speak to a VM's serial console",
        _add_console_arguments,
        _console,
        "Speak to a VM's serial console; ctrl-] leaves. With --log: print what it has said so far.",
        ("kc vm console web", "kc vm console web --log"),
        finishes=False,
    ),
    "viewer": late_command(
        "viewer",
        "look at a VM's screen",
        "Look at a VM's screen in a viewer for VNC that is installed. With --print, or where there is none, it prints "
        "an address of this machine for any viewer, and serves it until ctrl-c.",
        ("kc vm viewer web", "kc vm viewer web --print"),
        finishes=False,
    ),
    "screenshot": late_command(
        "screenshot",
        "save a picture of a VM's screen",
        "Save a picture of a VM's screen as PNG.",
        ("kc vm screenshot web web.png",),
        finishes=False,
    ),
}
