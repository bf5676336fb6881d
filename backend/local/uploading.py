"""From a file to the document of an image."""

from __future__ import annotations

import uuid
from pathlib import Path

from backend.errors import ConflictError
from backend.images.inspect import inspect_image
from backend.local.creation import current_user
from backend.model.documents import Document, format_time
from backend.model.kinds import IMAGE
from backend.model.schemas import check_name, validate_document
from backend.operations.images import fingerprint
from backend.store.protocol import Store


def source_of(path: Path) -> Document:
    """Return the parameters of the operation that stores a file; asked for before the file is inspected.

    What happens to the file from then on is found out. A file that cannot be looked at is the inspection's to refuse.
    """
    try:
        mark = fingerprint(path.stat())
    except OSError:
        mark = ""
    return {"path": str(path.absolute()), "fingerprint": mark}


def describe_image(path: Path, declared: dict[str, str], source: str = "") -> Document:
    """Return the spec of the image in a file, once the file is known for a safe image; raise RefusedError otherwise."""
    facts = inspect_image(path, declared_format=declared.get("format", ""), declared_sha256=declared.get("sha256", ""))
    return {
        "title": declared.get("title") or facts.title,
        "arch": declared.get("arch") or "x86_64",
        "format": facts.format,
        "digest": facts.digest,
        "sizeBytes": facts.size_bytes,
        "virtualSizeBytes": facts.virtual_size_bytes,
        "source": source or declared.get("source") or f"file:{path.name}",
    }


def prepare_image(
    store: Store, name: str, path: Path, metadata: Document, declared: dict[str, str], source: str = ""
) -> Document:
    """Return the body of a new image; raise ConflictError for a name that is taken, RefusedError for a bad file."""
    check_name(name, IMAGE)
    if store.find(IMAGE.name, name) is not None:
        raise ConflictError(f"image {name}", "the name is taken", "choose another; images never change")
    spec = describe_image(path, declared, source)
    now = format_time()
    body = validate_document({"kind": IMAGE.name, "name": name, "metadata": metadata, "spec": spec})
    return body | {"uid": str(uuid.uuid4()), "createdAt": now, "updatedAt": now, "updatedBy": current_user()}
