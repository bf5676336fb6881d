"""Handlers for what is done to VMs, networks, operations and the trash."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

from backend.api.conditions import as_conditional, read_tags
from backend.api.documents import answer, answer_accepted, find_key
from backend.api.rows import OCTETS
from backend.errors import ConflictError, KCError

if TYPE_CHECKING:
    from backend.api.exchange import Exchange


async def act(exchange: Exchange) -> Response:
    """Do to a VM what the path says."""
    parameters = await exchange.json()
    accepted = await exchange.call(
        exchange.service.act, exchange.name, exchange.row.verb, parameters, key=find_key(exchange)
    )
    return answer_accepted(exchange, accepted)


async def act_on_network(exchange: Exchange) -> Response:
    """Do to a network what the path says."""
    await exchange.json()
    accepted = await exchange.call(
        exchange.service.act_on_network, exchange.name, exchange.row.verb, key=find_key(exchange)
    )
    return answer_accepted(exchange, accepted)


async def clone(exchange: Exchange) -> Response:
    """Make a VM like another."""
    body = await exchange.json()
    accepted = await exchange.call(
        exchange.service.clone,
        exchange.name,
        body["name"],
        metadata=body.get("metadata"),
        start=body.get("start", False),
        key=find_key(exchange),
    )
    return answer_accepted(exchange, accepted)


async def rename(exchange: Exchange) -> Response:
    """Give a VM another name."""
    body = await exchange.json()
    wanted = read_tags("If-Match", exchange.header("if-match"))
    try:
        version = None
        if wanted is not None:
            live = await exchange.call(exchange.service.get, exchange.kind, exchange.name, observe=False)
            version = int(live.get("version", 0))
            if not wanted.anything and version not in wanted.strong:
                why = f"it is at version {version}, which If-Match does not list"
                raise ConflictError(exchange.name, why, "look at what changed", reason="version", current=version)
        accepted = await exchange.call(exchange.service.rename, exchange.name, body["name"], if_version=version)
    except KCError as error:
        is_stale = error.details.get("reason") == "version"
        raise as_conditional(error, conditional=wanted is not None and is_stale) from None
    return answer_accepted(exchange, accepted)


async def adopt(exchange: Exchange) -> Response:
    """Take a foreign domain under management, or say what that would do."""
    body = await exchange.json()
    name = body.get("name", "")
    if body.get("dryRun", False):
        adoption = await exchange.call(exchange.service.preview_adoption, exchange.name, name=name)
        return answer(adoption._asdict())
    accepted = await exchange.call(exchange.service.adopt, exchange.name, name=name, metadata=body.get("metadata"))
    return answer_accepted(exchange, accepted)


async def console_log(exchange: Exchange) -> Response:
    """Answer with the last of what a console has said."""
    data = await exchange.call(exchange.service.console_log, exchange.name, limit_bytes=exchange.query["limit"])
    # Bytes of a guest, which no browser is to take for a page.
    return Response(data, headers={"Content-Disposition": "attachment"}, media_type=OCTETS)


async def screenshot(exchange: Exchange) -> Response:
    """Answer with a picture of a VM's screen."""
    data = await exchange.call(exchange.service.screenshot, exchange.name)
    return Response(data, headers={"Cache-Control": "no-store"}, media_type="image/png")


async def cancel(exchange: Exchange) -> Response:
    """Ask an operation to end."""
    await exchange.json()
    return answer(await exchange.call(exchange.service.cancel, exchange.name))


async def purge(exchange: Exchange) -> Response:
    """Remove one deleted object for good."""
    accepted = await exchange.call(exchange.service.empty_trash, [exchange.name])
    return answer_accepted(exchange, accepted[0])


async def empty_trash(exchange: Exchange) -> Response:
    """Remove all deleted objects for good."""
    accepted = await exchange.call(exchange.service.empty_trash)
    return answer({"items": [each._asdict() for each in accepted]})
