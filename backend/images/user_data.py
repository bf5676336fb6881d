"""The user-data of a VM: what cloud-init will take, and how the SSH keys join it.

Source: cloud-init's user-data formats and its merging of parts. The user's own text is never rewritten: the keys are
added behind it, or both travel as parts of a MIME archive.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from backend.errors import RefusedError
from backend.text import sanitise

MAXIMUM_BYTES = 256 << 10
CLOUD_CONFIG = "#cloud-config"

_WHAT = "user-data"
_KEYS = "ssh_authorized_keys"
_MAXIMUM_DEPTH = 64
# First words that cloud-init acts on, except cloud-config's own.
_HEADERS = frozenset(
    {
        "#cloud-config-archive", "#cloud-config-jsonp", "#cloud-boothook",
        "#include", "#include-once", "#part-handler",
    }
)  # fmt: skip
_KINDS_HINT = "begin it with #cloud-config, #! or another header of cloud-init, or make it a MIME archive"
# cloud-init takes a text for MIME where this stands in its first 4 KiB.
_MIME_MARK = "mime-version:"
_MIME_HEADER = re.compile(r"[A-Za-z-]+:")
_MIME_REACH = 4096
_MERGE = "list(append)+dict(no_replace,recurse_list)+str()"
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_SSH_KEY = re.compile(r"(\S.* )?(ssh-|ecdsa-|sk-)\S+ [A-Za-z0-9+/=]+( .*)?")


def check_ssh_key(key: str) -> str:
    """Return a public key without the white space around it; raise RefusedError where it is none."""
    stripped = key.strip()
    if _UNPRINTABLE.search(stripped) or not _SSH_KEY.fullmatch(stripped):
        raise RefusedError("SSH key", f"not a public key: {sanitise(stripped, 60)}", "give the line of a .pub file")
    return stripped


def complete_user_data(text: str, keys: list[str]) -> str:
    """Return the user-data to hand to the guest: the user's, with `keys` in it where it is cloud-config or empty.

    Raises RefusedError for a text that cloud-init would not understand, naming the line where it is YAML.
    """
    size = len(_encode(text))
    if size > MAXIMUM_BYTES:
        raise RefusedError(
            _WHAT, f"it has {size} bytes, more than {MAXIMUM_BYTES}", "let it fetch the rest by #include"
        )
    if not text.strip():
        return f"{CLOUD_CONFIG}\n{_keys_as_yaml(keys) if keys else '{}'}\n"
    if _MIME_MARK in text[:_MIME_REACH].lower():
        _check_archive(text)
        return text
    word = _first_word(text)
    if word == CLOUD_CONFIG:
        return _with_keys(text, keys)
    if not (text.startswith(("#!", "## template: jinja")) or word in _HEADERS):
        first = text.splitlines()[0]
        raise RefusedError(_WHAT, f"cloud-init does not know what begins with {sanitise(first, 40)!r}", _KINDS_HINT)
    return text


def _encode(text: str) -> bytes:
    if "\0" in text:
        raise RefusedError(_WHAT, "it has a NUL character in it", "give it as text")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise RefusedError(_WHAT, "it is not text in UTF-8", "give it as text") from error


def _first_word(text: str) -> str:
    """Return the word that the text begins with, or an empty one where white space stands there."""
    line = text[:_MIME_REACH].splitlines()[0]
    return line.split(maxsplit=1)[0] if line and not line[0].isspace() else ""


# --- cloud-config


class _Config(NamedTuple):
    """A cloud-config that was read; `has_aliases` where YAML's `*NAME` stands in it."""

    values: dict[str, Any]
    has_aliases: bool


def _load_config(text: str) -> _Config:
    """Return a cloud-config as the mapping that it is; raise RefusedError naming the line of a fault."""
    import yaml  # noqa: PLC0415 - only who has user-data pays for it

    try:
        has_aliases = _scan(yaml.parse(text, Loader=yaml.SafeLoader))
        config = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        problem = sanitise(error.problem or error.context or "not YAML", 120)
        raise RefusedError(_WHAT, f"{line}{problem}", "see cloud-init's documentation of cloud-config") from error
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError) as error:
        # A character that YAML has no place for, or a value that is not of its tag's type: none says its line.
        raise RefusedError(_WHAT, f"no YAML: {sanitise(error, 120)}", "correct the value") from error
    if not isinstance(config, dict | None):
        raise RefusedError(_WHAT, "its cloud-config is no mapping", "write KEY: VALUE lines")
    return _Config(config or {}, has_aliases)


def _scan(events: Iterator[Any]) -> bool:
    """Return whether YAML has aliases; raise RefusedError where it nests deeper than readers can bear."""
    import yaml  # noqa: PLC0415 - as above

    depth, has_aliases = 0, False
    for event in events:
        has_aliases = has_aliases or isinstance(event, yaml.AliasEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAXIMUM_DEPTH:
            line = event.start_mark.line + 1
            raise RefusedError(_WHAT, f"line {line}: it nests deeper than {_MAXIMUM_DEPTH} levels", "make it flatter")
    return has_aliases


def _with_keys(text: str, keys: list[str]) -> str:
    """Return a cloud-config with the keys that it lacks: added at its end, or as a second part of an archive."""
    config = _load_config(text)
    own = config.values.get(_KEYS)
    missing = [key for key in keys if not isinstance(own, list) or key not in own]
    if not missing:
        return text
    longer = f"{text.rstrip()}\n{_keys_as_yaml(missing)}\n"
    if _means(longer, config, missing):
        return longer
    return _archive(text, f"{CLOUD_CONFIG}\n{_keys_as_yaml(missing)}\n")


def _keys_as_yaml(keys: list[str]) -> str:
    return f"{_KEYS}: {json.dumps(keys, ensure_ascii=False)}"


def _means(longer: str, config: _Config, keys: list[str]) -> bool:
    """Return whether a cloud-config says what `config` says, and the keys, and nothing else.

    The end of a text need not be the end of its mapping: a block of text, a brace or `...` may stand there.
    """
    # Aliases can multiply a value beyond what could ever be compared.
    if _KEYS in config.values or config.has_aliases:
        return False
    try:
        return _load_config(longer).values == {**config.values, _KEYS: keys}
    except RefusedError:
        return False


# --- MIME


def _check_archive(text: str) -> None:
    """Raise RefusedError where a text with the mark of MIME is no archive, or has a cloud-config that is no YAML."""
    from email import message_from_string  # noqa: PLC0415 - only who has an archive pays for it

    message = message_from_string(text)
    if not _MIME_HEADER.match(text) or not message.is_multipart():
        raise RefusedError(_WHAT, "cloud-init takes it for a MIME archive, and it is none", "make it multipart/mixed")
    for part in message.walk():
        payload = part.get_payload(decode=True)
        if part.get_content_type() == "text/cloud-config" and isinstance(payload, bytes):
            _load_config(payload.decode(errors="replace"))


def _archive(first: str, second: str) -> str:
    """Return a MIME archive of two cloud-configs, the lists of the second appended to those of the first."""
    from email.mime.multipart import MIMEMultipart  # noqa: PLC0415 - as above
    from email.mime.text import MIMEText  # noqa: PLC0415 - as above

    # The parts are in base64, which has no hyphen: no text can close its part.
    archive = MIMEMultipart(boundary="kc-user-data")
    for text, merge in ((first, ""), (second, _MERGE)):
        part = MIMEText(text, "cloud-config", "utf-8")
        if merge:
            part["Merge-Type"] = merge
        archive.attach(part)
    return archive.as_string()
