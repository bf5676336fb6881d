"""The steps that bring an image's bytes into the pool, and take them out again."""

from __future__ import annotations

import os
from pathlib import Path

from backend.errors import ConflictError, FailedError
from backend.images.volumes import image_volume
from backend.model.documents import Document
from backend.model.kinds import IMAGE, TRASH
from backend.operations.steps import Context, Step
from backend.store.protocol import Store


def fingerprint(status: os.stat_result) -> str:
    """Return what changes whenever a file's bytes may have: what was inspected is to be what is stored."""
    return f"{status.st_dev}:{status.st_ino}:{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"


def ensure_pool(context: Context) -> None:
    """Have the storage pool there and started."""
    context.hypervisor.ensure_pool()


def store_bytes(context: Context) -> None:
    """Copy the image into the pool, unless the very same bytes are there already."""
    spec, name = context.target["spec"], image_volume(context.target["spec"])
    if context.hypervisor.find_volume(name) is not None:
        context.status["volume"] = name
        return
    path = Path(context.parameters["path"])
    size: int = spec["sizeBytes"]
    what = f"image {context.target['name']}"
    try:
        with path.open("rb") as source:
            status = os.fstat(source.fileno())
            if fingerprint(status) != context.parameters["fingerprint"]:
                raise FailedError(what, f"{path} has changed since it was checked", "upload it again")
            # Holes take no room in the pool either.
            needed = min(size, status.st_blocks * 512)
            free = context.hypervisor.free_bytes()
            if free < needed:
                raise FailedError(
                    what,
                    f"no room in the pool: {needed >> 20} MiB needed, {free >> 20} MiB free",
                    "make room, or name another pool with KC_POOL",
                )
            context.hypervisor.upload(
                name, source, size, volume_format=spec["format"], report=lambda done: context.report(done, size)
            )
            if fingerprint(os.fstat(source.fileno())) != context.parameters["fingerprint"]:
                context.hypervisor.ensure_volume_gone(name)
                raise FailedError(what, f"{path} changed while it was stored", "upload it again")
    except OSError as error:
        raise FailedError(what, f"cannot read {path}: {error.strerror}", "upload it again") from error
    context.status["volume"] = name


def is_shared(store: Store, digest: str, uid: str) -> bool:
    """Return whether another image than `uid`, or another one in the trash, has the same bytes."""

    def has_it(document: Document) -> bool:
        spec = document["spec"].get("document", document).get("spec", {})
        return bool(document["uid"] != uid and spec.get("digest") == digest)

    return any(store.list_documents(kind.name, where=has_it, limit=1).items for kind in (IMAGE, TRASH))


def remove_bytes(context: Context) -> None:
    """Delete the image's bytes, unless another image has the same or a domain of the host still uses them."""
    if is_shared(context.store, context.target["spec"]["digest"], context.target["uid"]):
        return
    volume = image_volume(context.target["spec"])
    users = context.hypervisor.volume_users(volume)
    if users:
        raise ConflictError(
            f"image {context.target['name']}", f"in use by {', '.join(users[:3])}", "delete what uses it first"
        )
    context.hypervisor.ensure_volume_gone(volume)


def remove_unused_bytes(context: Context) -> None:
    """Delete what a failed upload left; bytes that somebody uses by now stay."""
    if is_shared(context.store, context.target["spec"]["digest"], context.target["uid"]):
        return
    volume = image_volume(context.target["spec"])
    if context.hypervisor.find_volume(volume) is None and not context.hypervisor.volume_users(volume):
        context.hypervisor.ensure_volume_gone(volume)


PRESENT = (
    Step("pool", "finding the storage pool", ensure_pool),
    Step("store", "storing the image", store_bytes),
)
REMOVED = (Step("bytes", "deleting the image", remove_bytes),)
UNDONE = (Step("bytes", "deleting what was stored", remove_unused_bytes),)
