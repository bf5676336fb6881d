"""What a document says beyond itself: objects that it refers to, matters of the host, rights of others."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from backend.auth.protocol import EVERYTHING, Scope
from backend.auth.scopes import restriction
from backend.errors import NotFoundError
from backend.model.documents import Document, format_time, name_of, parse_time
from backend.model.kinds import IMAGE, MACHINE_TYPE, NETWORK, TOKEN, VM, Kind

if TYPE_CHECKING:
    from backend.auth.guard import Guard
    from backend.auth.guarded_reading import GuardedReading

_GATEWAY_VM: Final = "vm:"
_BRIDGE: Final = "bridge:"
_NAMED: Final = 8


def check_references(service: GuardedReading, kind: Kind, document: Document, live: Document | None) -> None:
    """Raise NotFoundError where a document refers to what may not be seen, unless it did so before.

    It is said in the same words whether there is such an object or not.
    """
    known = set(_list_references(kind, live)) if live is not None else set()
    for other, name in _list_references(kind, document):
        if (other, name) in known:
            continue
        try:
            service.find(other, name)
        except NotFoundError:
            names = [each["name"] for each in service.list_documents(other.name, limit=_NAMED, observe=False).items]
            hint = f"there are {', '.join(names)}" if names else f"see kc {other.command} list"
            what = f"{kind.title} {document.get('name', '')}"
            raise NotFoundError(what, f"no {other.title} {name}", hint) from None


def _list_references(kind: Kind, document: Document) -> list[tuple[Kind, str]]:
    """Return kind and name of what a document refers to, as far as its shape can be read; it may not be valid."""
    spec = document.get("spec")
    if not isinstance(spec, dict):
        return []
    found: list[tuple[Kind, str]] = []
    if kind is VM:
        nics = spec.get("nics")
        found = [
            (IMAGE, name_of(spec.get("image"))),
            (MACHINE_TYPE, name_of(spec.get("type"))),
            (IMAGE, name_of(spec.get("cdrom"))),
            *((NETWORK, name_of(nic.get("network"))) for nic in _dicts(nics)),
        ]
    elif kind is NETWORK and str(spec.get("gateway", "")).startswith(_GATEWAY_VM):
        found = [(VM, str(spec["gateway"]).removeprefix(_GATEWAY_VM).partition("/")[0])]
    return [(other, name) for other, name in dict.fromkeys(found) if name]


def check_host_matters(guard: Guard, document: Document, live: Document | None) -> None:
    """Raise DeniedError where a network takes what is the host's own, by somebody who has some networks alone.

    A bridge of the host's, a libvirt network that is there already, a VXLAN: behind each may be other people's segment.
    """
    action = "network.create" if live is None else "network.update"
    spec = document.get("spec")
    if not isinstance(spec, dict) or restriction(guard.scopes, action) is None:
        return
    before = live["spec"] if live is not None else {}
    uplink = str(spec.get("uplink", ""))
    asked = {
        "uplink": uplink if uplink.startswith(_BRIDGE) else None,
        "libvirtNetwork": spec.get("libvirtNetwork") or spec.get("libvirt_network"),
        "vxlan": spec.get("vxlan"),
    }
    for field, value in asked.items():
        if value and value != before.get(field):
            about = {"kind": NETWORK.name, "name": str(document.get("name", ""))}
            raise guard.deny(action, about, f"spec.{field}: it is the host's, which takes {action} without a selector")


def list_token_scopes(document: Document, live: Document | None) -> list[Scope]:
    """Return what a token is to allow; everything, where it is of no kind that says so."""
    spec = document.get("spec", live["spec"] if live is not None else None)
    if not isinstance(spec, dict) or spec.get("type") != "limited" or not isinstance(spec.get("scopes"), list):
        return list(EVERYTHING)
    scopes: list[Scope] = []
    for each in spec["scopes"]:
        actions = each.get("actions") if isinstance(each, dict) else None
        selector = each.get("selector", "") if isinstance(each, dict) else None
        if not isinstance(actions, list) or not isinstance(selector, str):
            return list(EVERYTHING)
        scopes.append(Scope(tuple(map(str, actions)), selector))
    return scopes


def check_lending(guard: Guard, document: Document, live: Document | None) -> None:
    """Raise DeniedError where a token would be made to outlive what its maker came with.

    Who holds a token that was narrowed (to an hour, say, or to one address) would have one that is not, by making it.
    One with an end makes none that ends later, nor puts off its own; but for whoever may do everything, and for a
    session: it stands for somebody whose rights do not end with it.
    """
    decision = guard.decision
    before = [live["spec"]["expiresAt"]] if live is not None else []
    ends = _list_ends(document) or before or [_usual_end()]
    if not decision.token or ends == before:
        return
    action = "token.create" if live is None else "token.update"
    about = {"kind": TOKEN.name, "name": str(document.get("name", ""))}
    if decision.narrowed:
        raise guard.deny(action, about, "a token that was narrowed makes none, and changes no end of one")
    if guard.may_everything or decision.from_grants or not decision.expires_at:
        return
    if not all(isinstance(end, str) and _ends_by(end, decision.expires_at) for end in ends):
        latest = format_time(decision.expires_at)
        raise guard.deny(action, about, f"it would outlive your own token: name an expiresAt up to {latest}")


def _list_ends(document: Document) -> list[Any]:
    """Return when a token is to end, by each of the names that the field may have."""
    spec = document.get("spec")
    return [spec[field] for field in ("expiresAt", "expires_at") if field in spec] if isinstance(spec, dict) else []


def _usual_end() -> str:
    from backend.model.tokens import DEFAULT_SECONDS  # noqa: PLC0415 - pydantic

    return format_time(time.time() + DEFAULT_SECONDS)


def _ends_by(text: str, latest: float) -> bool:
    try:
        return parse_time(text) <= latest
    except ValueError:
        return False


def _dicts(value: Any) -> list[Document]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
