"""Handlers for the server, its host and its store as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

from backend.api.documents import answer
from backend.api.rows import JSON
from backend.model.kinds import KINDS
from backend.service import Finding

if TYPE_CHECKING:
    from backend.api.exchange import Exchange


async def samples(exchange: Exchange) -> Response:
    """Answer with the counters of all VMs."""
    found = await exchange.call(exchange.service.samples)
    return answer({"items": [sample._asdict() for sample in found]})


async def diagnose(exchange: Exchange) -> Response:
    """Answer with what works on the server's host, and what is wrong with the server's own settings."""
    findings = await exchange.call(exchange.service.diagnose)
    if fault := exchange.server.chain.fault:
        mend = "mend the file; it is read again by itself"
        findings.append(Finding("authenticators", "failed", f"settings before a change are in force: {fault}", mend))
    return answer({"items": [finding._asdict() for finding in findings]})


async def list_schemas(exchange: Exchange) -> Response:  # noqa: ARG001 - the same for everybody
    """Answer with the words of all kinds."""
    return answer({"items": [kind.command for kind in KINDS]})


async def show_schema(exchange: Exchange) -> Response:
    """Answer with the JSON Schema of a kind's documents."""
    return answer(await exchange.call(exchange.service.schema, exchange.path["kind"]))


async def check_store(exchange: Exchange) -> Response:
    """Verify the store."""
    body = await exchange.json()
    faults = await exchange.call(exchange.service.check_store, repair=body.get("repair", False))
    return answer({"items": [fault._asdict() for fault in faults]})


async def compact_store(exchange: Exchange) -> Response:
    """Drop what is to be kept no longer."""
    await exchange.json()
    done = await exchange.call(exchange.service.compact_store)
    return answer(
        {
            "versions": done.versions,
            "documents": done.documents,
            "bytesBefore": done.bytes_before,
            "bytesAfter": done.bytes_after,
        }
    )


async def copy_store(exchange: Exchange) -> Response:
    """Copy one store into another."""
    body = await exchange.json()
    return answer({"entries": await exchange.call(exchange.service.copy_store, body["source"], body["target"])})


async def show_metrics(exchange: Exchange) -> Response:
    """Answer with the server's counters."""
    from backend.api.metrics import TEXT  # noqa: PLC0415 - its only use

    # The number of operations is the server's, whoever asks: who may not see one learns no more than that.
    text = await exchange.call(exchange.server.metrics.render, exchange.server.service)
    return Response(text, headers={"Content-Type": TEXT})


async def show_health(exchange: Exchange) -> Response:
    """Say that the server answers, and whether settings were changed that it could not take; `doctor` says which."""
    return answer({"status": "degraded" if exchange.server.chain.fault else "ok"})


async def show_openapi(exchange: Exchange) -> Response:
    """Answer with the OpenAPI document."""
    from backend.api.openapi import render_document  # noqa: PLC0415 - few ask

    return Response(await exchange.call(render_document), media_type=JSON)
