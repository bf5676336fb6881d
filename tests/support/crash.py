"""A KC process that dies by SIGKILL at one point of an operation: crash.py POINT STEP ACTION NAME.

POINT is begun, worked or passed; ACTION is one of ACTIONS. It ends with status 3 where the point never came.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from backend.local import LocalService, open_service
from backend.service import Accepted
from backend.settings import load_settings


def create(service: LocalService, name: str) -> Accepted:
    spec = {"image": "starter", "type": "tiny", "nics": [{"network": "default"}]}
    return service.create({"kind": "VM", "name": name, "spec": spec, "metadata": {"test": "crash"}})


def update(service: LocalService, name: str) -> Accepted:
    vm = service.get("VM", name)
    spec = {**vm["spec"], "parameters": {"memoryMiB": 640}, "nics": [*vm["spec"]["nics"], {"network": "default"}]}
    return service.update({"kind": "VM", "name": name, "spec": spec, "metadata": {"test": "changed"}})


def purge(service: LocalService, name: str) -> Accepted:
    entries = service.list_documents("Trash").items
    mine = [entry["name"] for entry in entries if entry["spec"]["target"]["name"] == name]
    return service.empty_trash(mine)[0]


ACTIONS: dict[str, Callable[[LocalService, str], Accepted]] = {
    "create": create,
    "update": update,
    "restart": lambda service, name: service.act(name, "reboot"),
    "stop": lambda service, name: service.act(name, "stop", {"force": True}),
    "trash": lambda service, name: service.delete("VM", name),
    "restore": lambda service, name: service.restore("VM", name),
    "purge": purge,
    "delete": lambda service, name: service.delete("VM", name, now=True),
}


def main() -> None:
    point, step, action, name = sys.argv[1:5]
    service = open_service(load_settings())

    def die(at: str, which: str) -> None:
        if (at, which) == (point, step):
            os.kill(os.getpid(), signal.SIGKILL)

    service.runner.trace = die
    accepted = ACTIONS[action](service, name)
    assert accepted.operation is not None
    service.wait(accepted.operation["name"], timeout=120)
    sys.exit(3)


if __name__ == "__main__":
    main()
