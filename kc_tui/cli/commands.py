"""The tree of commands: what each noun is called, where it lives, and what a command is made of.

A noun's module is imported when it is asked for, and only the parser of the chosen command is built. A noun's verb may
be a noun itself: `kc vm disk` has verbs of its own.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import NamedTuple

from kc_tui.cli.arguments import Parser
from kc_tui.cli.session import Session


class Command(NamedTuple):
    """One command.

    `summary` is its line in a list of commands, `text` what its own help says first, `examples` whole command lines.
    `finishes`: it first brings to their ends the operations in which an earlier process was killed.
    """

    summary: str
    add_arguments: Callable[[Parser], None]
    run: Callable[[Session, Namespace], int]
    text: str = ""
    examples: tuple[str, ...] = ()
    finishes: bool = True


class Noun(NamedTuple):
    """A word after `kc`: the module that has its commands, and its line in the list; hidden ones have none."""

    module: str
    summary: str


NOUNS: dict[str, Noun] = {
    "init": Noun("setup", "make the default network, machine types and starter image"),
    "doctor": Noun("doctor", "say what works here, what does not, and what mends it"),
    "vm": Noun("vm", "virtual machines"),
    "image": Noun("image", "disk images that VMs are made from"),
    "network": Noun("network", "networks that VMs are joined to"),
    "type": Noun("machine_type", "machine types: templates for VMs"),
    "trash": Noun("trash", "deleted objects, until they are gone for good"),
    "op": Noun("op", "operations: what KC is doing, and has done"),
    "token": Noun("token", "tokens: what a service is shown instead of a password"),
    "apply": Noun("applying", "make or change objects from files of documents"),
    "watch": Noun("watching", "print changes as they happen, one JSON event a line"),
    "schema": Noun("schema", "the JSON Schema of the documents"),
    "export": Noun("exporting", "write the whole store, history included, as JSON lines"),
    "import": Noun("importing", "take an export into an empty store"),
    "store": Noun("store", "the store of the documents: look at it, check, compact and copy it"),
    "serve": Noun("serve", "serve this machine's KC over HTTP"),
    "auth": Noun("auth", "who decides what a request may do: look at it, and explain a decision"),
    "audit": Noun("audit", "the audit trail: who asked for what, and what became of it"),
    "ssh-console": Noun("ssh_console", "an sshd configuration that serves KC and nothing else, and its keys"),
    "profile": Noun("profile", "which KCs there are to speak to: this machine's, and others over HTTP"),
    "login": Noun("login", "keep a credential for a remote profile"),
    "logout": Noun("logout", "forget the credential of a remote profile"),
    "completion": Noun("completion", "completion for bash, zsh or fish"),
    "__complete": Noun("complete", ""),
    "__resume": Noun("worker", ""),
    "__ssh-keys": Noun("ssh_lines", ""),
    "__ssh-shell": Noun("ssh_shell", ""),
}


def load_commands(noun: Noun) -> dict[str, Command | Noun]:
    """Return a noun's commands by verb; a noun that is itself the command has it under the empty verb."""
    commands: dict[str, Command | Noun] = import_module(f"kc_tui.cli.{noun.module}").COMMANDS
    return commands


def walk_commands(path: str, noun: Noun) -> Iterator[tuple[str, Command | Noun]]:
    """Yield a noun and everything below it, each with its words after `kc`; what is above comes first."""
    commands = load_commands(noun)
    if "" in commands:
        yield path, commands[""]
        return
    yield path, noun
    for verb, entry in commands.items():
        if isinstance(entry, Noun):
            yield from walk_commands(f"{path} {verb}", entry)
        else:
            yield f"{path} {verb}", entry


def late_command(
    module: str, summary: str, text: str = "", examples: tuple[str, ...] = (), *, finishes: bool = True
) -> Command:
    """Return a command whose module, with its `add_arguments` and `run`, is imported when it is asked for."""

    def add_arguments(parser: Parser) -> None:
        import_module(f"kc_tui.cli.{module}").add_arguments(parser)

    def run(session: Session, arguments: Namespace) -> int:
        code: int = import_module(f"kc_tui.cli.{module}").run(session, arguments)
        return code

    return Command(summary, add_arguments, run, text, examples, finishes)


def visible_nouns() -> list[str]:
    """Return the nouns that people are told about."""
    return [noun for noun, entry in NOUNS.items() if entry.summary]
