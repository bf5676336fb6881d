"""How documents reach stdout: as a table, JSON, YAML or names."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any

from backend.model.documents import Document
from backend.model.kinds import Kind
from backend.text import sanitise
from kc_tui.cli.session import Session

_SECOND_PLANE = 0x10000
_NOT_PLAIN = re.compile("[^\x00-\x7e]")
# What a reader of YAML 1.2 takes for a number, and PyYAML, which writes 1.1, does not: 12e4567 is a commit.
_LIKE_NUMBER = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|0o[0-7]+|0x[0-9a-fA-F]+|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)


def _escape(found: re.Match[str]) -> str:
    sign = found[0]
    if sign != "\x7f" and sanitise(sign) == sign:
        return sign
    code = ord(sign)
    if code < _SECOND_PLANE:
        return f"\\u{code:04x}"
    # JSON writes what lies beyond the first plane as a surrogate pair (RFC 8259, section 7).
    code -= _SECOND_PLANE
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"


def format_json(value: Any, *, indent: int | None = 2) -> str:
    """Return a value as JSON without loss, in which nothing can steer a terminal: unsafe characters are escaped."""
    import json  # noqa: PLC0415 - tables need none

    return _NOT_PLAIN.sub(_escape, json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False))


def print_data(session: Session, value: Any) -> None:
    """Print a JSON value as JSON, or as YAML where that was asked for."""
    if session.output == "yaml":
        from kc_tui.yaml_text import format_yaml  # noqa: PLC0415 - JSON needs none

        sys.stdout.write(format_yaml(value))
    else:
        sys.stdout.write(format_json(value) + "\n")


def print_names(documents: Sequence[Document]) -> None:
    """Print the names of documents, one a line."""
    sys.stdout.write("".join(f"{sanitise(document['name'])}\n" for document in documents))


def print_list(session: Session, kind: Kind, items: list[Document], following: str, revision: int) -> None:
    """Print a list of documents, in JSON as HTTP gives it: `items`, `continue`, `revision`."""
    if session.output == "table":
        from kc_tui.cli.columns import print_documents  # noqa: PLC0415 - JSON needs no columns

        print_documents(kind, items)
    elif session.output == "name":
        print_names(items)
    else:
        print_data(session, {"items": items, "continue": following or None, "revision": revision})


def print_results(session: Session, kind: Kind, documents: list[Document], *, several: bool) -> None:
    """Print what a command made or changed: one document as itself, `several` as `{"items": […]}`."""
    if session.output == "table":
        if documents:
            from kc_tui.cli.columns import print_documents  # noqa: PLC0415 - JSON needs no columns

            print_documents(kind, documents)
    elif session.output == "name":
        print_names(documents)
    elif several:
        print_data(session, {"items": documents})
    elif documents:
        print_data(session, documents[0])
