"""Eight processes give out addresses of one network at once: none is given twice, none is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_interface, ip_network
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.memory_kc import furnish, make_service

from backend.local import LocalService
from backend.local.creation import prepare
from backend.model.addressing import FAMILIES, dynamic_ranges, host_address
from backend.model.documents import Document

WORKERS = 8
PROGRAM = Path(__file__).with_name("allocation_worker.py")


class Crew:
    """Eight processes that make and delete VMs on one store, as they are told."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.service: LocalService = make_service(home, operate=False)
        furnish_documents(self.service)
        self.number = 0
        self._workers = [
            subprocess.Popen(
                [sys.executable, str(PROGRAM), str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for _ in range(WORKERS)
        ]

    def tell(self, orders: list[list[list[str]]]) -> list[str]:
        """Give each worker its orders, all at once, and return what they say of them."""
        for worker, lines in zip(self._workers, orders, strict=True):
            assert worker.stdin is not None
            worker.stdin.write(json.dumps(lines) + "\n")
            worker.stdin.flush()
        said: list[str] = []
        for worker in self._workers:
            assert worker.stdout is not None
            said += json.loads(worker.stdout.readline())
        return said

    def close(self) -> None:
        for worker in self._workers:
            worker.communicate(timeout=30)
        self.service.close()


def furnish_documents(service: LocalService) -> None:
    """Give a service what VMs refer to; nothing of it has to be on a host."""
    service.operate = True
    furnish(service)
    service.operate = False


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    crew = Crew(tmp_path_factory.mktemp("crew"))
    yield crew
    crew.close()


ORDER = st.tuples(st.sampled_from(["make", "make", "make", "delete"]), st.sampled_from(["network", "static", "given"]))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    length=st.integers(24, 28),
    mode=st.sampled_from(["static", "dhcp"]),
    orders=st.lists(st.lists(ORDER, min_size=1, max_size=8), min_size=WORKERS, max_size=WORKERS),
)
def test_no_address_is_given_twice(
    crew: Crew, length: int, mode: str, orders: list[list[tuple[str, str]]]
) -> None:  # fmt: skip
    crew.number += 1
    name = f"net-{crew.number}"
    subnet = f"10.{crew.number}.0.0/{length}"
    spec = {
        "uplink": "isolated",
        "ipv4": {"subnet": subnet, "mode": mode},
        "ipv6": {"subnet": f"fd00:{crew.number:x}::/64", "mode": "static"},
    }
    crew.service.accept(prepare(crew.service.store, {"kind": "Network", "name": name, "spec": spec}), "", {}, expect=0)
    said = crew.tell([[[name, *order] for order in lines] for lines in orders])
    assert not [line for line in said if line.startswith("wrong")], said
    network = crew.service.store.find("Network", name)
    assert network is not None
    check(crew, network, Counter(said))


def check(crew: Crew, network: Document, said: Counter[str]) -> None:
    """Each address is one NIC's, lies in the subnet, and is not what host or DHCP have."""
    vms = [
        vm
        for vm in crew.service.store.list_documents("VM").items
        if vm["spec"]["nics"][0]["network"]["uid"] == network["uid"]
    ]
    assert len(vms) == said["made"] - said["deleted"]
    for family in FAMILIES:
        given_addresses = [vm["spec"]["nics"][0][family]["address"] for vm in vms]
        known = [ip_interface(address) for address in given_addresses if address]
        assert len(set(known)) == len(known)
        subnet = ip_network(network["spec"][family]["subnet"])
        assert all(
            address.ip in subnet and str(address.ip) != host_address(network["spec"], family) for address in known
        )
    ranges = dynamic_ranges(network["spec"], "ipv4")
    assert bool(ranges) == (network["spec"]["ipv4"]["mode"] == "dhcp")
