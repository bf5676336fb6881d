"""The authenticators of this machine's KC, asked without a server."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from backend.api.access import describe_explanation
from backend.auth.chain import Chain, Explanation
from backend.auth.opening import open_chain
from backend.auth.protocol import AuthRequest, Client, Peer, Resource
from backend.errors import KCError, UsageError
from backend.model.kinds import find_kind
from kc_tui.cli.session import Session


def list_entries(session: Session) -> list[dict[str, str]]:
    """Return the authenticators with their health, as JSON objects."""

    async def look() -> list[dict[str, str]]:
        chain = _open(session)
        try:
            return [entry._asdict() for entry in await chain.check_health()]
        finally:
            await chain.close()

    return asyncio.run(look())


def explain(session: Session, action: str, kind: str, name: str, credential: str) -> dict[str, Any]:
    """Return how a decision comes about; without a credential that of the own user over the unix socket."""
    resource, document = _find(session, kind, name)
    try:
        secret = credential.encode("latin-1")
    except UnicodeEncodeError:
        raise UsageError("credential", "it is no header's value", "give what the header would have") from None
    peer = Peer(os.getpid(), os.geteuid(), os.getegid())
    client = Client("tcp", "127.0.0.1") if secret else Client("unix", peer=peer)
    question = AuthRequest("kc-auth-check", action, client, secret, resource)

    async def ask() -> Explanation:
        chain = _open(session)
        try:
            return await chain.explain(question)
        finally:
            await chain.close()

    return describe_explanation(asyncio.run(ask()), question, document)


def _open(session: Session) -> Chain:
    service: Any = session.service
    return open_chain(session.settings, service.store, service.audit)


def _find(session: Session, kind: str, name: str) -> tuple[Resource | None, Any]:
    if not kind:
        return None, None
    which = find_kind(kind)
    try:
        document = session.service.get(which.name, name, observe=False)
    except KCError:
        return Resource(which.name, name), None
    return Resource(which.name, name, str(document.get("uid", "")), document.get("metadata")), document
