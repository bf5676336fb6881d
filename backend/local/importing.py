"""The door for documents that come in as a whole store: what they are called is checked, as for any other.

Their specs are not: an export holds old versions too, of the shape that was valid then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from backend.errors import RefusedError
from backend.model.documents import Document
from backend.model.kinds import KINDS
from backend.model.schemas import check_name
from backend.text import sanitise

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KINDS = {kind.name: kind for kind in KINDS}


def check_records(records: Iterable[Document]) -> Iterator[Document]:
    """Yield the records of an export; raise RefusedError for a name or uid that no document of KC's can have.

    Both become parts of paths, of volumes' names and of domains.
    """
    for record in records:
        document = record.get("document") if isinstance(record, dict) else None
        if isinstance(document, dict) and document.get("kind") in _KINDS:
            kind = _KINDS[document["kind"]]
            check_name(str(document.get("name")), kind)
            what = f"{kind.title} {document['name']}"
            _check_uid(document.get("uid"), what)
            spec = document.get("spec")
            target = spec.get("target") if isinstance(spec, dict) else None
            if isinstance(target, dict):
                _check_uid(target.get("uid"), what)
        yield record


def _check_uid(uid: Any, what: str) -> None:
    if not isinstance(uid, str) or not _UUID.fullmatch(uid):
        raise RefusedError(f"import {what}", f"{sanitise(uid, 60)} is no uid", "export it again")
