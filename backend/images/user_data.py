"""The user-data of a VM: what cloud-init will take, and how the SSH keys and the password's hash join it.

Source: cloud-init's user-data formats and its merging of parts. The user's own text is never rewritten: what joins it
is added behind it, or both travel as parts of a MIME archive.
"""

from __future__ import annotations

import json
import re
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from backend.errors import RefusedError
from backend.images.cloud_config import CLOUD_CONFIG, WHAT, Config, is_mime, load_config, load_configs
from backend.images.passwords import check_no_default_password, check_passwords
from backend.text import sanitise

if TYPE_CHECKING:
    from email.message import Message

MAXIMUM_BYTES = 256 << 10

_KEYS = "ssh_authorized_keys"
# First words that cloud-init acts on, except cloud-config's own.
_HEADERS = frozenset(
    {
        "#cloud-config-archive", "#cloud-config-jsonp", "#cloud-boothook",
        "#include", "#include-once", "#part-handler",
    }
)  # fmt: skip
_KINDS_HINT = "begin it with #cloud-config, #! or another header of cloud-init, or make it a MIME archive"
_MIME_HEADER = re.compile(r"[A-Za-z-]+:")
_LONGEST_WORD = 4096
_MERGE = "list(append)+dict(no_replace,recurse_list)+str()"
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")
_SSH_KEY = re.compile(r"(\S.* )?(ssh-|ecdsa-|sk-)\S+ [A-Za-z0-9+/=]+( .*)?")


def check_ssh_key(key: str) -> str:
    """Return a public key without the white space around it; raise RefusedError where it is none."""
    stripped = key.strip()
    if _UNPRINTABLE.search(stripped) or not _SSH_KEY.fullmatch(stripped):
        raise RefusedError("SSH key", f"not a public key: {sanitise(stripped, 60)}", "give the line of a .pub file")
    return stripped


def complete_user_data(text: str, keys: list[str], password_hash: str = "") -> str:
    """Return what `join_user_data` returns, for a text that is only now accepted.

    Raises RefusedError for a text that cloud-init would not understand, for a password in it that is no hash, and where
    it says itself how the default user logs in by password, and there is a `password_hash` too.
    """
    joined = join_user_data(text, keys, password_hash)
    for config in load_configs(text):
        check_passwords(config)
        if password_hash:
            check_no_default_password(config)
    return joined


def join_user_data(text: str, keys: list[str], password_hash: str = "") -> str:
    """Return the user-data to hand to the guest: the user's, with what is missing in it.

    `keys` go into a cloud-config or an empty text (others have them from the meta-data), `password_hash` (of crypt(5))
    everywhere: as that of the default user, whatever the image calls him; he is made even where the text's own `users`
    leave him out. Whether SSH takes passwords stays as it is. Raises RefusedError for a text that cloud-init would not
    understand, naming the line where it is YAML.
    """
    size = len(_encode(text))
    if size > MAXIMUM_BYTES:
        raise RefusedError(WHAT, f"it has {size} bytes, more than {MAXIMUM_BYTES}", "let it fetch the rest by #include")
    if not text.strip():
        return f"{CLOUD_CONFIG}\n{_as_yaml(_describe_access(keys, password_hash)) or '{}'}\n"
    if is_mime(text):
        message = _read_archive(text)
        return _archive(message, _describe_access([], password_hash)) if password_hash else text
    word = _first_word(text)
    if word == CLOUD_CONFIG:
        return _extend(text, keys, password_hash)
    if not (text.startswith(("#!", "## template: jinja")) or word in _HEADERS):
        first = text.splitlines()[0]
        raise RefusedError(WHAT, f"cloud-init does not know what begins with {sanitise(first, 40)!r}", _KINDS_HINT)
    return _archive(_as_part(text, "plain"), _describe_access([], password_hash)) if password_hash else text


def _describe_access(keys: list[str], password_hash: str) -> dict[str, Any]:
    """Return the cloud-config that lets in the default user, whom cloud-init finds as `default`.

    `password` would take the hash of a newer kind for the password itself, and `chpasswd` wants the user's real name.
    """
    keyed: dict[str, Any] = {_KEYS: keys} if keys else {}
    account = {"name": "default", "hashed_passwd": password_hash, "lock_passwd": False}
    return keyed | ({"users": [account]} if password_hash else {})


def _as_yaml(config: dict[str, Any]) -> str:
    return "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in config.items())


def _encode(text: str) -> bytes:
    if "\0" in text:
        raise RefusedError(WHAT, "it has a NUL character in it", "give it as text")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise RefusedError(WHAT, "it is not text in UTF-8", "give it as text") from error


def _first_word(text: str) -> str:
    """Return the word that the text begins with, or an empty one where white space stands there."""
    line = text[:_LONGEST_WORD].splitlines()[0]
    return line.split(maxsplit=1)[0] if line and not line[0].isspace() else ""


# --- cloud-config


def _extend(text: str, keys: list[str], password_hash: str) -> str:
    """Return a cloud-config with what it lacks: added at its end, or as a second part of an archive."""
    config = load_config(text)
    own = config.values.get(_KEYS)
    missing = [key for key in keys if not isinstance(own, list) or key not in own]
    added = _describe_access(missing, password_hash)
    if not added:
        return text
    longer = f"{text.rstrip()}\n{_as_yaml(added)}\n"
    return longer if _means(longer, config, added) else _archive(_as_part(text, "cloud-config"), added)


def _means(longer: str, config: Config, added: dict[str, Any]) -> bool:
    """Return whether a cloud-config says what `config` says, and what was added, and nothing else.

    The end of a text need not be the end of its mapping: a block of text, a brace or `...` may stand there.
    """
    # Aliases can multiply a value beyond what could ever be compared.
    if set(added) & set(config.values) or config.has_aliases:
        return False
    try:
        return load_config(longer).values == {**config.values, **added}
    except RefusedError:
        return False


# --- MIME


def _read_archive(text: str) -> Message:
    """Return a MIME archive; raise RefusedError where it is none, or has a cloud-config that is no YAML."""
    from email import message_from_string  # noqa: PLC0415 - only who has an archive pays for it

    message = message_from_string(text)
    if not _MIME_HEADER.match(text) or not message.is_multipart():
        raise RefusedError(WHAT, "cloud-init takes it for a MIME archive, and it is none", "make it multipart/mixed")
    load_configs(text)
    return message


def _as_part(text: str, subtype: str) -> Message:
    """Return a text as a part of an archive; cloud-init looks itself into one that is `plain`."""
    from email.mime.text import MIMEText  # noqa: PLC0415 - as above

    # In base64, which has no hyphen: no text can close its part.
    return MIMEText(text, subtype, "utf-8")


def _archive(first: Message, added: dict[str, Any]) -> str:
    """Return a MIME archive of a user-data and a cloud-config, whose lists are appended to those of the first."""
    from email.mime.multipart import MIMEMultipart  # noqa: PLC0415 - as above

    text = first.as_string()
    # An archive inside must not end with this one's mark.
    archive = MIMEMultipart(boundary=f"kc-{sha256(text.encode(errors='surrogateescape')).hexdigest()[:32]}")
    archive.attach(first)
    second = _as_part(f"{CLOUD_CONFIG}\n{_as_yaml(added)}\n", "cloud-config")
    second["Merge-Type"] = _MERGE
    archive.attach(second)
    return archive.as_string()
