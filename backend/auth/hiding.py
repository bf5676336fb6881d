"""Texts and documents for somebody who may not see everything: without what would tell of the rest.

A name that is taken by an object which may not be seen is taken all the same: names are shared by all, and so a
conflict tells that there is one. Nothing else about it is told.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from backend.model.kinds import KINDS, NETWORK, VM

if TYPE_CHECKING:
    from backend.auth.guard import Guard
    from backend.errors import KCError
    from backend.model.documents import Document
    from backend.service import Preview

ANOTHER: Final = "another one"
# A name is a DNS label (RFC 1123), within which nothing else begins or ends.
_NAME: Final = re.compile(r"(?<![a-z0-9-])[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?![a-z0-9-])")
_LONGEST: Final = 63
_AT_ONCE: Final = 40
_TELLING: Final = ("problem", "problems", "error", "undoError", "retry", "warnings", "reason")
"""What of a status is said in sentences."""


def list_words(said: Any) -> frozenset[str]:
    """Return all words in what a caller said."""
    return frozenset(_NAME.findall(json.dumps(said, default=str, ensure_ascii=False)))


def hide_in_error(guard: Guard, error: KCError, known: frozenset[str]) -> None:
    """Replace in an error the names that may not be seen, but for those that the caller knows."""
    texts = _list_texts([error.what, error.why, error.hint, error.details])
    hidden = _find_hidden(guard, texts, known, foreign=any("domain" in text for text in texts))
    if hidden:
        error.what, error.why, error.hint = (_replace(text, hidden) for text in (error.what, error.why, error.hint))
        error.details = _replace(error.details, hidden)
        error.args = (error.what, error.why, error.hint)


def hide_in_preview(guard: Guard, preview: Preview, said: Any) -> Preview:
    """Return a preview whose effects tell of no VM that may not be seen."""
    hidden = _find_hidden(guard, [*preview.effects, *preview.cuts], list_words(said))
    cuts = dict.fromkeys(_replace(list(preview.cuts), hidden))
    return preview._replace(effects=_replace(preview.effects, hidden), cuts=tuple(cuts))


def hide_in_documents(guard: Guard, documents: list[Document]) -> list[Document]:
    """Return documents whose statuses tell of nothing that may not be seen; nothing is asked where none could."""
    if guard.may_everything:
        return documents
    shown = [_thin_network(guard, document) if document["kind"] == NETWORK.name else document for document in documents]
    telling = [_list_texts(_pick_telling(document)) for document in shown]
    if not any(telling):
        return shown
    # What stands in the document itself is no secret.
    known = list_words([{**each, "status": {}} for each, texts in zip(shown, telling, strict=True) if texts])
    hidden = _find_hidden(guard, [text for texts in telling for text in texts], known)
    if not hidden:
        return shown
    return [
        {**document, "status": {**document["status"], **_replace(_pick_telling(document), hidden)}}
        if texts
        else document
        for document, texts in zip(shown, telling, strict=True)
    ]


def may_tell(document: Document) -> bool:
    """Return whether something in a document may have to be hidden from somebody; nothing is asked for it."""
    return document["kind"] == NETWORK.name or bool(_list_texts(_pick_telling(document)))


def hide_in_document(guard: Guard, document: Document) -> Document:
    """Return one document as `hide_in_documents` does."""
    return hide_in_documents(guard, [document])[0]


def _pick_telling(document: Document) -> dict[str, Any]:
    status = document.get("status") or {}
    return {key: status[key] for key in _TELLING if status.get(key)}


def _thin_network(guard: Guard, network: Document) -> Document:
    """Return a network without the VMs on it that may not be seen, their addresses, and how many there are."""
    status = network.get("status", {})
    if guard.sees_all(VM) or not {"vms", "leases", "addresses", "free"} & status.keys():
        return network
    selector = f"spec.nics.network.uid={json.dumps(network['uid'])}"
    on_it = guard.inner.list_documents(VM.name, selector=selector, everything=True, observe=False).items
    names = {vm["name"] for vm in on_it if guard.sees(vm)}
    owners = {f"VM {name}" for name in names}
    thin = {key: value for key, value in status.items() if key != "free"}
    thin["vms"] = [name for name in status.get("vms", ()) if name in names]
    thin["leases"] = [lease for lease in status.get("leases", ()) if lease.get("vm") in names]
    thin["addresses"] = [
        use
        for use in status.get("addresses", ())
        if use["owner"].rpartition("/")[0] in owners
        or use["owner"] in ("host", "gateway")
        or use["owner"].startswith("reservation ")
    ]
    return {**network, "status": thin}


def _find_hidden(guard: Guard, texts: Iterable[str], known: frozenset[str], *, foreign: bool = False) -> set[str]:
    """Return the words in texts that are names of objects which may not be seen, and of none that may.

    With `foreign` the host's other domains are looked for too.
    """
    words = sorted({word for text in texts for word in _NAME.findall(text) if len(word) <= _LONGEST} - known)
    hidden: set[str] = set()
    seen: set[str] = set()
    for start in range(0, len(words), _AT_ONCE):
        names = ",".join(json.dumps(word) for word in words[start : start + _AT_ONCE])
        for kind in KINDS:
            page = guard.inner.list_documents(
                kind.name, selector=f"name in ({names})", everything=True, observe=foreign and kind is VM
            )
            for document in page.items:
                (seen if guard.sees(document) else hidden).add(str(document["name"]))
    return hidden - seen


def _list_texts(value: Any) -> list[str]:
    """Return all strings in a JSON value, keys left out."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [text for item in value.values() for text in _list_texts(item)]
    if isinstance(value, (list, tuple)):
        return [text for item in value for text in _list_texts(item)]
    return []


def _replace(value: Any, hidden: set[str]) -> Any:
    if isinstance(value, str):
        return _NAME.sub(lambda found: ANOTHER if found[0] in hidden else found[0], value)
    if isinstance(value, Mapping):
        return {key: _replace(item, hidden) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replace(item, hidden) for item in value]
    return value
