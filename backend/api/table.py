"""The one table of operations: what the server routes, the authenticators are asked, and the OpenAPI document says.

Every row has one action, known before anything of the request is read; `/v1/vms` and `/v1/images` are rows of their
own, so that nothing is guessed from a path.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from backend.api.rows import JSON as JSON_MEDIA
from backend.api.rows import MERGE_PATCH, Answer, Body, Parameter, Row, Schema
from backend.api.schemas import (
    ALL,
    CONTINUE,
    EXAMPLES,
    FLAG,
    IDEMPOTENCY_KEY,
    IF_MATCH,
    IF_NONE_MATCH,
    LIMIT,
    MESSAGE,
    MESSAGE_PARAMETER,
    NAME,
    OBJECT,
    OBSERVE,
    SELECTOR,
    TEXT,
    VERSION,
    document_input,
    flag,
    patch_input,
    record,
    reference,
)  # fmt: skip
from backend.api.table_whole import WHOLE_ROWS
from backend.model.kinds import KEPT_KINDS, KINDS, NETWORK, TOKEN, VM, WRITTEN_KINDS, Kind

_NOT_MODIFIED = Answer("what is known is what there is")
_DONE = {
    200: Answer("done", reference("Accepted"), headers=("ETag",)),
    202: Answer("accepted; the operation brings the host to it", reference("Accepted"), headers=("ETag", "Location")),
}
_MADE = {
    201: Answer("made", reference("Accepted"), headers=("ETag", "Location")),
    202: Answer("accepted; the operation makes it on the host", reference("Accepted"), headers=("ETag", "Location")),
}
_FORCE = Body(record({"force": FLAG}), {"force": False}, required=False)
_NONE = Body(record({}), {}, required=False)
_SNAPSHOT = Body(record({"snapshot": NAME}, "snapshot"), {"snapshot": "before-upgrade"})
_NEW_SNAPSHOT = Body(
    record({"snapshot": NAME, "description": MESSAGE}),
    {"snapshot": "before-upgrade", "description": ""},
    required=False,
)
_VM_ACTIONS: Final[dict[str, tuple[str, Body]]] = {
    "start": ("Start a VM", _NONE),
    "stop": ("Stop a VM; with force at once", _FORCE),
    "reboot": ("Reboot a VM; with force at once", _FORCE),
    "pause": ("Pause a VM", _NONE),
    "resume": ("Let a paused VM go on", _NONE),
    "reconcile": ("Make the host match the VM's document again", _NONE),
    "snapshot": ("Take a snapshot", _NEW_SNAPSHOT),
    "restore-snapshot": ("Bring a VM back to a snapshot", _SNAPSHOT),
    "delete-snapshot": ("Delete a snapshot", _SNAPSHOT),
}
_CLONE = Body(record({"name": NAME, "metadata": OBJECT, "start": FLAG}, "name"), {"name": "web-2"})
_RENAME = Body(record({"name": NAME}, "name"), {"name": "web-2"})
_ADOPT = Body(record({"name": NAME, "metadata": OBJECT, "dryRun": FLAG}), {"name": "old-server"}, required=False)


def _ident(verb: str, kind: Kind, *, many: bool = False) -> str:
    word = kind.collection if many else kind.command
    return f"{verb}-{word}"


def _reading(kind: Kind) -> Iterator[Row]:
    path, action, title = f"/v1/{kind.collection}", f"{kind.command}.read", kind.title
    yield Row(
        "GET", path, _ident("list", kind, many=True), f"List {title}s, in the order of their names", action,
        "documents.list_documents", kind, query=(SELECTOR, LIMIT, CONTINUE, ALL, OBSERVE),
        answers={200: Answer("one page", reference(f"{kind.name}List"))},
    )  # fmt: skip
    version = Parameter("version", VERSION, "that version as it was, without a status")
    yield Row(
        "GET", f"{path}/{{name}}", _ident("show", kind), f"Show one {title}", action, "documents.read", kind,
        query=(version, OBSERVE), headers=(IF_NONE_MATCH,),
        answers={200: Answer("the document", reference(kind.name), headers=("ETag",)), 304: _NOT_MODIFIED},
    )  # fmt: skip


def _writing(kind: Kind) -> Iterator[Row]:
    path, title, word = f"/v1/{kind.collection}", kind.title, kind.command
    example = EXAMPLES[kind.name]
    made = {201: Answer("made; `token` is shown this once", reference(TOKEN.name))} if kind is TOKEN else _MADE
    yield Row(
        "POST", path, _ident("create", kind), f"Make a {title} from a document", f"{word}.create",
        "documents.create", kind,
        headers=(IDEMPOTENCY_KEY,), body=Body(document_input(kind, "name", "spec"), example), answers=made,
    )  # fmt: skip
    whole = f"{path}/{{name}}"
    yield Row(
        "PUT", whole, _ident("put", kind), f"Make a {title} what a document says; make it where there is none",
        f"{word}.update", "documents.put", kind, query=(MESSAGE_PARAMETER,),
        headers=(IF_MATCH, IF_NONE_MATCH, IDEMPOTENCY_KEY), body=Body(document_input(kind, "spec"), example),
        answers={**_DONE, 201: _MADE[201]},
    )  # fmt: skip
    yield Row(
        "PATCH", whole, _ident("patch", kind), f"Change parts of a {title} (RFC 7396)", f"{word}.update",
        "documents.patch",
        kind, query=(MESSAGE_PARAMETER,), headers=(IF_MATCH, IDEMPOTENCY_KEY),
        body=Body(patch_input(kind), {"metadata": {"tenant": "acme"}}, media=(MERGE_PATCH, JSON_MEDIA)), answers=_DONE,
    )  # fmt: skip
    yield Row(
        "DELETE", whole, _ident("delete", kind), f"Delete a {title}", f"{word}.delete", "documents.delete", kind,
        query=(flag("keepDisks", "leave its disks in the pool"), flag("now", "no grace time"), MESSAGE_PARAMETER),
        headers=(IF_MATCH, IDEMPOTENCY_KEY), answers=_DONE,
    )  # fmt: skip


def _versions(kind: Kind) -> Iterator[Row]:
    path, title, word = f"/v1/{kind.collection}/{{name}}", kind.title, kind.command
    yield Row(
        "GET", f"{path}/versions", _ident("history", kind), f"List the versions of a {title}, the oldest first",
        f"{word}.read", "documents.list_versions", kind, answers={200: Answer("all that are kept",
        reference("Versions"))},
    )  # fmt: skip
    back = Body(record({"version": VERSION, "message": MESSAGE}, "version"), {"version": 1})
    restoring = record({"uid": TEXT, "newDisks": FLAG})
    for verb, summary, action, body in (
        ("rollback", f"Give a {title} the content of an old version", "update", back),
        ("undo", f"Take the newest change of a {title} back", "update", _NONE),
        ("restore", f"Bring a deleted {title} back", "restore", Body(restoring, {"newDisks": False}, required=False)),
    ):
        headers = () if verb == "restore" else (IF_MATCH,)
        yield Row(
            "POST", f"{path}/{verb}", _ident(verb, kind), summary, f"{word}.{action}", f"documents.{verb}", kind,
            headers=headers, body=body, answers=_DONE,
        )  # fmt: skip


def _asking(kind: Kind) -> Iterator[Row]:
    path, title, word = f"/v1/{kind.collection}", kind.title, kind.command
    # Whether it would be made or changed is not known before the body is read; the service asks for the right one.
    body = Body(document_input(kind, "name", "spec"), EXAMPLES[kind.name])
    yield Row(
        "POST", f"{path}/preview", _ident("preview", kind), f"Say what writing a {title} would do; write nothing",
        f"{word}.read", "documents.preview", kind, body=body,
        answers={200: Answer("what would change", reference("Preview"))},
    )  # fmt: skip
    yield Row(
        "POST", f"{path}/check", _ident("check", kind), f"Check the document of a new {title}; write nothing",
        f"{word}.create", "documents.check", kind, body=body,
        answers={200: Answer("the document as it would be accepted", reference(kind.name))},
    )  # fmt: skip


def _acting() -> Iterator[Row]:
    path = f"/v1/{VM.collection}/{{name}}/actions"

    def row(verb: str, summary: str, handler: str, body: Body, kind: Kind = VM, **more: tuple[Parameter, ...]) -> Row:
        where = path if kind is VM else f"/v1/{kind.collection}/{{name}}/actions"
        return Row(
            "POST", f"{where}/{verb}", _ident(verb, kind), summary, f"{kind.command}.{verb}", f"actions.{handler}",
            kind, verb,
            headers=more.get("headers", (IDEMPOTENCY_KEY,)), body=body, answers=_DONE,
        )  # fmt: skip

    for verb, (summary, body) in _VM_ACTIONS.items():
        yield row(verb, summary, "act", body)
    yield row("clone", "Make a VM like another, with copies of its disks", "clone", _CLONE)
    yield row("rename", "Give a VM another name", "rename", _RENAME, headers=(IF_MATCH,))
    yield row("adopt", "Take a foreign domain under management", "adopt", _ADOPT, headers=())
    yield row("reconcile", "Make the host's segment match the document again", "act_on_network", _NONE, NETWORK)


def _make_rows() -> Iterator[Row]:
    for kind in KINDS:
        yield from _reading(kind)
    for kind in WRITTEN_KINDS:
        yield from _writing(kind)
    for kind in KEPT_KINDS:
        yield from _versions(kind)
        yield from _asking(kind)
    yield from _acting()
    yield from WHOLE_ROWS


ROWS: Final[tuple[Row, ...]] = tuple(_make_rows())
"""All operations."""

__all__ = ["ROWS", "Schema"]
