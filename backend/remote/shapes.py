"""From the JSON of the HTTP interface to the values of the Service protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from backend.errors import FailedError
from backend.model.changes import Change
from backend.model.samples import Sample
from backend.model.upkeep import Compaction, Fault
from backend.service import Accepted, Access, Adoption, DocumentPage, Finding, Preview, Version
from backend.text import sanitise

Shape = TypeVar("Shape")


def read(shape: Callable[[Any], Shape], value: Any) -> Shape:
    """Return what a shape makes of an answer; raise FailedError for one that has another shape."""
    try:
        return shape(value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        why = f"it has not the shape that this KC knows ({sanitise(error, 80)})"
        raise FailedError("answer", why, "have the same KC on both sides") from error


def read_page(value: Any) -> DocumentPage:
    """Return one page of a list."""
    warnings = [str(line) for line in value.get("warnings", [])]
    return DocumentPage(
        list(value["items"]),
        str(value.get("continue") or ""),
        int(value["revision"]),
        warnings,
        filtered=bool(value.get("filtered")),
    )


def read_accepted(value: Any) -> Accepted:
    """Return what a change made."""
    return Accepted(value["document"], value["operation"])


def read_all_accepted(value: Any) -> list[Accepted]:
    """Return what several changes made."""
    return [read_accepted(item) for item in value["items"]]


def read_history(value: Any) -> list[Version]:
    """Return the kept versions of a document."""
    return [
        Version(int(item["version"]), str(item["at"]), str(item["by"]), str(item["message"]), item["document"])
        for item in value["items"]
    ]


def read_preview(value: Any) -> Preview:
    """Return what a change would do."""
    changes = [_read_change(item) for item in value["changes"]]
    return Preview(value["before"], value["after"], changes, list(value["effects"]), tuple(value["cuts"]))


def _read_change(item: Any) -> Change:
    return Change(tuple(item["path"]), item["operation"], item["old"], item["new"])


def read_adoption(value: Any) -> Adoption:
    """Return what adopting a domain would do."""
    return Adoption(value["document"], list(value["managed"]), list(value["untouched"]))


def read_samples(value: Any) -> list[Sample]:
    """Return counters of domains."""
    return [Sample(**{_to_snake(key): figure for key, figure in item.items()}) for item in value["items"]]


def _to_snake(key: str) -> str:
    return "".join(f"_{sign.lower()}" if sign.isupper() else sign for sign in key)


def read_findings(value: Any) -> list[Finding]:
    """Return the lines of a diagnosis."""
    return [Finding(item["check"], item["state"], item["message"], item["mend"]) for item in value["items"]]


def read_faults(value: Any) -> list[Fault]:
    """Return what a check of the store found."""
    return [Fault(item["where"], item["what"], bool(item["repaired"])) for item in value["items"]]


def read_compaction(value: Any) -> Compaction:
    """Return what a compaction did."""
    return Compaction(value["versions"], value["documents"], value["bytesBefore"], value["bytesAfter"])


def read_access(value: Any) -> Access:
    """Return who the caller is, and what they may do."""
    scopes = tuple((tuple(map(str, scope["actions"])), str(scope["selector"])) for scope in value["scopes"])
    return Access(str(value["subject"]), tuple(map(str, value["groups"])), scopes, str(value.get("expiresAt") or ""))
