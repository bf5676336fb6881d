"""A process that makes and deletes VMs on one store, as the lines of JSON say that it reads; see test_allocation."""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.memory_kc import make_service, vm_document

from backend.errors import ConflictError
from backend.local import LocalService
from backend.local.creation import prepare

WISHES = {
    "network": {"mode": "network"},
    "static": {"mode": "static"},
    "given": {"mode": "static", "address": "10.{net}.0.9/{length}"},
}


def perform(service: LocalService, mine: list[str], network: str, verb: str, wish: str) -> str:
    """Make a VM, or delete one of those that this process made on the network; return what came of it."""
    if verb == "delete":
        if not mine:
            return "nothing"
        uid = mine.pop()
        with service.store.transaction() as transaction:
            transaction.delete("VM", uid)
        return "deleted"
    known = service.store.find("Network", network)
    assert known is not None
    subnet = known["spec"]["ipv4"]["subnet"]
    ipv4 = {
        key: value.format(net=subnet.split(".")[1], length=subnet.split("/")[1]) for key, value in WISHES[wish].items()
    }
    document = vm_document(f"vm-{uuid.uuid4().hex[:12]}", nics=[{"network": network, "ipv4": ipv4}], power="stopped")
    try:
        accepted = service.accept(prepare(service.store, document), "", {}, expect=0)
    except ConflictError as error:
        taken = "belongs to" in error.why or "no address is free" in error.why
        return "taken" if taken else f"wrong: {error}"
    mine.append(accepted.document["uid"])
    return "made"


def main() -> None:
    service = make_service(Path(sys.argv[1]), operate=False)
    for line in sys.stdin:
        mine: list[str] = []
        said = [perform(service, mine, *order) for order in json.loads(line)]
        print(json.dumps(said), flush=True)
    service.close()


if __name__ == "__main__":
    main()
