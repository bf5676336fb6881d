"""The starter image in plain QEMU: it boots, serves, reads its seed, takes new hardware, obeys the power button."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from machine import MAC, Machine, wait_for, write_seed

pytestmark = [pytest.mark.guest, pytest.mark.timeout(400)]

OFF_SECONDS = 10.0


@dataclass
class FirstContact:
    """What was there at the moment when the agent first told an address."""

    seconds: float
    page: str
    ssh_banner: str


@dataclass
class Web:
    machine: Machine
    key: Path
    first: FirstContact


def addresses(machine: Machine) -> list[str]:
    interfaces: list[dict[str, Any]] = machine.agent.call("guest-network-get-interfaces", seconds=120)
    return [
        address["ip-address"]
        for interface in interfaces
        for address in interface.get("ip-addresses", [])
        if interface["name"] != "lo" and not address["ip-address"].startswith("fe80")
    ]


def ssh_banner(machine: Machine) -> str:
    with socket.create_connection(("127.0.0.1", machine.ssh_port), timeout=10) as connection:
        return connection.makefile("rb").readline().decode()


def make_first_contact(machine: Machine) -> FirstContact:
    wait_for(lambda: addresses(machine), 120, lambda: machine.serial)
    return FirstContact(time.monotonic() - machine.started, machine.http_get(), ssh_banner(machine))


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory, image: Path, ssh_key: Path) -> Iterator[Web]:
    """A VM whose seed is YAML as people write it, with addresses from DHCP and SLAAC; started by the BIOS."""
    folder = tmp_path_factory.mktemp("web")
    public_key = ssh_key.with_suffix(".pub").read_text().strip()
    seed = write_seed(
        folder / "seed.iso",
        meta_data=f"instance-id: i-1\nlocal-hostname: from-meta-data\npublic-keys:\n  mine: {public_key}\n",
        user_data=USER_DATA,
    )
    with Machine(folder / "vm", image, seed=seed) as machine:
        yield Web(machine, ssh_key, make_first_contact(machine))


USER_DATA = """\
#cloud-config
hostname: web
fqdn: web.example.org
write_files:
  - path: /srv/deep/greeting
    permissions: '0640'
    content: |
      two lines:
        "kept" as they are
  - path: /srv/coded
    encoding: b64
    content: S0Mgw7w=
runcmd:
  - 'echo "a text is shell: $((6 * 7))" > /srv/ran'
  - echo "this is: a map in YAML"
  - [sh, -c, 'echo "a list is one command: $1" >> /srv/ran', sh, "it's"]
"""


def test_agent_and_address_mean_that_web_and_ssh_answer(web: Web) -> None:
    assert web.first.page == "hello from web\n"
    assert web.first.ssh_banner.startswith("SSH-2.0-dropbear")


def test_serial_line_says_once_that_it_is_up_and_tells_each_address(web: Web) -> None:
    web.machine.wait_for_serial("KC starter: eth0 10.0.2.15/24")
    web.machine.wait_for_serial("KC starter: eth0 fd4b:43::5054:ff:fe4b:4301/64")
    assert web.machine.serial.count("KC starter: web is up") == 1
    assert web.machine.serial.count("KC starter: eth0 10.0.2.15/24") == 1


def test_serial_console_is_a_root_shell_that_shows_the_host_name(web: Web) -> None:
    web.machine.wait_for_serial("A root shell on web")
    web.machine.wait_for_serial("root@web:~#")
    web.machine.type("echo $(id -un)-$((40 + 2))\r")
    web.machine.wait_for_serial("root-42", 20)


@pytest.mark.parametrize("user", ["root", "kc"])
def test_ssh_takes_the_key(web: Web, user: str) -> None:
    answer = web.machine.ssh(
        "-i", str(web.key), "-o", "IdentitiesOnly=yes", user=user, command="id -un; hostname; ip -o link | wc -l"
    )
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, f"{user}\nweb\n2\n", "")


@pytest.mark.parametrize("user", ["root", "kc"])
def test_ssh_takes_nothing_but_a_key(web: Web, user: str) -> None:
    answer = web.machine.ssh("-o", "PreferredAuthentications=none,password,keyboard-interactive", user=user)
    assert answer.returncode == 255
    assert "Permission denied (publickey)." in answer.stderr


def test_no_account_has_a_password_that_could_match(web: Web) -> None:
    assert web.machine.output("cut -d: -f2 /etc/shadow | sort -u") == "*\n"
    assert web.machine.output("stat -c %a /etc/shadow / /root /home/kc") == "600\n755\n700\n700\n"


def test_user_data_in_yaml_is_obeyed(web: Web) -> None:
    machine = web.machine
    wait_for(lambda: machine.run("test -e /run/kc/user-data.status")[0] == 0, 40, lambda: machine.serial)
    assert machine.output("cat /srv/deep/greeting") == 'two lines:\n  "kept" as they are\n'
    assert machine.output("stat -c %a /srv/deep/greeting") == "640\n"
    assert machine.output("cat /srv/coded") == "KC ü"
    assert machine.output("cat /srv/ran") == "a text is shell: 42\na list is one command: it's\n"
    machine.wait_for_serial("KC starter: seed: runcmd: command 2 is neither text nor a list", 0)
    assert machine.output("cat /run/kc/user-data.status") == "0\n"
    assert "127.0.1.1 web.example.org web\n" in machine.output("cat /etc/hosts")


def test_agent_tells_who_it_is(web: Web) -> None:
    assert web.machine.agent.call("guest-get-host-name") == {"host-name": "web"}
    system = web.machine.agent.call("guest-get-osinfo")
    assert system["name"] == "KC starter"
    assert system["kernel-release"].endswith("-cloud-amd64")


def test_a_router_s_rule_set_loads(web: Web) -> None:
    rules = """
        table inet filter {
            chain forward {
                type filter hook forward priority 0; policy drop
                limit rate 10/second accept
                ct state established,related accept
                tcp dport { 80, 443 } ct state new counter accept
                meta l4proto { tcp, udp } log prefix "kc " reject with icmpx type admin-prohibited
            }
        }
        table inet nat {
            chain pre { type nat hook prerouting priority dstnat; tcp dport 8080 redirect to :80; }
            chain post { type nat hook postrouting priority srcnat; oifname "eth9" masquerade; }
        }
    """
    web.machine.output("nft -f -", stdin=rules)
    assert "masquerade" in web.machine.output("nft list ruleset")
    web.machine.output("nft flush ruleset")


def test_links_of_every_kind_can_be_made(web: Web) -> None:
    web.machine.output("ip link add br0 type bridge && ip link add link br0 br0.7 type vlan id 7")
    web.machine.output("ip link add vx0 type vxlan id 42 dstport 4789 local 10.0.2.15 && ip link set vx0 master br0")
    web.machine.output("ip link del vx0; ip link del br0.7; ip link del br0")


def test_a_nic_that_is_plugged_in_gets_an_address_and_leaves_no_trace_when_it_goes(web: Web) -> None:
    machine = web.machine
    machine.qmp.call("netdev_add", type="user", id="net1", net="10.0.9.0/24", dns="10.0.9.3")
    machine.qmp.call("device_add", driver="virtio-net-pci", netdev="net1", id="nic1", bus="spare")
    machine.wait_for_serial("KC starter: eth1 10.0.9.15/24", 60)
    wait_for(lambda: "10.0.9.3" in machine.output("cat /etc/resolv.conf"), 10, lambda: "its name server")
    machine.qmp.call("device_del", id="nic1")
    wait_for(lambda: "10.0.9.3" not in machine.output("cat /etc/resolv.conf"), 60, lambda: "its name server gone")
    assert "eth1" not in machine.output("ip link; ps")


def test_a_cpu_that_is_plugged_in_is_used(web: Web) -> None:
    spare = next(cpu for cpu in web.machine.qmp.call("query-hotpluggable-cpus") if "qom-path" not in cpu)
    assert web.machine.output("nproc") == "1\n"
    web.machine.qmp.call("device_add", driver=spare["type"], id="cpu1", **spare["props"])
    wait_for(lambda: web.machine.output("nproc") == "2\n", 60, lambda: "two CPUs")


def test_memory_that_is_plugged_in_is_used(web: Web) -> None:
    def total_mib() -> int:
        return int(web.machine.output("awk '/MemTotal/ { print $2 }' /proc/meminfo")) // 1024

    before = total_mib()
    web.machine.qmp.call("object-add", **{"qom-type": "memory-backend-ram", "id": "dimm", "size": 128 << 20})
    web.machine.qmp.call("device_add", driver="pc-dimm", id="dimm0", memdev="dimm")
    wait_for(lambda: total_mib() >= before + 120, 60, lambda: "128 MiB more")


NETWORK_CASES = [
    pytest.param("", ["dhcp4 yes", "dhcp6 no", "ra yes"], id="none"),
    pytest.param(
        '{"version": 2, "ethernets": {"id0": {"match": {"macaddress": "52:54:00:AA:00:01"}, "dhcp4": true}}}',
        ["dhcp4 yes", "dhcp6 no", "ra yes"],
        id="the address of another case",
    ),
    pytest.param(
        "network:\n  version: 2\n  ethernets:\n    ens3:\n      match: {name: 'eth*'}\n"
        "      dhcp6: yes\n      mtu: 1450\n",
        ["mtu 1450", "dhcp4 no", "dhcp6 yes", "ra yes"],
        id="by name, under network",
    ),
    pytest.param(
        "version: 2\nethernets:\n  other: {match: {macaddress: '52:54:00:00:00:09'}, dhcp4: false}\n",
        ["dhcp4 yes", "dhcp6 no", "ra yes"],
        id="another interface's",
    ),
    pytest.param(
        "version: 2\nethernets:\n  eth0:\n    accept-ra: false\n    addresses: [10.1.1.2/24, 'fd00:1::2/64']\n"
        "    gateway4: 10.1.1.1\n    gateway6: fd00:1::1\n"
        "    nameservers: {addresses: [10.1.1.3], search: [a.example]}\n"
        "    routes:\n    - {to: 10.9.0.0/16, via: 10.1.1.9, metric: 50}\n"
        "    - {to: 0.0.0.0/0, via: 10.1.1.8, on-link: true}\n"
        "    - {to: default, via: 'fe80::1'}\n",
        [
            "dhcp4 no",
            "dhcp6 no",
            "ra no",
            "address 10.1.1.2/24",
            "address fd00:1::2/64",
            "route default 10.1.1.1",
            "route ::/0 fd00:1::1",
            "route 10.9.0.0/16 10.1.1.9 50",
            "route default 10.1.1.8",
            "route ::/0 fe80::1",
            "nameserver 10.1.1.3",
            "search a.example",
        ],
        id="all static",
    ),
    pytest.param(
        "version: 2\nethernets:\n  eth0: {addresses: ['; reboot', 10.1.1.2/24], set-name: '../x', mtu: big}\n",
        ["dhcp4 no", "dhcp6 no", "ra yes", "address 10.1.1.2/24"],
        id="hostile values are left out",
    ),
    pytest.param("ethernets: [", ["dhcp4 yes", "dhcp6 no", "ra yes"], id="broken"),
    pytest.param("version: 2\nethernets: eth0\n", ["dhcp4 yes", "dhcp6 no", "ra yes"], id="wrong shape"),
]


@pytest.mark.parametrize(("config", "plan"), NETWORK_CASES)
def test_network_config_means_this_plan(web: Web, config: str, plan: list[str]) -> None:
    command = "cat >/tmp/plan; lua5.4 /usr/lib/kc/network.lua /tmp/plan eth0 52:54:00:aa:00:01 2>/tmp/problems"
    assert web.machine.output(command, stdin=config).splitlines() == plan


SEED_CASES = [
    pytest.param("", "", {}, id="empty"),
    pytest.param('{"hostname": "a.b.example"}', "", {"hostname": "a a.b.example\n"}, id="a full name in meta-data"),
    pytest.param(
        "local-hostname: m", "#cloud-config\n{hostname: u}\n", {"hostname": "u\n"}, id="user-data's name counts"
    ),
    pytest.param("", "#cloud-config\nfqdn: x.y.example\n", {"hostname": "x x.y.example\n"}, id="the full name alone"),
    pytest.param("local-hostname: 'a b; reboot'", "", {}, id="no host name"),
    pytest.param(
        'public-keys: {"0": {"openssh-key": "ssh-rsa AAAA a"}, "1": ["ssh-rsa BBBB b", "ssh-rsa AAAA a"]}',
        "#cloud-config\nssh_authorized_keys: [ssh-rsa CCCC c, 7]\n"
        "users: [default, {name: x, ssh_authorized_keys: [ssh-rsa D d]}]\n",
        {"authorized_keys": "ssh-rsa AAAA a\nssh-rsa BBBB b\nssh-rsa CCCC c\nssh-rsa D d\n"},
        id="keys of every form, none twice",
    ),
    pytest.param("", "#!/bin/sh\necho hi\n", {"script": "#!/bin/sh\necho hi\n"}, id="a script"),
    pytest.param(
        "",
        "#cloud-config\nruncmd: [[echo, 'a b'], 'echo c; echo d', null]\n",
        {"script": "#!/bin/sh\n'echo' 'a b'\necho c; echo d\n"},
        id="runcmd",
    ),
    pytest.param("", "#cloud-config\nruncmd: [\n", {}, id="broken YAML"),
    pytest.param("", "Content-Type: multipart/mixed\n", {}, id="a form that is not known"),
]


@pytest.mark.parametrize(("meta_data", "user_data", "files"), SEED_CASES)
def test_seed_means_these_files(web: Web, meta_data: str, user_data: str, files: dict[str, str]) -> None:
    machine = web.machine
    machine.output("rm -rf /tmp/seed /tmp/out; mkdir /tmp/seed /tmp/out; cat >/tmp/seed/meta-data", stdin=meta_data)
    machine.output("cat >/tmp/seed/user-data", stdin=user_data)
    machine.output("lua5.4 /usr/lib/kc/seed.lua /tmp/seed /tmp/out 2>/tmp/problems")
    found = {name: machine.output(f"cat /tmp/out/{name}") for name in machine.output("ls /tmp/out").split()}
    assert found == files


def test_static_addresses_are_honoured_on_a_machine_started_by_uefi(tmp_path: Path, image: Path, ssh_key: Path) -> None:
    seed = write_seed(
        tmp_path / "seed.iso",
        meta_data=json.dumps({"instance-id": "i-2", "local-hostname": "fixed"}),
        user_data="#cloud-config\n" + json.dumps({"ssh_authorized_keys": [ssh_key.with_suffix(".pub").read_text()]}),
        network_config=json.dumps(
            {
                "version": 2,
                "ethernets": {
                    "nic0": {
                        "match": {"macaddress": MAC},
                        "set-name": "lan0",
                        "mtu": 1400,
                        "accept-ra": False,
                        "addresses": ["10.0.2.50/24", "fd4b:43::50/64"],
                        "routes": [{"to": "default", "via": "10.0.2.2"}, {"to": "10.7.0.0/16", "via": "10.0.2.7"}],
                        "nameservers": {"addresses": ["10.0.2.3"], "search": ["kc.example"]},
                    }
                },
            }
        ),
    )
    with Machine(tmp_path / "vm", image, seed=seed, uefi=True, guest_address="10.0.2.50") as machine:
        first = make_first_contact(machine)
        assert first.page == "hello from fixed\n"
        assert machine.ssh("-i", str(ssh_key)).stdout == "fixed\n"
        wait_for(
            lambda: sorted(addresses(machine)) == ["10.0.2.50", "fd4b:43::50"], 10, lambda: str(addresses(machine))
        )
        machine.wait_for_serial("KC starter: lan0 10.0.2.50/24", 10)
        assert "mtu 1400" in machine.output("ip link show lan0")
        routes = machine.output("ip route")
        assert "default via 10.0.2.2 dev lan0" in routes
        assert "10.7.0.0/16 via 10.0.2.7 dev lan0" in routes
        assert machine.output("cat /etc/resolv.conf") == "nameserver 10.0.2.3\nsearch kc.example\n"
        assert "udhcpc" not in machine.output("ps")
        machine.type("poweroff\r")
        machine.wait_until_off(OFF_SECONDS)


def test_without_a_seed_it_boots_reboots_and_obeys_the_power_button(tmp_path: Path, image: Path) -> None:
    with Machine(tmp_path / "vm", image) as machine:
        machine.wait_for_serial("KC starter: starter is up")
        machine.wait_for_serial("KC starter: eth0 10.0.2.15/24")
        machine.agent.call("guest-ping", seconds=30)
        machine.agent.socket.sendall(b'{"execute": "guest-shutdown", "arguments": {"mode": "reboot"}}\n')
        wait_for(lambda: machine.serial.count("KC starter: starter is up") == 2, 120, lambda: machine.serial)
        machine.agent.call("guest-ping", seconds=30)
        machine.qmp.call("system_powerdown")
        machine.wait_until_off(OFF_SECONDS)
