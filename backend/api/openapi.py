"""The OpenAPI 3.1 document, made from the one table and from the models of the documents."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any, Final

from backend import __version__
from backend.api.problems import MEDIA, encode
from backend.api.rows import Answer, Body, Parameter, Row
from backend.api.schemas import COMPONENTS, NAME
from backend.api.table import ROWS

_PROBLEM: Final = {"$ref": "#/components/responses/Problem"}
_UNAUTHENTICATED: Final = {"$ref": "#/components/responses/Unauthenticated"}
_BUSY: Final = {"$ref": "#/components/responses/Busy"}
_ALWAYS: Final = (400, 404, 405, 406, 408, 414, 421, 429, 431, 500)
_ASKED: Final = (403, 503, 504)
_WITH_BODY: Final = (409, 410, 412, 413, 415, 422, 507)
_WORD = re.compile(r"\{(\w+)\}")
_HEADERS: Final = {
    "ETag": "the version of the document",
    "Location": "where the operation, or what was made, is found",
    "Remote-User": "who it is",
    "Remote-Groups": "the groups they are in, joined by commas",
}
_DESCRIPTION: Final = """Virtual machines, images, networks and machine types as documents with history.

A change is answered at once: with 202 and the place of an operation where the host is still to follow. A list shows
what the credential may see, and says `filtered` where there may be more. WebSockets (`x-websockets`) are no operations
of OpenAPI: their paths are asked by GET with an upgrade."""


_LICENSE: Final = {"name": "MIT", "identifier": "MIT"}


@cache
def build_document() -> dict[str, Any]:
    """Return the document; it is the same for everybody."""
    schemas: dict[str, Any] = {name: dict(schema) for name, schema in COMPONENTS.items()}
    paths: dict[str, Any] = {}
    sockets: dict[str, Any] = {}
    for row in ROWS:
        if row.socket:
            sockets[row.path] = {"operationId": row.operation_id, "summary": row.summary, "x-action": row.action}
        else:
            paths.setdefault(row.path, {})[row.method.lower()] = _describe(row, schemas)
    return {
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "KC",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": schemas, "responses": _make_responses(), "securitySchemes": _SCHEMES},
        "security": [{"credential": []}],
        "x-websockets": sockets,
    }


@cache
def render_document() -> bytes:
    """Return the document as JSON."""
    return encode(build_document())


_SCHEMES: Final = {
    "credential": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token of `kc token create`; the server's [auth] settings say what else is taken.",
    }
}


def _make_responses() -> dict[str, Any]:
    content = {MEDIA: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    retry = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
    challenge = {"WWW-Authenticate": {"schema": {"type": "string"}, "description": "what is asked for"}}
    return {
        "Problem": {"description": "an error (RFC 9457)", "content": content},
        "Unauthenticated": {"description": "no credential that holds", "content": content, "headers": challenge},
        "Busy": {"description": "not now", "content": content, "headers": retry},
    }


def _describe(row: Row, schemas: dict[str, Any]) -> dict[str, Any]:
    parameters = [
        {"name": word, "in": "path", "required": True, "schema": dict(NAME) if word == "name" else {"type": "string"},
         "description": "which one"}
        for word in _WORD.findall(row.path)
    ]  # fmt: skip
    operation: dict[str, Any] = {
        "operationId": row.operation_id,
        "summary": row.summary,
        "tags": [row.kind.collection if row.kind else row.path.strip("/").removeprefix("v1/").split("/")[0]],
        "parameters": [*parameters, *map(_describe_parameter, (*row.query, *row.headers))],
        "responses": _describe_answers(row),
    }
    if row.body is not None:
        operation["requestBody"] = _describe_body(row, row.body, schemas)
    if row.public:
        operation["security"] = []
    else:
        operation["x-action"] = row.action
    if row.streams:
        operation["x-streams"] = True
    return operation


def _describe_parameter(parameter: Parameter) -> dict[str, Any]:
    described = {"name": parameter.name, "in": parameter.place, "schema": dict(parameter.schema)}
    return {**described, "description": parameter.description, "required": False}


def _describe_answers(row: Row) -> dict[str, Any]:
    answers = {str(status): _describe_answer(answer) for status, answer in sorted(row.answers.items())}
    failures: dict[int, Any] = dict.fromkeys((*_ALWAYS, *row.errors), _PROBLEM)
    if not row.public:
        failures |= dict.fromkeys(_ASKED, _PROBLEM) | {401: _UNAUTHENTICATED, 503: _BUSY}
    if row.method not in ("GET", "HEAD", "OPTIONS") or row.kind is not None or row.query:
        failures |= dict.fromkeys(_WITH_BODY, _PROBLEM)
    return answers | {str(status): failures[status] for status in sorted(failures)}


def _describe_answer(answer: Answer) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.description}
    if answer.schema is not None:
        described["content"] = {answer.media: {"schema": dict(answer.schema)}}
        if answer.example is not None:
            described["content"][answer.media]["example"] = answer.example
    if answer.headers:
        described["headers"] = {
            name: {"schema": {"type": "string"}, "description": _HEADERS[name]} for name in answer.headers
        }
    return described


def _describe_body(row: Row, body: Body, schemas: dict[str, Any]) -> dict[str, Any]:
    if body.schema is None:
        content: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
    else:
        content = {"schema": _lift(row, dict(body.schema), schemas)}
        if body.example is not None:
            content["example"] = body.example
    return {"required": body.required, "content": dict.fromkeys(body.media, content)}


def _lift(row: Row, schema: dict[str, Any], schemas: dict[str, Any]) -> dict[str, Any]:
    """Return a body's schema with its definitions moved to the components, where every tool finds them.

    The same definitions of several bodies of a kind become one.
    """
    definitions = schema.pop("$defs", None)
    schema.pop("$schema", None)
    schema.pop("$id", None)
    if definitions is None:
        return schema
    prefix = f"{row.kind.name if row.kind else 'Any'}Spec"

    def move(value: Any) -> Any:
        text = json.dumps(value).replace('"#/$defs/', f'"#/components/schemas/{prefix}.')
        return json.loads(text)

    for name, definition in definitions.items():
        schemas[f"{prefix}.{name}"] = move(definition)
    moved: dict[str, Any] = move(schema)
    spec = moved.get("properties", {}).get("spec")
    if spec is not None:
        schemas[prefix] = spec
        moved["properties"]["spec"] = {"$ref": f"#/components/schemas/{prefix}"}
    return moved
