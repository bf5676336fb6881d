"""Cloud-config: where it stands in user-data, how it is read, and what cloud-init's own schema says of it.

Source: cloud-init's user-data formats, and its JSON Schema as it stands in `schemas` beside this file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from backend.errors import RefusedError
from backend.text import sanitise

if TYPE_CHECKING:
    from jsonschema.exceptions import ValidationError

WHAT: Final = "user-data"
CLOUD_CONFIG: Final = "#cloud-config"
MAXIMUM_WARNINGS: Final = 20

_SCHEMAS: Final = Path(__file__).parent / "schemas"
_MAXIMUM_DEPTH: Final = 64
# cloud-init takes a text for MIME where this stands in its first 4 KiB.
_MIME_MARK: Final = "mime-version:"
_MIME_REACH: Final = 4096
# What a part is where its type leaves that to its beginning, the longer beginnings first.
_BEGINNINGS: Final = {
    "## template: jinja": "text/jinja2",
    "#cloud-config-archive": "text/cloud-config-archive",
    "#cloud-config-jsonp": "text/cloud-config-jsonp",
    CLOUD_CONFIG: "text/cloud-config",
}
_UNDECIDED: Final = ("text/plain", "text/x-not-multipart", "text/x-shellscript")
# Beyond these, a check takes longer than anybody waits: some of the schema's patterns take quadratic time.
_MAXIMUM_CHECKED_NODES: Final = 20_000
_MAXIMUM_CHECKED_TEXT: Final = 200
_LONGEST_FINDING: Final = 300
_MOST_ALTERNATIVES: Final = 3


class Config(NamedTuple):
    """A cloud-config that was read; `has_aliases` where YAML's `*NAME` stands in it."""

    values: dict[str, Any]
    has_aliases: bool


class Part(NamedTuple):
    """The text of a cloud-config in user-data; a template becomes one in the guest, and need not be YAML yet."""

    text: str
    is_template: bool = False


# --- where it stands


def is_mime(text: str) -> bool:
    """Return whether cloud-init takes a text for a MIME archive."""
    return _MIME_MARK in text[:_MIME_REACH].lower()


def find_parts(text: str) -> list[Part]:
    """Return every cloud-config in a user-data, also those in archives; raise RefusedError for a bad archive."""
    if not is_mime(text):
        return _find_in("text/plain", text)
    from email import message_from_string  # noqa: PLC0415 - only who has an archive pays for it

    found = []
    for part in message_from_string(text).walk():
        payload = part.get_payload(decode=True)
        if isinstance(payload, bytes):
            found += _find_in(part.get_content_type(), payload.decode(errors="replace"))
    return found


def _find_in(kind: str, text: str) -> list[Part]:
    if kind in _UNDECIDED:
        kind = _kind_of(text, kind)
    if kind == "text/cloud-config":
        return [Part(text)]
    if kind == "text/jinja2":
        body = text.lstrip().partition("\n")[2]
        return [Part(body, is_template=True)] if _kind_of(body, "") == "text/cloud-config" else []
    return _find_in_archive(text) if kind == "text/cloud-config-archive" else []


def _kind_of(text: str, otherwise: str) -> str:
    start = text.lstrip()[:40].lower()
    return next((kind for beginning, kind in _BEGINNINGS.items() if start.startswith(beginning)), otherwise)


def _find_in_archive(text: str) -> list[Part]:
    """Return the cloud-configs of a `#cloud-config-archive`: a YAML list of texts, or of mappings with `content`."""
    entries = _load_yaml(text)[0]
    if not isinstance(entries, list):
        raise RefusedError(WHAT, "its cloud-config-archive is no list", "write - content: | entries")
    found = []
    for entry in entries:
        whole = entry if isinstance(entry, dict) else {"content": entry}
        content, kind = whole.get("content"), whole.get("type")
        if isinstance(content, str):
            kind = str(kind) if kind else _kind_of(content, "text/cloud-config")
            # cloud-init looks for no archive in an archive.
            found += _find_in(kind, content) if kind != "text/cloud-config-archive" else []
    return found


# --- how it is read


@lru_cache(maxsize=4)
def load_config(text: str) -> Config:
    """Return a cloud-config as the mapping that it is, not to be changed; raise RefusedError naming a fault's line."""
    config, has_aliases = _load_yaml(text)
    if not isinstance(config, dict | None):
        raise RefusedError(WHAT, "its cloud-config is no mapping", "write KEY: VALUE lines")
    return Config(config or {}, has_aliases)


def load_configs(text: str) -> list[dict[str, Any]]:
    """Return every cloud-config in a user-data; templates only where they are YAML already; raise RefusedError."""
    found = []
    for part in find_parts(text):
        try:
            found.append(load_config(part.text).values)
        except RefusedError:
            if not part.is_template:
                raise
    return found


def _load_yaml(text: str) -> tuple[Any, bool]:
    """Return what a YAML text says, and whether it has aliases; raise RefusedError naming the line of a fault."""
    import yaml  # noqa: PLC0415 - only who has user-data pays for it

    try:
        has_aliases = _scan(yaml.parse(text, Loader=yaml.SafeLoader))
        return yaml.safe_load(text), has_aliases
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        problem = sanitise(error.problem or error.context or "not YAML", 120)
        raise RefusedError(WHAT, f"{line}{problem}", "see cloud-init's documentation of cloud-config") from error
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError) as error:
        # A character that YAML has no place for, or a value that is not of its tag's type: none says its line.
        raise RefusedError(WHAT, f"no YAML: {sanitise(error, 120)}", "correct the value") from error


def _scan(events: Iterator[Any]) -> bool:
    """Return whether YAML has aliases; raise RefusedError where it nests deeper than readers can bear."""
    import yaml  # noqa: PLC0415 - as above

    depth, has_aliases = 0, False
    for event in events:
        has_aliases = has_aliases or isinstance(event, yaml.AliasEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAXIMUM_DEPTH:
            line = event.start_mark.line + 1
            raise RefusedError(WHAT, f"line {line}: it nests deeper than {_MAXIMUM_DEPTH} levels", "make it flatter")
    return has_aliases


# --- what the schema says


def find_warnings(text: str) -> list[str]:
    """Return what cloud-init's schema finds wrong with the cloud-config in a user-data: lines for a person.

    At most `MAXIMUM_WARNINGS` and a line that says that there are more; templates are not looked at. Raises
    RefusedError where a part cannot be read.
    """
    parts = [part for part in find_parts(text) if not part.is_template]
    found: list[str] = []
    for number, part in enumerate(parts, start=1):
        place = f"part {number}: " if len(parts) > 1 else ""
        found += [f"{place}{line}" for line in _find_faults(load_config(part.text).values)]
        if len(found) > MAXIMUM_WARNINGS:
            return [*found[:MAXIMUM_WARNINGS], "there is more that does not fit cloud-init's schema"]
    return found


class _TooLargeError(Exception):
    """A cloud-config is too large to be checked."""


def _find_faults(config: dict[str, Any]) -> list[str]:
    try:
        value = _Copy().copy(config, 0)
    except _TooLargeError:
        return ["too large to be checked against cloud-init's schema"]
    lines = (_describe(error) for error in _validator().iter_errors(value))
    return list(dict.fromkeys(islice(lines, MAXIMUM_WARNINGS + 1)))


class _Copy:
    """Makes a JSON value out of a YAML one, whose aliases may have made it endless."""

    def __init__(self) -> None:
        self._nodes = 0

    def copy(self, value: Any, depth: int) -> Any:
        """Return the value with its texts cut short, which no rule of the schema sees; raise _TooLargeError."""
        self._nodes += 1
        if self._nodes > _MAXIMUM_CHECKED_NODES or depth > _MAXIMUM_DEPTH:
            raise _TooLargeError
        if isinstance(value, dict):
            return {str(key)[:_MAXIMUM_CHECKED_TEXT]: self.copy(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | set | tuple):
            return [self.copy(item, depth + 1) for item in value]
        if isinstance(value, bytes):
            return value[:_MAXIMUM_CHECKED_TEXT].decode("latin-1")
        return value[:_MAXIMUM_CHECKED_TEXT] if isinstance(value, str) else value


@cache
def _validator() -> Any:
    """Return the validator of cloud-init's schema; reading it costs some 10 ms, jsonschema 0.1 s."""
    from jsonschema import Draft4Validator  # noqa: PLC0415 - only who has user-data pays for it

    return Draft4Validator(load_schema("schema-cloud-config-v1.json"))


def load_schema(name: str) -> dict[str, Any]:
    """Return one of the schemas that cloud-init publishes, by its file's name."""
    schema: dict[str, Any] = json.loads((_SCHEMAS / name).read_text("utf-8"))
    return schema


def _describe(error: ValidationError) -> str:
    """Return where a fault is and what it is; where none of several alternatives fits, what is wrong deepest inside."""
    leaves = list(_find_leaves(error))
    nearest = max(leaves, key=lambda leaf: len(leaf.absolute_path))
    beside = [leaf for leaf in leaves if leaf.absolute_path == nearest.absolute_path]
    # That an alternative is for a value of another type says least.
    told = [leaf for leaf in beside if leaf.validator != "type"] or beside
    faults = dict.fromkeys(sanitise(leaf.message, _LONGEST_FINDING) for leaf in told)
    text = sanitise(" or ".join(islice(faults, _MOST_ALTERNATIVES)), _LONGEST_FINDING)
    path = ".".join(str(part) for part in nearest.absolute_path)
    return f"{sanitise(path, _LONGEST_FINDING)}: {text}" if path else text


def _find_leaves(error: ValidationError) -> Iterator[ValidationError]:
    for inner in error.context or ():
        yield from _find_leaves(inner)
    if not error.context:
        yield error
