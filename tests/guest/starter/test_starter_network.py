"""The starter image on a libvirt network: its leases carry its name and end with it, DHCPv6 included."""

from __future__ import annotations

import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from machine import Machine, wait_for, write_seed

pytestmark = [pytest.mark.guest, pytest.mark.libvirt, pytest.mark.timeout(300)]

NETWORK = "kc-test-starter"
BRIDGE, TAP = "kcstbr0", "kcsttap0"
# DHCP for IPv6 makes libvirt's dnsmasq advertise that addresses are managed.
XML = f"""
<network>
  <name>{NETWORK}</name>
  <bridge name='{BRIDGE}' stp='off' delay='0'/>
  <domain name='kc.test' localOnly='yes'/>
  <ip address='10.213.77.1' prefix='24'><dhcp><range start='10.213.77.10' end='10.213.77.20'/></dhcp></ip>
  <ip family='ipv6' address='fd4b:77::1' prefix='64'><dhcp><range start='fd4b:77::10' end='fd4b:77::20'/></dhcp></ip>
</network>
"""


def virsh(*arguments: str) -> str:
    ended = subprocess.run(
        ["virsh", "-q", "-c", "qemu:///system", *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    return ended.stdout


def leases() -> list[list[str]]:
    return [line.split() for line in virsh("net-dhcp-leases", NETWORK).splitlines() if line.strip()]


@pytest.fixture
def network(tmp_path: Path) -> Iterator[None]:
    definition = tmp_path / "network.xml"
    definition.write_text(XML)
    virsh("net-create", str(definition))
    try:
        yield
    finally:
        virsh("net-destroy", NETWORK)


def test_leases_carry_the_name_and_end_with_the_vm(tmp_path: Path, image: Path, network: None) -> None:
    seed = write_seed(tmp_path / "seed.iso", meta_data='{"instance-id": "i-3", "local-hostname": "leased"}')
    with Machine(tmp_path / "vm", image, seed=seed, tap=TAP) as machine:
        subprocess.run(["ip", "link", "set", TAP, "master", BRIDGE, "up"], check=True, timeout=10)
        machine.wait_for_serial("KC starter: eth0 10.213.77.")
        machine.wait_for_serial("KC starter: eth0 fd4b:77::", 60)
        by_family = wait_for(
            lambda: {lease[3]: lease for lease in leases()} if len(leases()) == 2 else None, 20, lambda: str(leases())
        )
        assert by_family is not None
        assert by_family["ipv4"][5] == "leased"
        address4, address6 = (by_family[family][4].split("/")[0] for family in ("ipv4", "ipv6"))
        shown = machine.output("ip -o address show dev eth0")
        assert f" {address4}/24 " in shown
        assert f" {address6}/128 " in shown
        assert machine.output("cat /etc/resolv.conf").splitlines()[0].startswith("nameserver ")
        for host in (address4, f"[{address6}]"):
            with urllib.request.urlopen(f"http://{host}/", timeout=10) as page:
                assert page.read() == b"hello from leased\n"
        machine.qmp.call("system_powerdown")
        machine.wait_until_off(10)
        assert leases() == []
