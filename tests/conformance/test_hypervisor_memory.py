"""What tests can do with the hypervisor in memory, beside what every hypervisor does."""

from __future__ import annotations

import io
import uuid
import zlib
from collections.abc import Callable

import pytest
from support.hypervisor_rig import MIB

from backend.errors import ConflictError, FailedError, KCError
from backend.hypervisor.memory import MemoryHypervisor, fail_with
from backend.hypervisor.plan import DiskPlan, DomainPlan, NicPlan
from backend.hypervisor.protocol import Hypervisor
from backend.network.plan import NetworkPlan


@pytest.fixture
def host() -> MemoryHypervisor:
    return MemoryHypervisor()


def started(host: MemoryHypervisor, name: str = "vm", **changes: object) -> DomainPlan:
    uid = str(uuid.uuid4())
    host.ensure_blank(f"kc-{uid}-root", MIB)
    plan = DomainPlan(
        uid=uid, name=name, version=1, owner="me", owner_label="me@here", metadata="{}", arch="x86_64", cpus=2,
        memory_mib=64, firmware="bios", accelerator="qemu", disks=(DiskPlan("root", f"kc-{uid}-root"),),
        nics=(NicPlan("nic0", "52:54:00:00:00:01"),), seed="", console_log="", max_cpus=4, max_memory_mib=128,
    )._replace(**changes)  # type: ignore[arg-type]  # fmt: skip
    host.ensure_defined(plan)
    host.ensure_running(uid)
    return plan


def calls(host: MemoryHypervisor, plan: DomainPlan) -> dict[str, Callable[[], object]]:
    uid, blank, network = plan.uid, "kc-b", NetworkPlan("n", plan.uid, "isolated")
    return {
        "facts": host.facts, "accelerator": lambda: host.accelerator("x86_64"),
        "subscribe": lambda: host.subscribe(lambda *_: None), "inventory": host.inventory,
        "observe": lambda: host.observe(uid), "find_domain": lambda: host.find_domain("vm"),
        "owner_of": lambda: host.owner_of(uid), "ensure_defined": lambda: host.ensure_defined(plan),
        "apply_live": lambda: host.apply_live(plan), "differences": lambda: host.differences(plan),
        "find_adoptable": lambda: host.find_adoptable("vm"), "adopt": lambda: host.adopt(uid, plan),
        "disown": lambda: host.disown(uid, "me"), "ensure_running": lambda: host.ensure_running(uid),
        "ensure_paused": lambda: host.ensure_paused(uid),
        "ensure_stopped": lambda: host.ensure_stopped(uid, grace_seconds=0, force=True),
        "reboot": lambda: host.reboot(uid, force=True), "ensure_undefined": lambda: host.ensure_undefined(uid, "me"),
        "console": lambda: host.console(uid), "display": lambda: host.display(uid),
        "display_address": lambda: host.display_address(uid), "screenshot": lambda: host.screenshot(uid),
        "agent_answers": lambda: host.agent_answers(uid), "addresses": lambda: host.addresses(uid),
        "leases": lambda: host.leases([]), "samples": host.samples, "list_snapshots": lambda: host.list_snapshots(uid),
        "take_snapshot": lambda: host.take_snapshot(uid, "s"),
        "restore_snapshot": lambda: host.restore_snapshot(uid, "s"),
        "ensure_snapshot_gone": lambda: host.ensure_snapshot_gone(uid, "s"), "list_networks": host.list_networks,
        "ensure_network": lambda: host.ensure_network(network),
        "replace_network": lambda: host.replace_network(network),
        "ensure_network_started": lambda: host.ensure_network_started("n"),
        "ensure_network_gone": lambda: host.ensure_network_gone(network),
        "would_cut": lambda: host.would_cut(network), "network_states": lambda: host.network_states([network]),
        "network_obstacles": lambda: host.network_obstacles([network]),
        "underlay_mtu": lambda: host.underlay_mtu("10.0.0.1"),
        "ensure_guards": lambda: host.ensure_guards("me", uid, ()),
        "guard_drops": lambda: host.guard_drops("me", uid),
        "ensure_no_guards": lambda: host.ensure_no_guards("me", ()),
        "release_lease": lambda: host.release_lease("n", ""), "ensure_pool": host.ensure_pool,
        "free_bytes": host.free_bytes, "find_volume": lambda: host.find_volume(blank),
        "list_volumes": host.list_volumes, "ensure_blank": lambda: host.ensure_blank(blank, MIB),
        "ensure_overlay": lambda: host.ensure_overlay("o", base=blank, base_format="qcow2", capacity_bytes=1),
        "ensure_capacity": lambda: host.ensure_capacity(blank, MIB),
        "ensure_copy": lambda: host.ensure_copy("c", blank),
        "upload": lambda: host.upload("u", io.BytesIO(b"x"), 1), "read_volume": lambda: host.read_volume(blank),
        "read_log": lambda: host.read_log(blank, 1), "ensure_volume_gone": lambda: host.ensure_volume_gone(blank),
        "volume_users": lambda: host.volume_users(blank),
    }  # fmt: skip


def test_each_call_can_be_made_to_fail(host: MemoryHypervisor) -> None:
    every = calls(host, started(host))
    named = {name for name in vars(Hypervisor) if not name.startswith("_")}
    assert named - set(every) == {"uri", "close"}
    for name, call in every.items():
        host.fail = fail_with(FailedError("it", f"as asked: {name}"), name)
        with pytest.raises(KCError, match=f"as asked: {name}"):
            call()


def test_an_agent_is_away_while_its_guest_boots_again(host: MemoryHypervisor) -> None:
    plan = started(host)
    assert host.agent_answers(plan.uid)
    host.reboot_seconds = 3600
    host.reboot(plan.uid, force=False)
    assert not host.agent_answers(plan.uid)
    host.reboot_seconds = 0
    host.reboot(plan.uid, force=True)
    assert host.agent_answers(plan.uid)
    host.boots = False
    host.reboot(plan.uid, force=True)
    assert not host.agent_answers(plan.uid)


def test_a_guest_that_is_up_gives_back_cpus_memory_nics_and_disks(host: MemoryHypervisor) -> None:
    plan = started(host)
    host.ensure_blank("kc-data", MIB)
    more = plan._replace(cpus=4, memory_mib=128, disks=(*plan.disks, DiskPlan("data", "kc-data", capacity_bytes=9)))
    assert host.apply_live(more) == ()
    (sample,) = host.samples()
    assert (sample.cpus, sample.memory_bytes) == (4, 128 * MIB)
    with pytest.raises(ConflictError):
        host.ensure_volume_gone("kc-data")
    fewer = plan._replace(cpus=2, memory_mib=32, nics=())
    assert host.apply_live(fewer) == ()
    (sample,) = host.samples()
    assert (sample.cpus, sample.memory_bytes) == (2, 32 * MIB)
    assert host.addresses(plan.uid) == []
    host.ensure_volume_gone("kc-data")


def test_a_pause_takes_no_addresses_from_a_guest(host: MemoryHypervisor) -> None:
    plan = started(host)
    addresses = host.addresses(plan.uid)
    assert len(addresses) == 1
    host.ensure_paused(plan.uid)
    host.ensure_running(plan.uid)
    assert host.addresses(plan.uid) == addresses
    assert host.agent_answers(plan.uid)


def test_a_host_that_restarts_starts_what_is_to_start_with_it(host: MemoryHypervisor) -> None:
    with_host, without = started(host, "with", autostart=True), started(host, "without")
    host.restart_host()
    powers = {domain.uid: domain.power for domain in host.inventory()}
    assert powers == {with_host.uid: "running", without.uid: "stopped"}


def test_a_pool_that_is_full_takes_no_copy() -> None:
    host = MemoryHypervisor(capacity_bytes=1500)
    host.upload("kc-a", io.BytesIO(b"x" * 1000), 1000)
    with pytest.raises(FailedError, match="no room"):
        host.ensure_copy("kc-b", "kc-a")
    assert [volume.name for volume in host.list_volumes()] == ["kc-a"]


def test_counters_grow_while_a_domain_runs(host: MemoryHypervisor) -> None:
    plan = started(host)
    domain = host.domains[plan.uid]
    first, second = domain.sample(1000.0), domain.sample(1010.0)
    for name in ("cpu_time_ns", "disk_read_bytes", "disk_written_bytes", "received_bytes", "sent_bytes"):
        assert getattr(second, name) > getattr(first, name) > 0
    host.set_power(plan.uid, "stopped")
    assert domain.sample(1020.0).received_bytes == 0


def test_a_picture_is_a_whole_png_and_its_domains_own(host: MemoryHypervisor) -> None:
    first, second = (host.screenshot(started(host, name, nics=()).uid) for name in ("a", "b"))
    assert first != second
    length = int.from_bytes(first[33:37], "big")
    assert first[37:41] == b"IDAT"
    assert len(zlib.decompress(first[41 : 41 + length])) == 200 * (1 + 320 // 8)
