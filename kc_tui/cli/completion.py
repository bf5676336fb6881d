"""`kc completion`: what a shell needs to complete kc's command lines, made from the parsers themselves."""

from __future__ import annotations

import sys
from argparse import SUPPRESS, Action, Namespace
from typing import NamedTuple

from kc_tui.cli.arguments import Parser
from kc_tui.cli.commands import NOUNS, Command, Noun, load_commands, visible_nouns, walk_commands
from kc_tui.cli.session import Session

SHELLS = ("bash", "zsh", "fish")


class Value(NamedTuple):
    """What completes a value: `kind` is names (`words` holds what `kc __complete` is asked for), words, files or free.

    `repeats`: more words like it may follow.
    """

    kind: str
    words: tuple[str, ...] = ()
    repeats: bool = False


class Option(NamedTuple):
    """An option: its flags, what completes its value (None: it takes none), and its help."""

    flags: tuple[str, ...]
    value: Value | None
    help: str


class Line(NamedTuple):
    """A command, or a noun with verbs: `path` is its words after kc, `words` what may come next, with help."""

    path: str
    words: tuple[tuple[str, str], ...] = ()
    options: tuple[Option, ...] = ()
    arguments: tuple[Value, ...] = ()


def _describe_value(parser: Parser, action: Action) -> Value:
    repeats = action.nargs in ("+", "*")
    if action.choices is not None:
        return Value("words", tuple(str(choice) for choice in action.choices if choice is not None), repeats)
    completed = parser.completions.get(action.dest, "")
    if completed == "file":
        return Value("files", (), repeats)
    return Value("names", (completed,), repeats) if completed else Value("free", (), repeats)


def _describe_command(path: str, command: Command) -> Line:
    from kc_tui.cli.main import build_parser  # noqa: PLC0415 - main knows this module by name only

    parser = build_parser(path, command)
    options, arguments = [], []
    for action in parser._actions:  # noqa: SLF001 - argparse has no other way to list what a parser knows
        if action.help == SUPPRESS:
            continue
        if action.option_strings:
            value = None if action.nargs == 0 else _describe_value(parser, action)
            options.append(Option(tuple(action.option_strings), value, action.help or ""))
        else:
            arguments.append(_describe_value(parser, action))
    return Line(path, (), tuple(options), tuple(arguments))


def describe_commands() -> list[Line]:
    """Return every command that people are told about."""
    nouns = [(noun, NOUNS[noun].summary) for noun in visible_nouns()]
    common = tuple(option for option in _describe_command("", Command("", lambda _parser: None, _print)).options)
    lines = [Line("", tuple(nouns), common)]
    for noun, _summary in nouns:
        for path, entry in walk_commands(noun, NOUNS[noun]):
            if isinstance(entry, Noun):
                verbs = tuple((verb, below.summary) for verb, below in load_commands(entry).items())
                lines.append(Line(path, verbs, common))
            else:
                lines.append(_describe_command(path, entry))
    return lines


def _add_arguments(parser: Parser) -> None:
    parser.add("shell", metavar="SHELL", choices=SHELLS, help="bash, zsh or fish")


def _print(_session: Session, arguments: Namespace) -> int:
    from kc_tui.cli import completion_scripts  # noqa: PLC0415 - describing needs no scripts

    write = {
        "bash": completion_scripts.write_bash,
        "zsh": completion_scripts.write_zsh,
        "fish": completion_scripts.write_fish,
    }[arguments.shell]
    sys.stdout.write(write(describe_commands()))
    return 0


COMMANDS = {
    "": Command(
        "completion for bash, zsh or fish",
        _add_arguments,
        _print,
        "Print what a shell needs to complete kc's commands, options and names.",
        (
            "source <(kc completion bash)          # in ~/.bashrc",
            "source <(kc completion zsh)           # in ~/.zshrc, after compinit",
            "kc completion fish > ~/.config/fish/completions/kc.fish",
        ),
        finishes=False,
    )
}
