"""`kc doctor`: what works here, what does not, and the command that mends it. It changes nothing."""

from __future__ import annotations

import grp
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from backend.errors import KCError
from backend.hypervisor.plan import HostFacts
from backend.hypervisor.protocol import Hypervisor
from backend.images.volumes import image_volume
from backend.local.network_status import describe_networks
from backend.model.documents import Document, is_readable
from backend.model.kinds import IMAGE, NETWORK
from backend.operations.journal import Owner
from backend.operations.networks import plan_network
from backend.service import Finding
from backend.settings import Settings
from backend.store.protocol import Store
from backend.text import sanitise

MEBIBYTE = 1 << 20
GROUP_READ_WRITE = 0o060
LITTLE_ROOM_BYTES = 1 << 30


def diagnose(store: Store, hypervisor: Hypervisor, settings: Settings) -> list[Finding]:
    """Return the findings, in the order in which things depend on each other."""
    findings = [*_check_store(store)]
    try:
        facts = hypervisor.facts()
    except KCError as error:
        findings.append(Finding("libvirt", "failed", error.why, error.hint))
        return findings
    findings.append(
        Finding("libvirt", "ok", f"{facts.uri}: libvirt {facts.libvirt_version}, QEMU {facts.qemu_version}", "")
    )
    if _is_local(facts.uri):
        findings.extend(_check_daemons())
        findings.extend(_check_kvm_device())
    findings.append(_check_acceleration(facts))
    findings.append(
        Finding("guests", "ok" if facts.guest_archs else "warning", f"can run {', '.join(facts.guest_archs) or 'none'}",
                "" if facts.guest_archs else "apt-get install qemu-system-x86")
    )  # fmt: skip
    for check in (_check_pool, _check_networks, _check_images):
        try:
            findings.extend(check(store, hypervisor, settings))
        except KCError as error:
            findings.append(Finding(check.__name__.removeprefix("_check_"), "failed", f"{error.what}: {error.why}",
                                    error.hint))  # fmt: skip
    findings.extend(_check_tools())
    return findings


def _is_local(uri: str) -> bool:
    return uri.startswith(("qemu:///", "qemu+unix:///"))


def _check_store(store: Store) -> Iterator[Finding]:
    yield Finding("store", "ok", f"{store.url}, revision {store.revision()}", "")
    owner = Owner()
    unfinished = [uid for uid, lease in store.leases() if owner.may_take(lease)]
    if unfinished:
        yield Finding("operations", "warning", f"{len(unfinished)} interrupted", "kc op list")


def _check_daemons() -> Iterator[Finding]:
    # Without virtlogd every start fails after 50 s, and libvirt says nothing about it before.
    socket = Path("/run/libvirt/virtlogd-sock")
    if os.geteuid() == 0:
        state = "ok" if socket.exists() else "failed"
        yield Finding("virtlogd", state, "answers" if state == "ok" else "does not run: every start would fail",
                      "" if state == "ok" else "virtlogd -d")  # fmt: skip


def _check_kvm_device() -> Iterator[Finding]:
    device = Path("/dev/kvm")
    try:
        status = device.stat()
    except OSError:
        return
    try:
        group = grp.getgrnam("kvm").gr_gid
    except KeyError:
        return
    if status.st_mode & GROUP_READ_WRITE != GROUP_READ_WRITE or status.st_gid != group:
        yield Finding(
            "/dev/kvm", "warning", "QEMU's user cannot open it, so libvirt probes it again and again: slow starts",
            "chgrp kvm /dev/kvm && chmod 660 /dev/kvm",
        )  # fmt: skip


def _check_acceleration(facts: HostFacts) -> Finding:
    if facts.kvm_usable:
        return Finding("acceleration", "ok", "KVM", "")
    if facts.kvm_usable is None:
        return Finding("acceleration", "ok", "KVM is listed; the first start will prove it", "")
    reason = f": {facts.kvm_reason}" if facts.kvm_reason else ""
    return Finding("acceleration", "warning", f"guests are emulated (TCG) and slow{reason}",
                   "enable virtualisation in the firmware, or nested virtualisation on the host")  # fmt: skip


def _check_pool(_store: Store, hypervisor: Hypervisor, settings: Settings) -> Iterator[Finding]:
    free = hypervisor.free_bytes()
    state = "ok" if free >= LITTLE_ROOM_BYTES else "warning"
    yield Finding("pool", state, f"{settings.pool}: {free // MEBIBYTE:,} MiB free",
                  "" if state == "ok" else "make room, or name another pool with KC_POOL")  # fmt: skip


def _check_networks(store: Store, hypervisor: Hypervisor, _settings: Settings) -> Iterator[Finding]:
    documents = store.list_documents(NETWORK.name).items
    if not documents:
        yield Finding("networks", "warning", "none", "kc init")
        return
    yield from _check_obstacles(store, hypervisor, [document for document in documents if is_readable(document)])
    for document in filter(is_readable, describe_networks(store, hypervisor, documents)):
        yield from _judge_network(document)


def _check_obstacles(store: Store, hypervisor: Hypervisor, documents: list[Document]) -> Iterator[Finding]:
    """Yield what of the host stands in the way of networks; that its kernel cannot be asked is one more finding."""
    try:
        obstacles = hypervisor.network_obstacles(
            [plan_network(store, document, with_clients=False) for document in documents]
        )
    except KCError as error:
        yield Finding("networks", "warning", f"{error.what}: {error.why}", error.hint)
        return
    for obstacle in obstacles:
        yield Finding(sanitise(obstacle.what, 80), "failed", sanitise(obstacle.why, 400), sanitise(obstacle.mend, 400))


def _judge_network(document: Document) -> Iterator[Finding]:
    name, status = f"network {document['name']}", document["status"]
    for problem in status["problems"]:
        state = "failed" if status["state"] == "down" else "warning"
        yield Finding(name, state, problem["message"], problem["hint"])
    if not status["problems"]:
        reason = status.get("reason") or "the host does not tell"
        is_up = status["state"] == "up"
        yield Finding(name, "ok" if is_up else "warning", f"up as {status['bridge']}" if is_up else reason, "")


def _check_images(store: Store, hypervisor: Hypervisor, _settings: Settings) -> Iterator[Finding]:
    documents = store.list_documents(IMAGE.name).items
    if not documents:
        yield Finding("images", "warning", "none", "kc init")
    volumes = {volume.name for volume in hypervisor.list_volumes("kc-")}
    for document in filter(is_readable, documents):
        present = image_volume(document["spec"]) in volumes
        mend = "kc init" if document["spec"]["source"].startswith("starter:") else "upload it again"
        yield Finding(f"image {document['name']}", "ok" if present else "failed",
                      "in the pool" if present else "not in the pool", "" if present else mend)  # fmt: skip


def _check_tools() -> Iterator[Finding]:
    if shutil.which("qemu-img") is None:
        yield Finding("qemu-img", "failed", "not installed: images cannot be checked", "apt-get install qemu-utils")
    try:
        from backend.images.starter import missing_tools  # noqa: PLC0415

        missing = missing_tools()
    except ImportError:
        return
    if missing:
        yield Finding("starter image", "warning", f"cannot be built here without {', '.join(missing)}",
                      f"apt-get install {' '.join(missing)}")  # fmt: skip
