"""Handlers for who somebody is and what they may do: sessions, decisions for reverse proxies, and the audit trail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from backend.api.documents import answer, page_value
from backend.auth.protocol import AuthRequest, Decision, Resource
from backend.auth.scopes import may_some, permits
from backend.errors import DeniedError, FailedError, KCError, UsageError
from backend.model.actions import list_actions
from backend.model.kinds import find_kind

if TYPE_CHECKING:
    from backend.api.exchange import Exchange
    from backend.api.sessions import Sessions

_NO_STORE = {"Cache-Control": "no-store"}


# --- sessions
async def show_session(exchange: Exchange) -> Response:
    """Answer with who asks, and what they may do."""
    access = await exchange.call(exchange.service.access)
    scopes = [{"actions": list(actions), "selector": selector} for actions, selector in access.scopes]
    value = {"subject": access.subject, "groups": access.groups, "scopes": scopes, "expiresAt": access.expires_at}
    return answer(value, headers=_NO_STORE)


async def create_session(exchange: Exchange) -> Response:
    """Make a short token from a credential that is better not sent often."""
    await exchange.json()
    sessions = _find_sessions(exchange)
    secret, document = await exchange.call(sessions.make, exchange.decision)
    expires = document["spec"]["expiresAt"]
    return answer({"token": secret, "expiresAt": expires, "subject": exchange.decision.subject}, 201, _NO_STORE)


async def end_session(exchange: Exchange) -> Response:
    """Revoke the session whose token this is."""
    await exchange.call(_find_sessions(exchange).end, exchange.decision)
    return Response(status_code=204)


def _find_sessions(exchange: Exchange) -> Sessions:
    sessions = exchange.server.sessions
    if sessions is None:
        raise FailedError("session", "this server makes none", "use a token")
    return sessions


# --- decisions
async def check(exchange: Exchange) -> Response:
    """Say whether a request to something else is to be let through, and whose it is."""
    query = exchange.query
    if query.get("action"):
        find = _prepare_resource(exchange, query.get("kind", ""), query.get("name", ""))
        _check_action(query["action"])
        resource, document = await exchange.call(find)
        if not _is_permitted(exchange.decision, query["action"], resource, document):
            raise DeniedError("request", f"{query['action']} is not allowed", "ask whoever grants it")
    groups = [group for group in exchange.decision.groups if "," not in group]
    # Also of somebody without a group: a proxy that copies what is not there may leave the client's own, or a stand-in.
    headers = {
        "Remote-User": _as_header(exchange.decision.subject),
        "Remote-Groups": _as_header(",".join(groups)),
        **_NO_STORE,
    }
    return Response(status_code=204, headers=headers)


def _as_header(text: str) -> str:
    """Return a text as a header carries it: its UTF-8, byte by byte (RFC 9110, 5.5)."""
    return text.encode("utf-8").decode("latin-1")


async def explain(exchange: Exchange) -> Response:
    """Say how a decision comes about, for another credential or for this one."""
    if not may_some(exchange.decision.scopes or (), "auth.check"):
        raise DeniedError("auth", "auth.check is not allowed", "ask for a token that allows it")
    body: dict[str, Any] = await exchange.json()
    action = str(body["action"])
    _check_action(action)
    resource, document = await exchange.call(
        _prepare_resource(exchange, str(body.get("kind", "")), str(body.get("name", "")))
    )
    question = replace(exchange.question, action=action, resource=resource)
    if "credential" in body:
        question = replace(question, credential=_as_credential(str(body["credential"])))
    return answer(await explain_question(exchange, question, document), headers=_NO_STORE)


async def explain_question(exchange: Exchange, question: AuthRequest, document: Any) -> dict[str, Any]:
    """Return what each authenticator says of a question, what comes of it, and whether the action is permitted."""
    explanation = await exchange.server.chain.explain(question)
    return describe_explanation(explanation, question, document)


def describe_explanation(explanation: Any, question: AuthRequest, document: Any) -> dict[str, Any]:
    """Return an explanation as it is answered; no credential is in it."""
    decision: Decision = explanation.decision
    answers = [
        {
            "name": each.name,
            "type": each.type,
            "outcome": each.decision.outcome if each.decision else "not asked",
            "reason": each.decision.reason if each.decision else "the credential is not of its kind",
        }
        for each in explanation.answers
    ]
    return {
        "outcome": decision.outcome,
        "subject": decision.subject,
        "groups": list(decision.groups),
        "reason": decision.reason,
        "authenticator": decision.authenticator,
        "scopes": [{"actions": list(scope.actions), "selector": scope.selector} for scope in decision.scopes or ()],
        "permitted": decision.allowed and _is_permitted(decision, question.action, question.resource, document),
        "answers": answers,
    }


def _as_credential(text: str) -> bytes:
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise UsageError("credential", "it is no header's value", "send what the header would have") from None


def _check_action(action: str) -> None:
    if action not in list_actions():
        raise UsageError(
            "action", "there is no such action", "write one like vm.start; kc token create --help lists them"
        )


def _prepare_resource(exchange: Exchange, kind: str, name: str) -> Callable[[], tuple[Resource | None, Any]]:
    """Return what finds, in a thread, an object that is spoken of; the caller is told no more than the decision."""

    def find() -> tuple[Resource | None, Any]:
        if not kind:
            return None, None
        which = find_kind(kind)
        if not name:
            return Resource(which.name), None
        try:
            document = exchange.server.service.get(which.name, name, observe=False)
        except KCError:
            return Resource(which.name, name), None
        return Resource(which.name, name, str(document.get("uid", "")), document.get("metadata")), document

    return find


def _is_permitted(decision: Decision, action: str, resource: Resource | None, document: Any) -> bool:
    scopes = decision.scopes or ()
    if resource is None or not resource.name:
        return may_some(scopes, action)
    return document is not None and permits(scopes, action, document)


async def list_audit(exchange: Exchange) -> Response:
    """Answer with a page of the audit trail."""
    query = exchange.query
    page = await exchange.call(
        exchange.service.list_audit, selector=query["selector"], limit=query["limit"], after=query["continue"]
    )
    return answer(page_value(page), headers=_NO_STORE)
