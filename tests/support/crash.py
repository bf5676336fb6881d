"""KC processes that die by SIGKILL at one point of an operation, and how each operation is brought about.

Run as a program it reads lines of JSON, `{"point", "step", "scenario", "files"}`. For each it forks a process that
begins the scenario's operation and dies at that point: "begun" (before a step acts), "worked" (after it) or "passed"
(once the journal has it). It answers by the process's exit status; 3 says that the point never came.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from backend.local import LocalService, open_service
from backend.local.uploading import prepare_image, source_of
from backend.model.documents import Document, format_time
from backend.service import Accepted
from backend.settings import load_settings

NAME = "crash"
POINTS = ("begun", "worked", "passed")
_SPEC = {"image": "boot", "type": "bit", "nics": [{"network": "lab"}], "power": "stopped"}
_EXTRA = {"uplink": "isolated", "ipv4": {"subnet": "10.78.2.0/24", "mode": "dhcp"}}
_STRANGER = """<domain type='qemu'><name>stranger</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os><devices><serial type='pty'/></devices></domain>"""


class Bench(NamedTuple):
    """What scenarios work on: a service, its host's virsh, and a folder with `boot.raw` and `spare.raw`."""

    service: LocalService
    virsh: Callable[..., str]
    files: Path


class Scenario(NamedTuple):
    """How to bring about what an operation needs, and how to begin it; `undo`: it fails and is to be undone."""

    prepare: Callable[[Bench], object]
    begin: Callable[[LocalService, Path], Accepted]
    undo: bool = False


def settle(service: LocalService, accepted: Accepted) -> Document:
    """Return the document of the operation once it ended well; that of the object where there was none."""
    if accepted.operation is None:
        return accepted.document
    ended = service.wait(accepted.operation["name"], timeout=60)
    assert ended["status"]["state"] == "succeeded", ended["status"]
    return ended


def document(**changes: Any) -> Document:
    metadata = changes.pop("metadata", {"test": "crash"})
    return {"kind": "VM", "name": NAME, "metadata": metadata, "spec": {**_SPEC, **changes}}


def clear(bench: Bench) -> None:
    """Take away everything that a scenario may have left but the image, the network and the machine type."""
    service = bench.service
    for vm in service.list_documents("VM").items:
        if not vm["status"].get("foreign"):
            settle(service, service.delete("VM", vm["name"], now=True))
    for accepted in service.empty_trash():
        settle(service, accepted)
    for kind, kept in (("Network", "lab"), ("Image", "boot"), ("MachineType", "bit")):
        for item in service.list_documents(kind).items:
            if item["name"] != kept:
                settle(service, service.delete(kind, item["name"], now=True))
    for name in bench.virsh("list", "--all", "--name").split():
        bench.virsh("undefine", name, "--nvram")


def make(bench: Bench, **changes: Any) -> None:
    clear(bench)
    settle(bench.service, bench.service.create(document(**changes)))


def act(action: str, **parameters: Any) -> Callable[[LocalService, Path], Accepted]:
    return lambda service, _files: service.act(NAME, action, parameters)


def create(service: LocalService, _files: Path) -> Accepted:
    return service.create(document(power="running"))


def create_in_vain(service: LocalService, _files: Path) -> Accepted:
    return service.create(document(power="running", nics=[{"network": "nobridge"}]))


def lack_bridge(bench: Bench) -> None:
    clear(bench)
    service = bench.service
    settle(service, service.create({"kind": "Network", "name": "nobridge", "spec": {"uplink": "bridge:kcnone0"}}))


def update(service: LocalService, _files: Path) -> Accepted:
    spec = service.get("VM", NAME)["spec"]
    changed = {**spec, "parameters": {"memoryMiB": 640}, "nics": [*spec["nics"], {"network": "lab"}]}
    return service.update({"kind": "VM", "name": NAME, "spec": changed, "metadata": {"test": "changed"}})


def await_restart(bench: Bench) -> None:
    make(bench, power="running")
    service = bench.service
    more = {**service.get("VM", NAME)["spec"], "parameters": {"memoryMiB": 1024}}
    settle(service, service.update({"kind": "VM", "name": NAME, "spec": more}))


def drift(bench: Bench) -> None:
    make(bench)
    bench.virsh("setmaxmem", NAME, "256M", "--config")


def meet_stranger(bench: Bench) -> None:
    clear(bench)
    file = bench.files / "stranger.xml"
    file.write_text(_STRANGER)
    bench.virsh("define", str(file))


def adopt_stranger(bench: Bench) -> None:
    meet_stranger(bench)
    settle(bench.service, bench.service.adopt("stranger"))


def have_snapshot(bench: Bench) -> None:
    make(bench)
    settle(bench.service, bench.service.act(NAME, "snapshot", {"snapshot": "s1"}))


def pause(bench: Bench) -> None:
    make(bench, power="running")
    settle(bench.service, bench.service.act(NAME, "pause"))


def trash(bench: Bench) -> None:
    make(bench)
    settle(bench.service, bench.service.delete("VM", NAME))


def trash_disk(bench: Bench) -> None:
    make(bench, disks=[{"id": "data", "sizeGiB": 1}])
    service = bench.service
    spec = service.get("VM", NAME)["spec"]
    settle(service, service.update({"kind": "VM", "name": NAME, "spec": {**spec, "disks": []}}))


def make_network(bench: Bench) -> None:
    clear(bench)
    settle(bench.service, create_network(bench.service, bench.files))


def create_network(service: LocalService, _files: Path) -> Accepted:
    return service.create({"kind": "Network", "name": "extra", "spec": _EXTRA})


def update_network(service: LocalService, _files: Path) -> Accepted:
    spec = {**_EXTRA, "ipv4": {"subnet": "10.78.3.0/24", "mode": "dhcp"}}
    return service.update({"kind": "Network", "name": "extra", "spec": spec})


def trash_network(bench: Bench) -> None:
    make_network(bench)
    settle(bench.service, bench.service.delete("Network", "extra"))


def upload(service: LocalService, files: Path) -> Accepted:
    return service.upload_image("spare", files / "spare.raw", metadata={}, declared={"format": "raw"})


def make_image(bench: Bench) -> None:
    clear(bench)
    settle(bench.service, upload(bench.service, bench.files))


def store_again(service: LocalService, files: Path) -> Accepted:
    """Store the bytes of an image that are gone, as `kc init` does."""
    known = service.get("Image", "spare")
    again = prepare_image(service.store, "other", files / "spare.raw", {}, {"format": "raw"})
    body = {key: value for key, value in known.items() if key not in ("status", "version")}
    body |= {"spec": again["spec"], "updatedAt": format_time(), "message": "stored again"}
    return service.accept(body, "image.store", source_of(files / "spare.raw"), expect=known["version"])


def lose_bytes(bench: Bench) -> None:
    make_image(bench)
    (name,) = (line.split()[0] for line in bench.virsh("vol-list", "kc").splitlines() if ".part" not in line
               and line.split()[0] not in _boot_volumes(bench.service))  # fmt: skip
    bench.virsh("vol-delete", name, "kc")
    bench.virsh("pool-refresh", "kc")


def _boot_volumes(service: LocalService) -> set[str]:
    from backend.images.volumes import image_volume

    return {image_volume(service.get("Image", "boot")["spec"])}


def empty(service: LocalService, _files: Path) -> Accepted:
    (accepted,) = service.empty_trash()
    return accepted


# For every plan of an operation, at least one.
SCENARIOS: dict[str, tuple[Scenario, ...]] = {
    "vm.create": (Scenario(clear, create), Scenario(lack_bridge, create_in_vain, undo=True)),
    "vm.start": (Scenario(make, act("start")),),
    "vm.stop": (Scenario(lambda bench: make(bench, power="running"), act("stop", force=True)),),
    "vm.pause": (Scenario(lambda bench: make(bench, power="running"), act("pause")),),
    "vm.resume": (Scenario(pause, act("resume")),),
    "vm.update": (Scenario(make, update), Scenario(lambda bench: make(bench, power="running"), update)),
    "vm.rename": (Scenario(make, lambda service, _files: service.rename(NAME, "other")),),
    "vm.reconcile": (Scenario(drift, act("reconcile")),),
    "vm.clone": (Scenario(make, lambda service, _files: service.clone(NAME, "copy")),),
    "vm.adopt": (Scenario(meet_stranger, lambda service, _files: service.adopt("stranger")),),
    "vm.disown": (Scenario(adopt_stranger, lambda service, _files: service.delete("VM", "stranger")),),
    "vm.snapshot": (Scenario(make, act("snapshot", snapshot="s1")),),
    "vm.restore-snapshot": (Scenario(have_snapshot, act("restore-snapshot", snapshot="s1")),),
    "vm.delete-snapshot": (Scenario(have_snapshot, act("delete-snapshot", snapshot="s1")),),
    "vm.restore": (Scenario(trash, lambda service, _files: service.restore("VM", NAME)),),
    "vm.restart": (Scenario(await_restart, act("reboot")),),
    "vm.reboot": (Scenario(lambda bench: make(bench, power="running"), act("reboot", force=True)),),
    "vm.delete": (
        Scenario(have_snapshot, lambda service, _files: service.delete("VM", NAME, now=True)),
        Scenario(make, lambda service, _files: service.delete("VM", NAME)),
    ),
    "network.create": (Scenario(clear, create_network),),
    "network.update": (Scenario(make_network, update_network),),
    "network.reconcile": (
        Scenario(make_network, lambda service, _files: service.act_on_network("extra", "reconcile")),
    ),
    "network.restore": (Scenario(trash_network, lambda service, _files: service.restore("Network", "extra")),),
    "network.delete": (Scenario(make_network, lambda service, _files: service.delete("Network", "extra")),),
    "image.create": (Scenario(clear, upload),),
    "image.store": (Scenario(lose_bytes, store_again),),
    "image.delete": (Scenario(make_image, lambda service, _files: service.delete("Image", "spare", now=True)),),
    "trash.purge": (Scenario(trash, empty), Scenario(trash_disk, empty)),
}


def die_at(order: dict[str, str]) -> None:
    """Begin a scenario's operation and die at a point of it; runs in a process of its own."""
    service = open_service(load_settings())

    def look(point: str, step: str) -> None:
        if (point, step) == (order["point"], order["step"]):
            os.kill(os.getpid(), signal.SIGKILL)

    service.runner.trace = look
    plan, _, number = order["scenario"].partition("#")
    accepted = SCENARIOS[plan][int(number)].begin(service, Path(order["files"]))
    assert accepted.operation is not None
    service.wait(accepted.operation["name"], timeout=60)


def main() -> None:
    """Serve: everything is imported once, and nothing is open when a process is forked."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                die_at(json.loads(line))
            except BaseException:  # noqa: BLE001 - the whole of a process
                traceback.print_exc()
                sys.stderr.flush()
                os._exit(4)
            os._exit(3)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
