"""Handlers for documents: lists, reading, writing and their versions."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from backend.api.conditions import Tags, as_conditional, fail, read_tags, tag
from backend.api.problems import encode
from backend.api.rows import JSON
from backend.errors import ConflictError, KCError, NotFoundError, RefusedError, UsageError
from backend.model.changes import merge_patch
from backend.model.kinds import IMAGE, MACHINE_TYPE, NETWORK, TOKEN, VM, find_kind
from backend.service import Accepted, DocumentPage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backend.api.exchange import Exchange
    from backend.model.documents import Document

LIVE_SECONDS = 1.0
STORED_SECONDS = 10.0
_ATTEMPTS = 5
_KEPT_LISTS = frozenset({VM.name, IMAGE.name, NETWORK.name, MACHINE_TYPE.name})
_KEY = re.compile(r"[!-~]{1,100}")


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON answer."""
    return Response(encode(value), status, headers, JSON)


def answer_accepted(exchange: Exchange, accepted: Accepted, status: int = 200) -> Response:
    """Return what a change made: 202 with the place of its operation, where it has one."""
    document, operation = accepted
    headers = {}
    if document.get("version"):
        headers["ETag"] = tag(document["version"])
    if operation is not None:
        status = 202
        headers["Location"] = f"/v1/operations/{operation['name']}"
    elif status == 201:  # noqa: PLR2004 - HTTP's own
        headers["Location"] = f"/v1/{find_kind(exchange.kind).collection}/{document['name']}"
    return answer(accepted._asdict(), status, headers)


# --- reading
async def list_documents(exchange: Exchange) -> Response:
    """Answer with one page; those of what moves slowly enough are kept (see `backend.api.lists`)."""
    query = exchange.query

    async def render() -> bytes:
        return await exchange.call(_render, exchange, query)

    if exchange.kind in _KEPT_LISTS:
        key = (exchange.kind, tuple(query.values()), exchange.decision.scopes)
        is_live = query["observe"] and exchange.kind in (VM.name, NETWORK.name)
        seconds = LIVE_SECONDS if is_live else STORED_SECONDS
        return Response(await exchange.server.lists.find(key, seconds, render), media_type=JSON)
    return Response(await render(), media_type=JSON)


def _render(exchange: Exchange, query: dict[str, Any]) -> bytes:
    page = exchange.service.list_documents(
        exchange.kind,
        selector=query["selector"],
        limit=query["limit"],
        after=query["continue"],
        everything=query["all"],
        observe=query["observe"],
    )
    return encode(page_value(page))


def page_value(page: DocumentPage) -> dict[str, Any]:
    """Return a page as it is answered."""
    return {
        "items": page.items,
        "continue": page.next,
        "revision": page.revision,
        "warnings": page.warnings,
        "filtered": page.filtered,
    }


async def read(exchange: Exchange) -> Response:
    """Answer with one document."""
    query = exchange.query
    version = query.get("version")
    known = read_tags("If-None-Match", exchange.header("if-none-match"))
    document = await exchange.call(
        exchange.service.get, exchange.kind, exchange.name, observe=query["observe"], version=version
    )
    headers = {"ETag": tag(document["version"])} if document.get("version") else {}
    if known is not None and known.has(document.get("version", 0)):
        return Response(status_code=304, headers=headers)
    return answer(document, headers=headers)


async def list_versions(exchange: Exchange) -> Response:
    """Answer with the kept versions of an object."""
    versions = await exchange.call(exchange.service.history, exchange.kind, exchange.name)
    return answer({"items": [version._asdict() for version in versions]})


# --- writing
async def create(exchange: Exchange) -> Response:
    """Make what a document says; the answer of a token has its secret."""
    document = _complete(exchange, await exchange.json())
    accepted = await exchange.call(exchange.service.create, document, key=find_key(exchange))
    if exchange.kind == TOKEN.name:
        path = f"/v1/{TOKEN.collection}/{accepted.document['name']}"
        return answer(accepted.document, 201, {"Location": path, "Cache-Control": "no-store"})
    return answer_accepted(exchange, accepted, 201)


async def put(exchange: Exchange) -> Response:
    """Make an object what a document says, or make it where there is none."""
    wanted = read_tags("If-Match", exchange.header("if-match"))
    unknown = read_tags("If-None-Match", exchange.header("if-none-match"))
    document = _complete(exchange, await exchange.json(), exchange.name)
    key, message = find_key(exchange), exchange.query["message"] or str(document.get("message", ""))
    with _conditions(wanted, unknown):
        if unknown is not None:
            await _check_new(exchange, unknown)
        else:
            try:
                version = await _find_version(exchange, wanted)
                accepted = await exchange.call(
                    exchange.service.update, document, if_version=version, message=message, key=key
                )
                return answer_accepted(exchange, accepted)
            except NotFoundError:
                if wanted is not None:
                    raise fail(exchange.name, "there is none that If-Match could mean") from None
        made = {field: value for field, value in document.items() if field not in ("uid", "version")}
        accepted = await exchange.call(exchange.service.create, made, key=key)
    return answer_accepted(exchange, accepted, 201)


async def _check_new(exchange: Exchange, unknown: Tags) -> None:
    if not unknown.anything:
        raise UsageError("If-None-Match", "only * is known with PUT", "send If-None-Match: *")
    try:
        await exchange.call(exchange.service.get, exchange.kind, exchange.name, observe=False)
    except NotFoundError:
        return
    raise fail(exchange.name, "there is one already")


async def patch(exchange: Exchange) -> Response:
    """Change parts of a document; where nobody said of which version, of the newest, however often that moves."""
    wanted = read_tags("If-Match", exchange.header("if-match"))
    change = await exchange.json()
    _complete(exchange, change, exchange.name)
    message = exchange.query["message"] or str(change.get("message", ""))
    named = change.get("version")
    attempts = _ATTEMPTS if wanted is None and named is None else 1
    with _conditions(wanted):
        version = await _find_version(exchange, wanted)
        while True:
            attempts -= 1
            try:
                return answer_accepted(exchange, await exchange.call(_patch, exchange, change, version, message))
            except ConflictError as error:
                if error.details.get("reason") != "version" or not attempts:
                    raise


def _patch(exchange: Exchange, change: Document, version: int | None, message: str) -> Accepted:
    service = exchange.service
    live = service.get(exchange.kind, exchange.name, observe=False)
    if not live.get("version"):
        # A foreign VM is not KC's to change; the service says so in its own words.
        return service.update({"kind": exchange.kind, "name": exchange.name, **change})
    merged = merge_patch({field: live[field] for field in ("metadata", "spec")},
                         {field: change[field] for field in ("metadata", "spec") if field in change})  # fmt: skip
    # The version that was read is the document's own: a repeated request with a key reads a newer one.
    document = {
        "kind": exchange.kind,
        "name": exchange.name,
        "version": change.get("version", live["version"]),
        **merged,
    }
    return service.update(document, if_version=version, message=message, key=find_key(exchange))


async def delete(exchange: Exchange) -> Response:
    """Delete an object."""
    query = exchange.query
    wanted = read_tags("If-Match", exchange.header("if-match"))
    with _conditions(wanted):
        accepted = await exchange.call(
            exchange.service.delete,
            exchange.kind,
            exchange.name,
            if_version=await _find_version(exchange, wanted),
            keep_disks=query["keepDisks"],
            now=query["now"],
            message=query["message"],
            key=find_key(exchange),
        )
    return answer_accepted(exchange, accepted)


async def rollback(exchange: Exchange) -> Response:
    """Give an object the content of an old version."""
    body = await exchange.json()
    wanted = read_tags("If-Match", exchange.header("if-match"))
    with _conditions(wanted):
        version = await _find_version(exchange, wanted)
        accepted = await exchange.call(
            exchange.service.rollback,
            exchange.kind,
            exchange.name,
            body["version"],
            if_version=version,
            message=body.get("message", ""),
        )
    return answer_accepted(exchange, accepted)


async def undo(exchange: Exchange) -> Response:
    """Take the newest change back."""
    await exchange.json()
    wanted = read_tags("If-Match", exchange.header("if-match"))
    with _conditions(wanted):
        version = await _find_version(exchange, wanted)
        accepted = await exchange.call(exchange.service.undo, exchange.kind, exchange.name, if_version=version)
    return answer_accepted(exchange, accepted)


async def restore(exchange: Exchange) -> Response:
    """Bring a deleted object back."""
    body = await exchange.json()
    accepted = await exchange.call(
        exchange.service.restore,
        exchange.kind,
        exchange.name,
        uid=body.get("uid", ""),
        new_disks=body.get("newDisks", False),
    )
    return answer_accepted(exchange, accepted)


async def preview(exchange: Exchange) -> Response:
    """Answer with what writing a document would do."""
    document = _complete(exchange, await exchange.json())
    found = await exchange.call(exchange.service.preview, document)
    changes = [change._asdict() for change in found.changes]
    return answer({**found._asdict(), "changes": changes})


async def check(exchange: Exchange) -> Response:
    """Answer with the document that would be accepted."""
    document = _complete(exchange, await exchange.json())
    return answer(await exchange.call(exchange.service.check, document))


# --- what writing has in common
def _complete(exchange: Exchange, document: Document, name: str = "") -> Document:
    """Return a document with what the path says of it; raise RefusedError where it says something else."""
    said = {"kind": exchange.kind, **({"name": name} if name else {})}
    for field, value in said.items():
        if document.get(field, value) != value:
            raise RefusedError("body", f"{field} is not what the path says", f"write {value}, or leave it out")
    return {**document, **said}


def find_key(exchange: Exchange) -> str:
    """Return the idempotency key of a request, which is its subject's own; raise UsageError for no such word."""
    text = exchange.connection.headers.get("idempotency-key")
    if text is None:
        return ""
    if not _KEY.fullmatch(text):
        raise UsageError("Idempotency-Key", "it is no word of 1 to 100 printable characters", "send a shorter one")
    whose = hashlib.sha256(exchange.decision.subject.encode()).hexdigest()[:16]
    return f"{whose}/{text}"


async def _find_version(exchange: Exchange, wanted: Tags | None) -> int | None:
    """Return the version that must be the current one, None where any may be."""
    if wanted is None:
        return None
    if len(wanted.strong) == 1 and not wanted.weak:
        return next(iter(wanted.strong))
    document = await exchange.call(exchange.service.get, exchange.kind, exchange.name, observe=False)
    version = int(document.get("version", 0))
    if not wanted.anything and version not in wanted.strong:
        raise fail(exchange.name, f"it is at version {version}, which If-Match does not list")
    return version


@contextmanager
def _conditions(*tags: Tags | None) -> Iterator[None]:
    """Have what is stale answered as a failed precondition, where the request has one."""
    try:
        yield
    except KCError as error:
        raise as_conditional(error, conditional=any(each is not None for each in tags)) from None
