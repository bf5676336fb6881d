"""A VM is the gateway of other VMs: what they send to a third network passes through it, and is counted there."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterator
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any

import pytest
from support.guest_vm import Elsewhere, Guest, wait_until
from support.kc import run_kc

pytestmark = [pytest.mark.libvirt, pytest.mark.guest, pytest.mark.timeout(600)]

# On `leased` the clients ask (DHCP, router advertisements), on `fixed` they are told by the seed; both are behind `gw`.
SEGMENTS = ("outer", "leased", "fixed")
COUNT = 3
USER_DATA = """\
#cloud-config
write_files:
- path: /etc/radvd.conf
  content: |
    interface eth1 {
      AdvSendAdvert on;
      MaxRtrAdvInterval 10;
    };
- path: /etc/count.nft
  content: |
    table inet count {
      counter four { }
      counter six { }
      chain passing {
        type filter hook forward priority 0;
        ip daddr FAR4 counter name four
        ip6 daddr FAR6 counter name six
      }
    }
runcmd:
- sysctl -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
- nft -f /etc/count.nft
- radvd
"""


class House:
    """Three segments, the gateway `gw` on all of them, a client behind it, and somebody far on the outer one."""

    def __init__(self, home: Path, folder: Path) -> None:
        self.home = home
        self.stem = f"gate{uuid.uuid4().hex[:5]}"
        four, start = random.randrange(226, 246), random.randrange(250)
        six = f"fd{uuid.uuid4().hex[:2]}:{uuid.uuid4().hex[:4]}:{uuid.uuid4().hex[:4]}"
        self.four = {name: ip_network(f"10.{four}.{start + number}.0/24") for number, name in enumerate(SEGMENTS)}
        self.six = {name: ip_network(f"{six}:{number}::/64") for number, name in enumerate(SEGMENTS)}
        self.gateway, self.client = Guest(home, f"{self.stem}-gw"), Guest(home, f"{self.stem}-client")
        self.user_data = folder / "user-data"
        self.far: Elsewhere | None = None

    def far_address(self, family: str) -> str:
        return str((self.four if family == "ipv4" else self.six)["outer"][77])

    def gateway_address(self, segment: str, family: str) -> str:
        """Return where the gateway is: first on the segments behind it, and not the host itself on the outer one."""
        return str((self.four if family == "ipv4" else self.six)[segment][2 if segment == "outer" else 1])

    def build(self) -> None:
        for segment in SEGMENTS:
            inner = segment != "outer"
            modes = ["--ipv4-mode", "static", "--ipv6-mode", "static"] if segment == "fixed" else []
            self._kc(
                "network", "create", f"{self.stem}-{segment}", "--uplink", "isolated", *modes,
                "--ipv4", str(self.four[segment]), "--ipv6", str(self.six[segment]),
                *(["--gateway", f"vm:{self.gateway.name}"] if inner else []),
            )  # fmt: skip
        far4, far6 = self.far_address("ipv4"), self.far_address("ipv6")
        self.user_data.write_text(USER_DATA.replace("FAR4", far4).replace("FAR6", far6))
        # The gateway comes first, as static clients are told its address; they boot side by side.
        self._make_gateway()
        self._make_client()
        self.gateway.wait_for_agent()
        wait_until(lambda: self.gateway.run("cat /run/kc/user-data.status") == (0, "0\n"), "it forwards and advertises")
        bridge = json.loads(self._kc("network", "show", f"{self.stem}-outer", "-o", "json"))["status"]["bridge"]
        self.far = Elsewhere(f"{far4}/24", f"{far6}/64", bridge=bridge)
        for segment in ("leased", "fixed"):
            for subnet, family in ((self.four[segment], "ipv4"), (self.six[segment], "ipv6")):
                self.far.route(str(subnet), self.gateway_address("outer", family))

    def _make_gateway(self) -> None:
        joined = [
            f"--network={self.stem}-{segment},ipv4={self.gateway_address(segment, 'ipv4')}/24,"
            # Of the outer segment it is no gateway, so that it may not send what others wrote unless it says so.
            f"ipv6={self.gateway_address(segment, 'ipv6')}/64{',antispoof=mac' if segment == 'outer' else ''}"
            for segment in SEGMENTS
        ]
        self._boot(self.gateway, *joined, "--user-data", str(self.user_data))

    def _make_client(self) -> None:
        joined = [f"--network={self.stem}-{segment}" for segment in ("leased", "fixed")]
        self._boot(self.client, *joined, "--wait", "ready")

    def _boot(self, guest: Guest, *options: str) -> None:
        self._kc("vm", "create", guest.name, "--image", "starter", "--type", "tiny", *options)

    def _kc(self, *arguments: str) -> str:
        done = run_kc(self.home, *arguments)
        assert done.status == 0, (arguments, done.stderr)
        return done.stdout

    def remove(self) -> None:
        """Remove all of it; the client and its segments first, as a gateway in use is not let go."""
        if self.far is not None:
            self.far.close()
        run_kc(self.home, "vm", "delete", self.client.name, "--yes", "--now")
        for segment in ("leased", "fixed"):
            run_kc(self.home, "network", "set", f"{self.stem}-{segment}", "spec.gateway=none", "--yes")
        run_kc(self.home, "vm", "delete", self.gateway.name, "--yes", "--now")
        self._kc("network", "delete", "-l", f"name~{self.stem}-*", "--yes", "--now")

    def counted(self, family: str) -> int:
        """Return how many packets to the far one have passed the gateway."""
        name = {"ipv4": "four", "ipv6": "six"}[family]
        found = self.gateway.json(f"nft -j list counter inet count {name}")["nftables"]
        return int(next(each["counter"]["packets"] for each in found if "counter" in each))

    def default_routes(self, device: str, family: str) -> list[str]:
        """Return by whom a client's NIC reaches everything else."""
        routes: list[dict[str, Any]] = self.client.json(
            f"ip -j {'-6' if family == 'ipv6' else '-4'} route show default dev {device}"
        )
        return [route["gateway"] for route in routes]


@pytest.fixture(scope="module")
def house(ready_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(ready_home, tmp_path_factory.mktemp("house"))
    try:
        made.build()
        yield made
    finally:
        made.remove()


def advertiser(house: House, segment: str) -> str:
    """Return the link-local address of the gateway on a segment."""
    nic = f"nic{SEGMENTS.index(segment)}"
    device = house.gateway.devices()[nic]
    (link,) = house.gateway.json(f"ip -j -6 address show dev {device} scope link")
    return str(next(each["local"] for each in link["addr_info"] if "local" in each))


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("segment", ["leased", "fixed"])
def test_the_gateway_vm_is_the_only_way_out(house: House, segment: str, family: str) -> None:
    device = f"eth{('leased', 'fixed').index(segment)}"
    learned = segment == "leased" and family == "ipv6"
    wanted = advertiser(house, segment) if learned else house.gateway_address(segment, family)
    wait_until(lambda: house.default_routes(device, family), "it has a way out", 30)
    assert house.default_routes(device, family) == [wanted]


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("segment", ["leased", "fixed"])
def test_packets_to_a_third_network_pass_the_gateway_and_are_counted_there(
    house: House, segment: str, family: str
) -> None:
    device, far = f"eth{('leased', 'fixed').index(segment)}", house.far_address(family)
    wait_until(lambda: house.client.pings(device, far), lambda: house.client.output("ip route; ip -6 route; ip neigh"))
    before = house.counted(family)
    assert house.client.run(f"ping -c {COUNT} -W 5 -I {device} {far}")[0] == 0
    assert house.counted(family) == before + COUNT


def test_where_the_gateway_does_not_forward_nothing_passes(house: House) -> None:
    house.gateway.output("sysctl -q -w net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0")
    try:
        for family in ("ipv4", "ipv6"):
            for device in ("eth0", "eth1"):
                assert house.client.run(f"ping -c 2 -W 1 -I {device} {house.far_address(family)}")[0] != 0
    finally:
        house.gateway.output("sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")


def test_the_client_has_its_addresses_from_the_segment_and_not_from_the_gateway(house: House) -> None:
    links = house.client.json("ip -j address")
    for device, segment in (("eth0", "leased"), ("eth1", "fixed")):
        link = next(each for each in links if each["ifname"] == device)
        found = [ip_interface(f"{each['local']}/{each['prefixlen']}") for each in link["addr_info"]]
        usable = [each.network for each in found if not each.is_link_local]
        assert usable == [house.four[segment], house.six[segment]]


def test_a_gateway_in_use_is_not_deleted(house: House) -> None:
    refused = run_kc(house.home, "vm", "delete", house.gateway.name, "--yes")
    assert refused.status == 4
    assert f"it is the gateway of network {house.stem}-" in refused.stderr
    assert house.client.pings("eth0", house.far_address("ipv4"))
