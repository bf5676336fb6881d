"""What the driver's domains, networks and logs are on a real host."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dhcp_station import ask_for_address
from hosts import GREETING, PrivateHost, wait_until
from support.boot_sector import SIZE, make_disk
from support.network_sides import serve

from backend.errors import ConflictError, FailedError, KCError
from backend.hypervisor import accelerator
from backend.hypervisor.accelerator import probe
from backend.hypervisor.host import LibvirtHost, open_hypervisor
from backend.hypervisor.plan import DomainPlan, NicPlan
from backend.hypervisor.protocol import Hypervisor
from backend.network.plan import NetworkPlan

pytestmark = pytest.mark.libvirt


def says(hypervisor: Hypervisor, plan: DomainPlan, words: bytes, seconds: float = 20) -> None:
    wait_until(lambda: words in hypervisor.read_log(plan.console_log, 1 << 16), f"it says {words!r}", seconds)


def need_arch(hypervisor: Hypervisor, arch: str) -> None:
    if arch not in hypervisor.facts().guest_archs:
        pytest.skip(f"no QEMU for {arch} here")


@pytest.mark.parametrize(
    "machine",
    [
        {"firmware": "bios"},
        {"firmware": "uefi"},
        {"firmware": "uefi", "accelerator": "kvm"},
        {"firmware": "uefi", "arch": "aarch64", "cpus": 12},
    ],
)
def test_qemu_can_be_started_with_every_kind_of_domain(
    hypervisor: Hypervisor, private_host: PrivateHost, make: Callable[..., DomainPlan], tmp_path: Path,
    machine: dict[str, Any],
) -> None:  # fmt: skip
    need_arch(hypervisor, machine.get("arch", "x86_64"))
    plan = make(
        nics=(NicPlan("nic0", "52:54:00:00:00:01", bridge="br0", mtu=1400), NicPlan("nic1", "52:54:00:00:00:02")),
        **machine,
    )
    hypervisor.ensure_defined(plan)
    native = private_host.virsh("domxml-to-native", "qemu-argv", "--domain", plan.name)
    assert "ua-disk-root" in native
    assert native.count("virtio-net-pci") == 2
    assert native.count("pcie-root-port") >= 15


def test_a_guest_boots_from_its_overlay_with_everything_that_a_vm_has(
    hypervisor: Hypervisor,
    private_host: PrivateHost,
    network: NetworkPlan,
    make: Callable[..., DomainPlan],
    tmp_path: Path,
) -> None:
    plan = make(nics=(NicPlan("nic0", "52:54:00:77:00:01", network.name, mtu=1400),))
    hypervisor.ensure_defined(plan)
    hypervisor.ensure_running(plan.uid)
    says(hypervisor, plan, GREETING)
    picture = tmp_path / "screen"
    private_host.virsh("screenshot", plan.name, str(picture))
    assert picture.stat().st_size > 1000
    assert "127.0.0.1" not in private_host.virsh("domdisplay", plan.name, "--type", "vnc")
    # The spare ports take NICs while it runs.
    for index in range(6):
        mac = f"52:54:00:77:01:{index:02x}"
        private_host.virsh("attach-interface", plan.name, "network", network.name, "--mac", mac, "--model", "virtio")
    assert private_host.virsh("domiflist", plan.name).count(network.name) == 7


def test_a_uefi_guest_comes_up_and_leaves_no_variables(
    hypervisor: Hypervisor, private_host: PrivateHost, make: Callable[..., DomainPlan]
) -> None:
    plan = make(firmware="uefi", memory_mib=128)
    hypervisor.ensure_defined(plan)
    hypervisor.ensure_running(plan.uid)
    says(hypervisor, plan, b"BdsDxe", 60)
    assert "nvram" in private_host.virsh("dumpxml", plan.name)
    hypervisor.ensure_stopped(plan.uid, grace_seconds=0, force=True)
    private_host.virsh("snapshot-create", plan.name)  # metadata that stands in the way of undefining
    hypervisor.ensure_undefined(plan.uid, plan.owner)
    assert hypervisor.observe(plan.uid) is None


def test_an_aarch64_guest_comes_up(hypervisor: Hypervisor, make: Callable[..., DomainPlan]) -> None:
    need_arch(hypervisor, "aarch64")
    plan = make(arch="aarch64", firmware="uefi", memory_mib=256)
    hypervisor.ensure_defined(plan)
    hypervisor.ensure_running(plan.uid)
    says(hypervisor, plan, b"UEFI firmware", 90)


def test_a_log_is_read_across_its_rotation(
    hypervisor: Hypervisor, private_host: PrivateHost, make: Callable[..., DomainPlan]
) -> None:
    line = bytes(range(0x30, 0x5B)) + b"\r\n"
    plan = make(make_disk(line, repeat=True))
    hypervisor.ensure_defined(plan)
    hypervisor.ensure_running(plan.uid)

    def files() -> list[str]:
        return [volume.name for volume in hypervisor.list_volumes(plan.console_log)]

    wait_until(lambda: f"{plan.console_log}.1" in files(), "the log has been rotated twice", 120)
    hypervisor.ensure_stopped(plan.uid, grace_seconds=0, force=True)
    size = len(hypervisor.read_volume(plan.console_log))
    wanted = size + 65_536 + 1000
    whole = hypervisor.read_log(plan.console_log, wanted)
    assert len(whole) == wanted
    start = whole.index(line)
    assert whole[start:].startswith(line * 50)
    lines = whole[start:].split(b"\r\n")
    assert set(lines[:-1]) == {line.strip()}  # nothing is lost or doubled where files meet


def test_a_guest_on_a_network_that_is_down_does_not_start_and_says_why(
    hypervisor: Hypervisor, private_host: PrivateHost, network: NetworkPlan, make: Callable[..., DomainPlan]
) -> None:
    plan = make(nics=(NicPlan("nic0", "52:54:00:77:00:01", network.name),))
    hypervisor.ensure_defined(plan)
    private_host.virsh("net-destroy", network.name)
    with pytest.raises(KCError, match="not active") as caught:
        hypervisor.ensure_running(plan.uid)
    assert "net-start" in caught.value.hint
    assert hypervisor.ensure_network_started(network.name).active
    hypervisor.ensure_running(plan.uid)


def test_a_start_without_virtlogd_says_what_is_missing(
    hypervisor: Hypervisor, private_host: PrivateHost, make: Callable[..., DomainPlan]
) -> None:
    plan = make()
    hypervisor.ensure_defined(plan)
    private_host.tell("signal virtlogd KILL")
    try:
        # An error of the daemon's own connection is not one of ours.
        with pytest.raises(FailedError, match="virtlogd") as caught:
            hypervisor.ensure_running(plan.uid)
        assert "virtlogd -d" in caught.value.hint
    finally:
        private_host.tell("start virtlogd")
    wait_until(lambda: starts(hypervisor, plan), "it starts once virtlogd answers")


def starts(hypervisor: Hypervisor, plan: DomainPlan) -> bool:
    try:
        hypervisor.ensure_running(plan.uid)
    except FailedError:
        return False
    return True


def test_a_foreign_domains_name_and_disk_are_safe(
    hypervisor: Hypervisor, private_host: PrivateHost, make: Callable[..., DomainPlan], tmp_path: Path
) -> None:
    mine, name = make(), f"foreign-{uuid.uuid4().hex[:6]}"
    volume = next(found for found in hypervisor.list_volumes(f"kc-{mine.uid}") if found.name.endswith("root"))
    xml = tmp_path / "foreign.xml"
    xml.write_text(
        f"<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory><os><type arch='x86_64'>hvm</type></os>"
        f"<devices><disk type='volume'><driver name='qemu' type='qcow2'/><source pool='kc' volume='{volume.name}'/>"
        "<target dev='vda' bus='virtio'/></disk></devices></domain>"
    )
    private_host.virsh("define", str(xml))
    try:
        assert hypervisor.volume_users(f"kc-{mine.uid}-base") == [name]
        with pytest.raises(ConflictError, match=name):
            hypervisor.ensure_volume_gone(f"kc-{mine.uid}-base")
        with pytest.raises(ConflictError, match="made by no KC"):
            hypervisor.ensure_defined(mine._replace(name=name))
        foreign = hypervisor.find_domain(name)
        assert foreign is not None
        assert hypervisor.owner_of(foreign.uid).owner == ""
        with pytest.raises(ConflictError, match="made by no KC"):
            hypervisor.ensure_undefined(foreign.uid, "owner")
    finally:
        private_host.virsh("undefine", name)


def test_a_probe_tells_what_boots_from_what_does_not(
    hypervisor: Hypervisor, make: Callable[..., DomainPlan], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(hypervisor, LibvirtHost)
    monkeypatch.setattr(accelerator, "PROBE_SECONDS", 8.0)
    good, bad = make(make_disk(b"KC starter: up\r\n")), make(b"\0" * SIZE)
    link, volumes = hypervisor._link, hypervisor._volumes
    assert probe(link, volumes.find_source(f"kc-{good.uid}-base"), "x86_64", "qemu") == ""
    monkeypatch.setattr(accelerator, "PROBE_SECONDS", 2.0)
    assert "did not boot" in probe(link, volumes.find_source(f"kc-{bad.uid}-base"), "x86_64", "qemu")
    wait_until(lambda: not any("kc-probe" in domain.name for domain in hypervisor.inventory()), "no probe is left")


def test_a_verdict_is_found_once_and_kept(
    hypervisor: Hypervisor, private_host: PrivateHost, make: Callable[..., DomainPlan], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # A machine on which what is probed works: here that is emulation.
    monkeypatch.setattr(accelerator, "KVM", "qemu")
    monkeypatch.setattr(accelerator, "has_virtualisation_flag", lambda: True)
    monkeypatch.setattr(accelerator, "PROBE_SECONDS", 8.0)
    plan = make(make_disk(b"KC starter: up\r\n"))
    arch = hypervisor.facts().arch
    if not accelerator.KVM_DEVICE.exists():
        pytest.skip("no /dev/kvm: nothing is probed")
    assert hypervisor.facts().kvm_usable is None
    assert isinstance(hypervisor, LibvirtHost)
    assert hypervisor._accelerators.choose(arch, None).reason == "not proven yet"
    assert hypervisor.accelerator(arch, f"kc-{plan.uid}-base") == "qemu"
    assert hypervisor._accelerators.choose(arch, None).reason == ""
    # Another process finds the verdict in the cache; with another host, kernel or boot it would probe again.
    other = open_hypervisor(private_host.uri, "kc", tmp_path)
    assert other.accelerator(arch, "kc-not-there") == "qemu"
    assert other.facts().kvm_usable is False
    other.close()


def test_many_that_begin_at_once_share_one_pool_and_one_network(private_host: PrivateHost, tmp_path: Path) -> None:
    pool, plan = f"pool-{uuid.uuid4().hex[:6]}", NetworkPlan(
        f"net-{uuid.uuid4().hex[:6]}", "", "isolated", ipv4=serve("10.77.9.0/24")
    )  # fmt: skip
    made: list[str] = []
    errors: list[KCError] = []

    def begin() -> None:
        driver = open_hypervisor(private_host.uri, pool, tmp_path)
        try:
            driver.ensure_pool()
            made.append(driver.ensure_network(plan._replace(uid=str(uuid.uuid4()))).uid)
        except KCError as error:
            errors.append(error)
        driver.close()

    starters = [threading.Thread(target=begin) for _ in range(6)]
    for starter in starters:
        starter.start()
    for starter in starters:
        starter.join(60)
    assert errors == []
    assert len(made) == 6
    assert len(set(made)) == 1
    private_host.virsh("net-destroy", plan.name)
    private_host.virsh("net-undefine", plan.name)
    private_host.virsh("pool-destroy", pool)
    private_host.virsh("pool-undefine", pool)


def test_a_pool_whose_folder_is_gone_is_made_again(private_host: PrivateHost, tmp_path: Path) -> None:
    pool = f"pool-{uuid.uuid4().hex[:6]}"
    driver = open_hypervisor(private_host.uri, pool, tmp_path)
    driver.ensure_pool()
    private_host.virsh("pool-destroy", pool)
    private_host.virsh("pool-delete", pool)
    driver.ensure_pool()
    assert driver.free_bytes() > 0
    driver.close()
    private_host.virsh("pool-destroy", pool)
    private_host.virsh("pool-undefine", pool)


def test_a_network_that_clashes_with_the_host_is_a_conflict_and_stays_undefined(
    hypervisor: Hypervisor, private_host: PrivateHost
) -> None:
    private_host.run("ip", "link", "add", "uplink0", "type", "bridge")
    private_host.run("ip", "addr", "add", "10.78.0.2/24", "dev", "uplink0")
    private_host.run("ip", "link", "set", "uplink0", "up")
    plan = NetworkPlan("clash", str(uuid.uuid4()), "nat", ipv4=serve("10.78.0.0/24"))
    with pytest.raises(ConflictError, match="uplink0"):
        hypervisor.ensure_network(plan)
    assert "clash" not in private_host.virsh("net-list", "--all")


def test_nothing_is_written_to_stderr(private_host: PrivateHost, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from backend.errors import KCError\n"
        "from backend.hypervisor.host import open_hypervisor\n"
        "for uri in sys.argv[1:]:\n"
        f"    driver = open_hypervisor(uri, 'none', Path({str(tmp_path)!r}))\n"
        "    for call in (lambda: driver.find_domain('none'), driver.free_bytes, lambda: driver.console('0' * 32)):\n"
        "        try: call()\n"
        "        except KCError: pass\n"
    )
    uris = [private_host.uri, f"qemu+unix:///system?socket={tmp_path}/none", "nonsense:///x"]
    done = subprocess.run(
        [sys.executable, "-c", script, *uris], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture
def lease(libvirt_uri: str, tmp_path: Path) -> Iterator[tuple[Hypervisor, NetworkPlan, str]]:
    """A network of this machine's own libvirt, and a station on it that has an address by DHCP."""
    token = uuid.uuid4().hex[:6]
    driver = open_hypervisor(libvirt_uri, "kc", tmp_path)
    plan = NetworkPlan(f"kct-{token}", str(uuid.uuid4()), "isolated", ipv4=serve("10.79.3.0/24"))
    made = driver.ensure_network(plan)
    mac = f"52:54:00:{token[0:2]}:{token[2:4]}:{token[4:6]}"
    inner, outer = f"kct{token}a", f"kct{token}b"
    try:
        for command in (
            ("link", "add", outer, "type", "veth", "peer", "name", inner, "address", mac),
            ("link", "set", outer, "master", made.bridge, "up"),
            ("link", "set", inner, "up"),
        ):
            subprocess.run(["ip", *command], check=True)
        ask_for_address(inner, mac)
        yield driver, plan, mac
    finally:
        subprocess.run(["ip", "link", "delete", outer], check=False)
        driver.ensure_network_gone(plan)
        driver.close()


def test_a_lease_is_seen_and_given_back(lease: tuple[Hypervisor, NetworkPlan, str]) -> None:
    hypervisor, network, mac = lease
    wait_until(lambda: hypervisor.leases([network.name]), "the lease is seen")
    (found,) = hypervisor.leases([network.name])
    assert (found.mac, found.family, found.prefix, found.source) == (mac, "ipv4", 24, "lease")
    assert found.address.startswith("10.79.3.")
    hypervisor.release_lease(network.name, "52:54:00:00:00:00")
    assert hypervisor.leases([network.name]) == [found]
    began = time.monotonic()
    hypervisor.release_lease(network.name, mac)
    assert time.monotonic() - began < 1
    assert hypervisor.leases([network.name]) == []
    hypervisor.release_lease(network.name, mac)


def test_a_uri_that_leads_nowhere_is_said_with_what_to_do(tmp_path: Path) -> None:
    driver = open_hypervisor(f"qemu+unix:///system?socket={tmp_path}/none", "kc", tmp_path)
    with pytest.raises(KCError) as caught:
        driver.inventory()
    assert caught.value.exit_code == 6
    assert "libvirtd" in caught.value.hint
    driver.close()
