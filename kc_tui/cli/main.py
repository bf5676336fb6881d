"""From a command line to a command: which one it is, its options, its errors, its exit code."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import TYPE_CHECKING, NamedTuple

from backend.errors import FailedError, KCError, UsageError
from kc_tui.cli.arguments import Parser
from kc_tui.cli.commands import NOUNS, Command, Noun, load_commands, visible_nouns
from kc_tui.cli.reporting import report_error, wants_json
from kc_tui.cli.session import Session

if TYPE_CHECKING:
    from kc_tui.cli.session import Application, Opener
    from kc_tui.visitor import Visitor

EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
# Options that stand before the command and take a value.
_VALUED = ("-o", "--output", "--profile")


class _Runner(NamedTuple):
    """What a command is run with; see `run`."""

    open_service: Opener | None
    open_application: Application | None
    visitor: Visitor | None


def run(
    arguments: Sequence[str],
    open_service: Opener | None = None,
    open_application: Application | None = None,
    visitor: Visitor | None = None,
) -> int:
    """Run one command line and return its exit code.

    `open_service` opens another service than the settings name, `open_application` is what `kc` alone opens. For a
    `visitor`, no user of this machine, only what `confinement` says is there.
    """
    _mend_streams()
    arguments = list(arguments)
    as_json = wants_json(arguments)
    try:
        code = _dispatch(arguments, _Runner(open_service, open_application, visitor))
        sys.stdout.flush()
    except KCError as error:
        return report_error(error, as_json=as_json)
    except KeyboardInterrupt as error:
        return 128 + int(error.signal_number) if hasattr(error, "signal_number") else EXIT_INTERRUPTED
    except BrokenPipeError:
        return _end_quietly(EXIT_BROKEN_PIPE)
    except OSError as error:
        # Only what writes to stdout raises it: the backend's errors are KCErrors.
        if error.errno not in _NO_ROOM:
            raise
        report_error(FailedError("standard output", str(error.strerror).lower()), as_json=as_json)
        return _end_quietly(FailedError.exit_code)
    return code


def _mend_streams() -> None:
    """Let what a terminal's encoding lacks be written all the same, and closed streams lead nowhere."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - open as long as the process
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - as above
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _end_quietly(code: int) -> int:
    """Lead stdout nowhere, for Python flushes it once more at its end, and return the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def split_front(arguments: list[str]) -> tuple[list[str], str, list[str]]:
    """Return the options before the first word, that word (empty where there is none), and the rest."""
    index = 0
    while index < len(arguments) and arguments[index].startswith("-") and arguments[index] != "--":
        index += 2 if arguments[index] in _VALUED else 1
    return arguments[:index], "".join(arguments[index : index + 1]), arguments[index + 1 :]


def _dispatch(arguments: list[str], runner: _Runner) -> int:
    front, noun, rest = split_front(arguments)
    nouns = visible_nouns()
    if runner.visitor is not None:
        from kc_tui.cli.confinement import served_nouns  # noqa: PLC0415 - most runs are at home

        nouns = served_nouns()
    if "-h" in front or "--help" in front:
        print(_describe_root(nouns))
        return 0
    if "--version" in front:
        return _print_version(front)
    if not noun:
        return _open_application(front, nouns, runner)
    if noun not in NOUNS:
        raise UsageError("usage of kc", f"no command {noun!r}", _suggest(noun, nouns, "kc --help"))
    return _descend(noun, NOUNS[noun], front, rest, runner)


def _descend(path: str, noun: Noun, front: list[str], rest: list[str], runner: _Runner) -> int:
    """Run what the words after a noun ask for; `front` are the options before them."""
    commands = load_commands(noun)
    entry = commands.get("")
    if isinstance(entry, Command):
        return _run_command(path, entry, front + rest, runner)
    more, verb, rest = split_front(rest)
    if "-h" in more or "--help" in more:
        if runner.visitor is not None:
            from kc_tui.cli.confinement import served_commands  # noqa: PLC0415 - most runs are at home

            commands = served_commands(path, commands) or commands
        print(_describe_noun(path, noun, commands))
        return 0
    if verb not in commands:
        why = f"no verb {verb!r}" if verb else "a verb is missing"
        raise UsageError(f"usage of kc {path}", why, _suggest(verb, list(commands), f"kc {path} --help"))
    entry = commands[verb]
    if isinstance(entry, Noun):
        return _descend(f"{path} {verb}", entry, front + more, rest, runner)
    return _run_command(f"{path} {verb}", entry, front + more + rest, runner)


def _run_command(path: str, command: Command, arguments: list[str], runner: _Runner) -> int:
    if runner.visitor is not None:
        from kc_tui.cli.confinement import check_path, check_values  # noqa: PLC0415 - most runs are at home

        check_path(path)
    parser = build_parser(path, command)
    try:
        values = parser.parse(arguments)
    except SystemExit:  # argparse has printed the help that was asked for
        return 0
    finishes = command.finishes
    if runner.visitor is not None:
        check_values(parser, values)
        # What an earlier process left is nothing that a visitor is to wait for, or to hear of.
        finishes = False
    with Session(
        values,
        runner.open_service,
        finishes=finishes,
        visitor=runner.visitor,
        open_application=runner.open_application,
    ) as session:
        return command.run(session, values)


def build_parser(path: str, command: Command) -> Parser:
    """Return the parser of one command."""
    parser = Parser(path, text=command.text or command.summary, examples=command.examples)
    command.add_arguments(parser)
    return parser


def _print_version(front: list[str]) -> int:
    from backend import __version__  # noqa: PLC0415 - as everywhere: what is not needed is not imported

    values = Parser("").parse([argument for argument in front if argument != "--version"])
    if values.output in ("json", "yaml"):
        from kc_tui.cli.output import print_data  # noqa: PLC0415

        print_data(Session(values), {"version": __version__})
    else:
        print(f"kc {__version__}")
    return 0


def _open_application(front: list[str], nouns: Sequence[str], runner: _Runner) -> int:
    values = Parser("").parse(front)
    if values.output != "table" or not (sys.stdin and sys.stdin.isatty() and sys.stdout.isatty()):
        if values.output == "table":
            print(_describe_root(nouns), file=sys.stderr)
        raise UsageError("usage of kc", "without a command it needs a terminal", "see kc --help")
    if runner.open_application is None:
        raise UsageError("usage of kc", "a command is missing", "see kc --help")
    return runner.open_application(Session(values).settings, runner.visitor)


def _suggest(word: str, known: list[str], otherwise: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only for a mistake

    close = get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}? see {otherwise}" if close else f"known are {', '.join(known)}"


def _list_lines(entries: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _summary in entries)
    return [f"  {name:<{width}}  {summary}" for name, summary in entries]


def _describe_root(nouns: Sequence[str]) -> str:
    lines = [
        "KC manages virtual machines from a terminal, over libvirt.",
        "",
        "usage: kc                     open KC on this terminal",
        "       kc COMMAND …           do one thing; kc COMMAND --help says more",
        "       kc --version",
        "",
        "commands:",
        *_list_lines([(noun, NOUNS[noun].summary) for noun in nouns]),
        "",
        "every command takes:",
        *_list_lines(
            [
                ("-o FORMAT", "table (the default), json, yaml or name; data goes to stdout, all else to stderr"),
                ("-q", "say nothing but errors"),
                ("--no-wait", "return at once; the work goes on"),
                ("--profile NAME", "which KC to speak to"),
            ]
        ),
        "",
        "examples:",
        "  kc init",
        "  kc vm create web --image starter --network default --type tiny --wait ready",
        "  kc vm list -l tenant=acme",
    ]
    return "\n".join(lines)


def _describe_noun(path: str, noun: Noun, commands: dict[str, Command | Noun]) -> str:
    lines = [
        f"kc {path}: {noun.summary}",
        "",
        f"usage: kc {path} VERB …       kc {path} VERB --help says more",
        "",
        "verbs:",
        *_list_lines([(verb, entry.summary) for verb, entry in commands.items()]),
    ]
    examples = [entry.examples[0] for entry in commands.values() if isinstance(entry, Command) and entry.examples]
    if examples:
        lines += ["", "examples:", *(f"  {example}" for example in examples)]
    return "\n".join(lines)
