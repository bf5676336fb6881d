"""The parser of one command, and the forms that values take on a command line."""

from __future__ import annotations

import os
from argparse import Action, ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from backend.errors import UsageError
from backend.model.kinds import Kind

FORMATS = ("table", "json", "yaml", "name")
_MAXIMUM_HELP_WIDTH = 100
# With a slash and a name (63) after it, it is within what the service takes (200).
_LONGEST_KEY = 128
_SHOWN_COUNTS = {"+": "{}…", "*": "[{}…]", "?": "[{}]"}


def terminal_width(descriptor: int = 1) -> int:
    """Return the columns of the terminal on a file descriptor; 80 where there is none."""
    try:
        return os.get_terminal_size(descriptor).columns or 80
    except OSError:
        return 80


class _HelpFormatter(RawDescriptionHelpFormatter):
    """Help as wide as the terminal; the width is given because argparse would import shutil to find it."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=min(terminal_width(), _MAXIMUM_HELP_WIDTH) - 2)


def is_file(value: str) -> bool:
    """Return whether a value of an argument that takes files names one; `-` is standard input or output."""
    return value != "-"


class Parser(ArgumentParser):
    """The parser of one command: its errors are UsageErrors, and each argument may say how it completes.

    `files` are the arguments whose values may name a file of this machine, each with what tells whether a value does.
    """

    def __init__(self, path: str, *, text: str = "", examples: Sequence[str] = ()) -> None:
        """Make the parser of `kc PATH`, with what every command takes."""
        epilog = "\n".join(["examples:" if len(examples) > 1 else "example:", *(f"  {line}" for line in examples)])
        super().__init__(
            prog=f"kc {path}".strip(),
            description=" ".join(text.split()) or None,
            epilog=epilog if examples else None,
            formatter_class=_HelpFormatter,
            allow_abbrev=False,
            add_help=False,
        )
        self.completions: dict[str, str] = {}
        self.files: dict[str, Callable[[str], bool]] = {}
        common = self.add_argument_group("every command takes")
        common.add_argument("-h", "--help", action="help", help="show this help")
        common.add_argument("--profile", metavar="NAME", default="", help="which KC to speak to")
        common.add_argument(
            "-o", "--output", metavar="FORMAT", choices=FORMATS, default="table", help="table, json, yaml or name"
        )
        common.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
        common.add_argument(
            "--no-wait", dest="wait_for_end", action="store_false", help="return at once; the work goes on"
        )
        self.completions["profile"] = "profile"

    def add(
        self, *flags: str, complete: str = "", names_file: Callable[[str], bool] = is_file, **options: Any
    ) -> Action:
        """Add an argument; `complete` is what the shell completes it with: `file`, or what `kc __complete` knows.

        Every argument whose value may name a file says `file`; `names_file` tells whether a value does.
        """
        action = self.add_argument(*flags, **options)
        if complete:
            self.completions[action.dest] = complete
        if complete == "file":
            self.files[action.dest] = names_file
        return action

    def format_help(self) -> str:
        """Return the help, its usage short: what must be given, and that there are options."""
        import textwrap  # noqa: PLC0415 - only help wraps text

        words = [self.prog]
        for action in self._actions:
            if not action.option_strings:
                words.append(_SHOWN_COUNTS.get(str(action.nargs), "{}").format(action.metavar))
            elif action.required:
                words.append(f"{action.option_strings[-1]} {action.metavar}")
        self.usage = " ".join([*words, "[OPTION…]"])
        if self.description:
            self.description = textwrap.fill(self.description, min(terminal_width(), _MAXIMUM_HELP_WIDTH) - 2)
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        raise UsageError(f"usage of {self.prog}", message, f"see {self.prog} --help")

    def parse(self, arguments: Sequence[str]) -> Namespace:
        """Return the values of a command line, in which names and options may stand in any order."""
        options, words = self._sort(arguments)
        return self.parse_args([*options, "--", *words] if words else options)

    def _sort(self, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return options, each joined with its value, and the other words; after `--` all are words."""
        known = self._option_string_actions
        options: list[str] = []
        words: list[str] = []
        index = 0
        while index < len(arguments):
            argument, following = arguments[index], arguments[index + 1 : index + 2]
            index += 1
            if argument == "--":
                return options, [*words, *arguments[index:]]
            if not argument.startswith("-") or argument == "-":
                words.append(argument)
            elif argument in known and known[argument].nargs is None and following and following[0] not in known:
                # Joined, so that a value may begin with a hyphen.
                options.append(f"{known[argument].option_strings[-1]}={following[0]}")
                index += 1
            else:
                options.append(argument)
        return options, words


def parse_value(text: str) -> Any:
    """Return the JSON value that `text` is, or `text` itself where it is none."""
    import json  # noqa: PLC0415 - the list path parses no value

    def refuse(_constant: str) -> Any:
        raise ValueError

    def parse_number(digits: str) -> float:
        number = float(digits)
        # JSON knows no infinity, and 1e999 would become one.
        return number if number - number == 0 else refuse(digits)

    try:
        return json.loads(text, parse_constant=refuse, parse_float=parse_number)
    except (ValueError, RecursionError):
        return text


def parse_assignment(text: str) -> tuple[str, Any]:
    """Return the key and the value of `KEY=VALUE`; the value is JSON where it parses, else a string."""
    key, sign, value = text.partition("=")
    if not sign or not key:
        msg = f"{text!r} is not KEY=VALUE"
        raise ArgumentTypeError(msg)
    return key, parse_value(value)


def parse_metadata(text: str) -> tuple[list[str], Any]:
    """Return the path and the value of `K=V`, where dots in K reach inside."""
    key, value = parse_assignment(text)
    path = key.split(".")
    if not all(path):
        msg = f"{key!r} has an empty part"
        raise ArgumentTypeError(msg)
    return path, value


def build_tree(assignments: Sequence[tuple[list[str], Any]], option: str) -> dict[str, Any]:
    """Return the object that paths and values make; raise UsageError where one value stands inside another."""
    tree: dict[str, Any] = {}
    set_here: set[tuple[str, ...]] = set()
    for path, value in assignments:
        branch = tree
        for depth, part in enumerate(path[:-1], start=1):
            below = branch.setdefault(part, {})
            if tuple(path[:depth]) in set_here or not isinstance(below, dict):
                raise UsageError(option, f"{'.'.join(path[:depth])} has a value of its own", "set one or the other")
            branch = below
        if isinstance(branch.get(path[-1]), dict) and tuple(path) not in set_here:
            raise UsageError(option, f"{'.'.join(path)} has values inside already", "set one or the other")
        branch[path[-1]] = value
        set_here.add(tuple(path))
    return tree


def parse_count(text: str) -> int:
    """Return a whole number of at least 1."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        msg = f"{text!r} is not a whole number above 0"
        raise ArgumentTypeError(msg)
    return number


def parse_gibibytes(text: str) -> int:
    """Return a size in GiB of at least 1, from a figure or a figure with a unit such as `1TiB`."""
    return _parse_size(text, "GiB")


def parse_mebibytes(text: str) -> int:
    """Return a size in MiB of at least 1, from a figure or a figure with a unit such as `2GiB`."""
    return _parse_size(text, "MiB")


def _parse_size(text: str, unit: str) -> int:
    if text.isdecimal():
        return parse_count(text)
    from backend.model.parameters import parse_quantity  # noqa: PLC0415 - most sizes are plain figures

    try:
        return parse_count(str(parse_quantity(text, unit)))
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error


def parse_seconds(text: str) -> float:
    """Return a time in seconds, above 0 and finite."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        msg = f"{text!r} is not a number of seconds above 0"
        raise ArgumentTypeError(msg)
    return seconds


def add_metadata(parser: Parser) -> None:
    """Add `--meta`."""
    parser.add(
        "--meta",
        metavar="K=V",
        action="append",
        default=[],
        type=parse_metadata,
        help="your own metadata, JSON or text; dots in K reach inside",
    )


def add_timeout(parser: Parser) -> None:
    """Add `--timeout`."""
    parser.add("--timeout", metavar="S", type=parse_seconds, help="wait no longer than S seconds; the work goes on")


def add_message(parser: Parser) -> None:
    """Add `--message`."""
    parser.add("--message", metavar="TEXT", default="", help="why, for the history")


def add_if_version(parser: Parser, kind: Kind) -> None:
    """Add `--if-version`."""
    parser.add(
        "--if-version", metavar="N", type=parse_count, complete=f"{kind.command}:versions",
        help="only where N is the version that it has; else exit 4 and show the difference",
    )  # fmt: skip


def _parse_key(text: str) -> str:
    if not text or len(text) > _LONGEST_KEY or not text.isprintable():
        msg = f"it has 1 to {_LONGEST_KEY} characters, all printable"
        raise ArgumentTypeError(msg)
    return text


def add_idempotency_key(parser: Parser) -> None:
    """Add `--idempotency-key`."""
    parser.add(
        "--idempotency-key", metavar="K", type=_parse_key,
        help="a word of yours: for a week the same command with it does nothing more, and prints the same",
    )  # fmt: skip


def key_of(arguments: Namespace, name: str) -> str:
    """Return the idempotency key for what a command does to the object of a name; empty where none was given."""
    given = getattr(arguments, "idempotency_key", None)
    return f"{given}/{name}" if given else ""


def add_yes(parser: Parser) -> None:
    """Add `--yes`."""
    parser.add("-y", "--yes", action="store_true", help="do not ask")


def add_dry_run(parser: Parser) -> None:
    """Add `--dry-run`."""
    parser.add("--dry-run", action="store_true", help="show what would change, and change nothing")


def add_selector(parser: Parser) -> None:
    """Add `-l`."""
    parser.add("-l", "--selector", metavar="SELECTOR", help="those that match, such as tenant=acme")
