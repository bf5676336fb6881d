"""The rows of the table that are no document's: streams, uploads, access, the store and the server itself."""

from __future__ import annotations

from typing import Final

from backend.api.rows import EVENTS, NDJSON, OCTETS, PIECE, Answer, Body, Parameter, Row
from backend.api.schemas import (
    CONTINUE,
    FLAG,
    LIMIT,
    SELECTOR,
    TEXT,
    items,
    record,
    reference,
)  # fmt: skip
from backend.model.kinds import KINDS, OPERATION, TRASH, VM

_ACCEPTED = {
    200: Answer("done", reference("Accepted")),
    202: Answer("accepted", reference("Accepted"), headers=("Location",)),
}
_TIMEOUT = Parameter("timeout", {"type": "number", "minimum": 0, "maximum": 86400}, "seconds to wait at most")
_EVENTS = {200: Answer("events, until it ends", TEXT, media=EVENTS)}
_NOTHING = Body(record({}), {}, required=False)
_KIND_WORDS = ", ".join(kind.command for kind in KINDS)
_WORD = {"type": "string", "maxLength": 200}

_STREAMS = (
    Row(
        "GET", "/v1/watch", "watch", "Follow changes of documents, live states included", "vm.read", "streams.watch",
        query=(
            Parameter("kinds", {"type": "string", "maxLength": 200}, f"which kinds, joined by commas: {_KIND_WORDS}"),
            SELECTOR,
            Parameter("since", {"type": "integer", "minimum": 0}, "after this revision; from now on by default"),
        ),
        headers=(Parameter("Last-Event-ID", {"type": "string", "pattern": "^[0-9]{1,18}$"}, "goes before since",
        "header"),),
        answers=_EVENTS, errors=(410,), streams=True,
    ),
    Row(
        "GET", "/v1/operations/{name}/wait", "wait-op", "Follow an operation to its end", "op.read",
        "streams.wait_operation", OPERATION, query=(_TIMEOUT,), answers=_EVENTS, streams=True,
    ),
    Row(
        "GET", "/v1/vms/{name}/wait", "wait-vm", "Follow a VM until it runs, or is ready", "vm.read", "streams.wait_vm",
        VM,
        query=(Parameter("state", {"type": "string", "enum": ["running", "ready"], "default": "ready"},
        "until when"), _TIMEOUT),
        answers=_EVENTS, streams=True,
    ),
    Row(
        "GET", "/v1/vms/{name}/console", "console-vm", "A VM's serial console: a WebSocket of binary frames",
        "vm.console",
        "sockets.console", VM, socket=True,
    ),
    Row(
        "GET", "/v1/vms/{name}/display", "display-vm", "A VM's screen (RFC 6143): a WebSocket of binary frames",
        "vm.display", "sockets.display", VM, socket=True,
    ),
    Row(
        "GET", "/v1/vms/{name}/console-log", "console-log-vm", "The last of what a VM's console has said", "vm.console",
        "actions.console_log", VM,
        query=(Parameter("limit", {"type": "integer", "minimum": 1, "maximum": 1 << 24, "default": 1 << 20},
        "bytes at most"),),
        answers={200: Answer("bytes", {"type": "string", "format": "binary"}, media=OCTETS)},
    ),
    Row(
        "GET", "/v1/vms/{name}/screenshot", "screenshot-vm", "A picture of a VM's screen", "vm.display",
        "actions.screenshot", VM, answers={200: Answer("a picture", {"type": "string", "format": "binary"},
        media="image/png")},
    ),
    Row(
        "POST", "/v1/operations/{name}/actions/cancel", "cancel-op", "Ask an operation to end and undo itself",
        "op.cancel",
        "actions.cancel", OPERATION, body=_NOTHING, answers={200: Answer("the operation", reference(OPERATION.name))},
    ),
    Row(
        "DELETE", "/v1/trash/{name}", "purge-trash", "Remove a deleted object for good", "trash.delete",
        "actions.purge",
        TRASH, answers=_ACCEPTED,
    ),
    Row(
        "DELETE", "/v1/trash", "empty-trash", "Remove all deleted objects for good", "trash.delete",
        "actions.empty_trash",
        TRASH, answers={200: Answer("what was begun", reference("AcceptedList"))},
    ),
)  # fmt: skip

_UPLOADS = (
    Row("OPTIONS", "/v1/uploads", "uploads-options", "What the upload protocol (tus 1.0) can do here", "image.upload",
        "uploads.options", answers={204: Answer("see the headers")}),
    Row("POST", "/v1/uploads", "create-upload", "Begin an upload of an image (tus 1.0)", "image.upload",
        "uploads.create",
        body=Body(None, required=False, media=(PIECE,)), answers={201: Answer("begun", headers=("Location",))},
        streams=True),
    Row("HEAD", "/v1/uploads/{name}", "head-upload", "How far an upload has come", "image.upload", "uploads.head",
        answers={200: Answer("see Upload-Offset")}),
    Row("PATCH", "/v1/uploads/{name}", "patch-upload", "Go on with an upload", "image.upload", "uploads.patch",
        body=Body(None, media=(PIECE,)), answers={204: Answer("see Upload-Offset")}, streams=True),
    Row("DELETE", "/v1/uploads/{name}", "delete-upload", "Give an upload up", "image.upload", "uploads.terminate",
        answers={204: Answer("it is gone")}),
)  # fmt: skip

_ACCESS = (
    Row("GET", "/v1/session", "show-session", "Who this credential is, and what it may do", "session.read",
        "access.show_session", answers={200: Answer("access", reference("Access"))}),
    Row("POST", "/v1/session", "create-session", "A short token instead of this credential", "session.create",
        "access.create_session", body=_NOTHING, answers={201: Answer("the token", reference("Session"))}),
    Row("DELETE", "/v1/session", "end-session", "Revoke the session whose token this is", "session.delete",
        "access.end_session", answers={204: Answer("it holds no more")}),
    Row("GET", "/v1/auth/check", "auth-check", "Answer a reverse proxy that asks whether to let a request through",
        "auth.check", "access.check",
        query=(Parameter("action", _WORD, "may this be done, such as vm.start"), Parameter("kind", _WORD,
        "on which kind"),
               Parameter("name", _WORD, "on which object")),
        answers={204: Answer("yes; who it is", headers=("Remote-User", "Remote-Groups"))}),
    Row("POST", "/v1/auth/explain", "auth-explain", "How a decision comes about", "auth.check", "access.explain",
        body=Body(record({"credential": {"type": "string", "maxLength": 8192, "writeOnly": True},
        "action": _WORD, "kind": _WORD, "name": _WORD},
                         "action"), {"action": "vm.start", "kind": "vm", "name": "web-1"}),
        answers={200: Answer("each answer, and the decision", reference("Explanation"))}),
    Row("GET", "/v1/audit", "list-audit", "Decisions and writes, the newest first", "audit.read", "access.list_audit",
        query=(SELECTOR, LIMIT, CONTINUE), answers={200: Answer("one page", reference("AuditList"))}),
)  # fmt: skip

_STORE = (
    Row("GET", "/v1/export", "export-store", "The whole store, history included", "store.export",
        "transfers.export_store", answers={200: Answer("JSON lines", TEXT, media=NDJSON)}, streams=True),
    Row("POST", "/v1/import", "import-store", "Take an export into an empty store", "store.import",
        "transfers.import_store", body=Body(None, media=(NDJSON,)),
        answers={200: Answer("done", reference("Entries"))}, streams=True),
    Row("POST", "/v1/store/check", "check-store", "Verify the store", "store.check", "whole.check_store",
        body=Body(record({"repair": FLAG}), {"repair": False}, required=False),
        answers={200: Answer("what is wrong", reference("Faults"))}),
    Row("POST", "/v1/store/compact", "compact-store", "Drop what is to be kept no longer", "store.compact",
        "whole.compact_store", body=_NOTHING, answers={200: Answer("done", reference("Compaction"))}),
    Row("POST", "/v1/store/copy", "copy-store", "Copy one store into another", "store.copy", "whole.copy_store",
        body=Body(record({"source": {"type": "string", "maxLength": 4096}, "target": {"type": "string",
        "maxLength": 4096}},
                         "source", "target"), {"source": "tinydb:/srv/kc/old.db", "target": "tinydb:/srv/kc/new.db"}),
        answers={200: Answer("done", reference("Entries"))}),
    Row("POST", "/v1/init", "init", "Make the default network, machine types and starter image", "host.init",
        "transfers.initialise", body=_NOTHING, answers=_EVENTS, streams=True),
)  # fmt: skip

_SERVER = (
    Row("GET", "/v1/samples", "list-samples", "Counters of all VMs", "vm.read", "whole.samples",
        answers={200: Answer("counters", reference("Samples"))}),
    Row("GET", "/v1/doctor", "doctor", "What works on the server's host", "host.read", "whole.diagnose",
        answers={200: Answer("findings", reference("Findings"))}),
    Row("GET", "/v1/schemas", "list-schemas", "The kinds that there are", "schema.read", "whole.list_schemas",
        answers={200: Answer("names", items(TEXT))}),
    Row("GET", "/v1/schemas/{kind}", "show-schema", "The JSON Schema of a kind's documents", "schema.read",
        "whole.show_schema", answers={200: Answer("a JSON Schema", {"type": "object"})}),
    Row("GET", "/metrics", "metrics", "Counters of the server, in Prometheus's text format", "host.read",
        "whole.show_metrics", answers={200: Answer("text", TEXT, media="text/plain")}),
    Row("GET", "/healthz", "healthz", "Whether the server answers", "", "whole.show_health", public=True,
        answers={200: Answer("it does", reference("Healthy"))}),
    Row("GET", "/openapi.json", "openapi", "This document", "", "whole.show_openapi", public=True,
        answers={200: Answer("OpenAPI 3.1", {"type": "object"})}),
)  # fmt: skip

WHOLE_ROWS: Final = (*_STREAMS, *_UPLOADS, *_ACCESS, *_STORE, *_SERVER)
OWN_ACTIONS: Final = frozenset({"session.read", "session.create", "session.delete", "schema.read"})
"""Actions that every credential may do, whatever its scopes: no scope speaks of them."""
