"""The shapes of what is asked and answered, as JSON Schemas that name one another like the OpenAPI document does."""

from __future__ import annotations

from functools import cache
from typing import Final

from backend.api.rows import Parameter, Schema
from backend.model.documents import API_VERSION, Document
from backend.model.kinds import IMAGE, KINDS, MACHINE_TYPE, NETWORK, TOKEN, VM, Kind
from backend.model.schemas import NAME_PATTERN, document_schema

TEXT: Final[Schema] = {"type": "string"}
FLAG: Final[Schema] = {"type": "boolean"}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
VERSION: Final[Schema] = {"type": "integer", "minimum": 1, "maximum": 1 << 31}
OBJECT: Final[Schema] = {"type": "object"}
NAME: Final[Schema] = {"type": "string", "pattern": NAME_PATTERN, "maxLength": 63}
MESSAGE: Final[Schema] = {"type": "string", "maxLength": 2000}


def reference(name: str) -> Schema:
    """Return the reference to one of `COMPONENTS`."""
    return {"$ref": f"#/components/schemas/{name}"}


def record(properties: dict[str, Schema], *required: str, more: bool = False) -> Schema:
    """Return the schema of an object; of one that is asked for, nothing else may stand in it."""
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": more}


def items(schema: Schema) -> Schema:
    """Return the schema of `{"items": [...]}`."""
    return record({"items": {"type": "array", "items": schema}}, "items", more=True)


def optional(schema: Schema) -> Schema:
    """Return the schema of a value that may be null."""
    return {"anyOf": [schema, {"type": "null"}]}


def flag(name: str, description: str, *, default: bool = False) -> Parameter:
    """Return a parameter that is true or false."""
    return Parameter(name, {"type": "boolean", "default": default}, description)


SELECTOR = Parameter(
    "selector",
    {"type": "string", "maxLength": 4096, "default": ""},
    "which ones, such as `tenant=acme,status.power=running`",
)
LIMIT = Parameter("limit", {"type": "integer", "minimum": 1, "maximum": 10000, "default": 100}, "how many a page has")
CONTINUE = Parameter("continue", {"type": "string", "maxLength": 1024, "default": ""}, "where the page before ended")
OBSERVE = flag("observe", "ask the hypervisor for the live state; else what was known last", default=True)
ALL = flag("all", "hidden ones too")
MESSAGE_PARAMETER = Parameter("message", {**MESSAGE, "default": ""}, "why, for the history")
IF_MATCH = Parameter(
    "If-Match", {"type": "string", "maxLength": 1000}, 'the version that it must have: `"3"`', "header"
)
IF_NONE_MATCH = Parameter(
    "If-None-Match",
    {"type": "string", "maxLength": 1000},
    "the version that is known; `*` with PUT: only where it is new",
    "header",
)
IDEMPOTENCY_KEY = Parameter(
    "Idempotency-Key",
    {"type": "string", "pattern": "^[!-~]{1,100}$"},
    "for a week the same request with it is done once",
    "header",
)


def _document(kind: Kind) -> Schema:
    """Return the shape of a document that is answered; a foreign VM has version 0 and an empty spec."""
    properties = {
        "apiVersion": {"type": "string"},
        "kind": {"const": kind.name},
        "name": TEXT,
        "uid": TEXT,
        "version": COUNT,
        "metadata": OBJECT,
        "spec": OBJECT,
        "status": OBJECT,
        "message": TEXT,
        "createdAt": TEXT,
        "updatedAt": TEXT,
        "updatedBy": TEXT,
    }
    if kind is TOKEN:
        properties["token"] = {"type": "string", "description": "the secret, in the answer to its creation alone"}
    return record(properties, "kind", "name", "metadata", more=True)


def _list(name: str) -> Schema:
    return record(
        {
            "items": {"type": "array", "items": reference(name)},
            "continue": {"type": "string", "description": "asks for the next page; empty where this is the last"},
            "revision": COUNT,
            "warnings": {"type": "array", "items": TEXT},
            "filtered": {"type": "boolean", "description": "there may be more than may be seen with this credential"},
        },
        "items", "continue", "revision", "warnings", "filtered",
    )  # fmt: skip


_ANY_DOCUMENT = {"oneOf": [reference(kind.name) for kind in KINDS]}
_CHANGE = record(
    {"path": {"type": "array", "items": {"type": ["string", "integer"]}}, "operation": TEXT, "old": {}, "new": {}},
    "path", "operation", "old", "new",
)  # fmt: skip

COMPONENTS: Final[dict[str, Schema]] = {
    "Problem": record(
        {
            "type": {"type": "string", "format": "uri"},
            "title": TEXT,
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": TEXT,
            "hint": {"type": "string", "description": "what to do next"},
            "code": {"type": "string", "description": "the kind of error, such as `not-found` or `conflict`"},
            "requestId": TEXT,
        },
        "type", "title", "status", "detail", "code", more=True,
    ),
    **{kind.name: _document(kind) for kind in KINDS},
    **{f"{kind.name}List": _list(kind.name) for kind in KINDS},
    "Accepted": record(
        {"document": _ANY_DOCUMENT, "operation": optional(reference("Operation"))}, "document", "operation"
    ),
    "AcceptedList": items(reference("Accepted")),
    "Versions": items(
        record(
            {"version": COUNT, "at": TEXT, "by": TEXT, "message": TEXT, "document": optional(_ANY_DOCUMENT)},
            "version", "at", "by", "message", "document",
        )
    ),
    "Preview": record(
        {
            "before": optional(_ANY_DOCUMENT),
            "after": _ANY_DOCUMENT,
            "changes": {"type": "array", "items": _CHANGE},
            "effects": {"type": "array", "items": TEXT},
            "cuts": {"type": "array", "items": TEXT},
        },
        "before", "after", "changes", "effects", "cuts",
    ),
    "Adoption": record(
        {"document": OBJECT, "managed": {"type": "array", "items": TEXT}, "untouched": {"type": "array",
        "items": TEXT}},
        "document", "managed", "untouched",
    ),
    "Samples": items(OBJECT),
    "Findings": items(record({"check": TEXT, "state": TEXT, "message": TEXT, "mend": TEXT}, "check", "state",
    "message", "mend")),
    "Access": record(
        {
            "subject": TEXT,
            "groups": {"type": "array", "items": TEXT},
            "scopes": {
                "type": "array",
                "items": record({"actions": {"type": "array", "items": TEXT}, "selector": TEXT}, "actions", "selector"),
            },
            "expiresAt": TEXT,
        },
        "subject", "groups", "scopes", "expiresAt",
    ),
    "Session": record({"token": TEXT, "expiresAt": TEXT, "subject": TEXT}, "token", "expiresAt", "subject", more=True),
    "AuditList": record(
        {
            "items": {"type": "array", "items": OBJECT}, "continue": TEXT, "revision": COUNT,
            "warnings": {"type": "array", "items": TEXT}, "filtered": FLAG,
        },
        "items", "continue",
        more=True,
    ),
    "Faults": items(record({"where": TEXT, "what": TEXT, "repaired": FLAG}, "where", "what", "repaired")),
    "Compaction": record(
        {"versions": COUNT, "documents": COUNT, "bytesBefore": COUNT, "bytesAfter": COUNT},
        "versions", "documents", "bytesBefore", "bytesAfter",
    ),
    "Entries": record({"entries": COUNT}, "entries"),
    "Explanation": record(
        {
            "outcome": TEXT, "subject": TEXT, "groups": {"type": "array", "items": TEXT}, "reason": TEXT,
            "permitted": FLAG,
            "authenticator": TEXT,
            "scopes": {"type": "array", "items": OBJECT},
            "answers": {
                "type": "array",
                "items": record({"name": TEXT, "type": TEXT, "outcome": TEXT, "reason": TEXT}, "name", "type",
                "outcome", "reason"),
            },
        },
        "outcome", "permitted", "answers",
        more=True,
    ),
    "Healthy": record({"status": {"enum": ["ok", "degraded"]}}, "status"),
}  # fmt: skip
"""What operations answer with."""


@cache
def document_input(kind: Kind, *required: str) -> Schema:
    """Return the schema of a document that is sent; `$defs` inside. What the path says may be left out."""
    schema = document_schema(kind)
    return {**schema, "required": list(required)}


def patch_input(kind: Kind) -> Schema:
    """Return the schema of a merge patch: metadata and spec, each as far as it changes."""
    merged: Schema = {"type": "object", "description": "members as they are to be; null takes one away"}
    version = {"type": "integer", "minimum": 1}
    head = {"apiVersion": {"const": API_VERSION}, "kind": {"const": kind.name}, "name": NAME}
    return {
        **record({**head, "version": version, "metadata": merged, "spec": merged, "message": MESSAGE}),
        "minProperties": 1,
    }


EXAMPLES: Final[dict[str, Document]] = {
    VM.name: {
        "kind": "VM",
        "name": "web-1",
        "metadata": {"tenant": "acme"},
        "spec": {"image": "starter", "type": "tiny", "nics": [{"network": "default"}]},
    },
    IMAGE.name: {
        "kind": "Image",
        "name": "starter",
        "metadata": {"tenant": "acme"},
        "spec": {
            "title": "a small Linux", "arch": "x86_64", "format": "raw", "digest": f"sha256:{'5' * 64}",
            "sizeBytes": 67108864, "virtualSizeBytes": 67108864, "source": "",
        },
    },
    NETWORK.name: {
        "kind": "Network",
        "name": "blue",
        "metadata": {"tenant": "acme"},
        "spec": {"uplink": "nat", "ipv4": {"subnet": "10.20.0.0/24", "mode": "dhcp"}},
    },
    MACHINE_TYPE.name: {
        "kind": "MachineType",
        "name": "small",
        "metadata": {},
        "spec": {"hardware": {"cpus": 1, "memoryMiB": 512, "diskGiB": 2}},
    },
    TOKEN.name: {
        "kind": "Token",
        "name": "deploy",
        "metadata": {"tenant": "acme"},
        "spec": {"type": "limited", "scopes": [{"actions": ["vm.read", "vm.start"], "selector": "tenant=acme"}]},
    },
}  # fmt: skip
"""A document of each kind that is sent."""
