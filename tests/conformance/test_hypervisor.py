"""What every hypervisor does: the one over a real libvirt and QEMU, and the one in memory."""

from __future__ import annotations

import contextlib
import io
import os
import uuid
from typing import Any

import pytest
from support.hypervisor_rig import GREETING, Rig, read_until
from support.network_sides import serve

from backend.errors import ConflictError, FailedError, NotFoundError, RefusedError
from backend.hypervisor.plan import DiskPlan, NicPlan
from backend.network.plan import DhcpHost, Side

# --- volumes


def test_a_volume_is_what_was_uploaded(rig: Rig) -> None:
    content = os.urandom(300_000)
    done: list[int] = []
    volume = rig.hypervisor.upload("kc-a", io.BytesIO(content), len(content), report=done.append)
    assert (volume.name, volume.format, volume.capacity_bytes, volume.whole) == ("kc-a", "raw", len(content), True)
    assert done[-1] == len(content)
    assert rig.hypervisor.read_volume("kc-a") == content
    assert rig.hypervisor.read_volume("kc-a", 1000, 50) == content[1000:1050]
    assert rig.hypervisor.read_volume("kc-a", -70) == content[-70:]
    assert rig.hypervisor.read_volume("kc-a", -(1 << 30)) == content
    assert rig.hypervisor.read_volume("kc-a", 1 << 30) == b""
    found = rig.hypervisor.find_volume("kc-a")
    assert found is not None
    assert found.capacity_bytes == len(content)


def test_an_upload_replaces_a_volume_of_that_name(rig: Rig) -> None:
    rig.hypervisor.upload("kc-a", io.BytesIO(b"x" * 5000), 5000)
    rig.hypervisor.upload("kc-a", io.BytesIO(b"other"), 5)
    assert rig.hypervisor.read_volume("kc-a") == b"other"
    assert [volume.name for volume in rig.hypervisor.list_volumes()] == ["kc-a"]


def test_an_upload_that_is_given_up_leaves_nothing(rig: Rig) -> None:
    def give_up(done: int) -> None:
        raise KeyboardInterrupt(done)

    with pytest.raises(KeyboardInterrupt):
        rig.hypervisor.upload("kc-a", io.BytesIO(b"x" * (3 << 20)), 3 << 20, report=give_up)
    assert rig.hypervisor.find_volume("kc-a") is None
    assert rig.hypervisor.list_volumes() == []


def test_a_source_that_is_too_short_leaves_nothing(rig: Rig) -> None:
    with pytest.raises(FailedError, match="ended too early"):
        rig.hypervisor.upload("kc-a", io.BytesIO(b"x" * 100), 5000)
    assert rig.hypervisor.list_volumes() == []


def test_what_is_not_there_is_none_and_its_deletion_is_fine(rig: Rig) -> None:
    assert rig.hypervisor.find_volume("kc-none") is None
    assert rig.hypervisor.read_volume("kc-none") == b""
    assert rig.hypervisor.read_log("kc-none", 100) == b""
    assert rig.hypervisor.volume_users("kc-none") == []
    rig.hypervisor.ensure_volume_gone("kc-none")


def test_volumes_are_listed_by_prefix(rig: Rig) -> None:
    for name in ("kc-b-2", "kc-b-1", "kc-c"):
        rig.hypervisor.upload(name, io.BytesIO(b"x"), 1)
    assert [volume.name for volume in rig.hypervisor.list_volumes("kc-b-")] == ["kc-b-1", "kc-b-2"]
    rig.hypervisor.ensure_volume_gone("kc-b-1")
    assert [volume.name for volume in rig.hypervisor.list_volumes()] == ["kc-b-2", "kc-c"]
    assert rig.hypervisor.free_bytes() > 0


def test_an_overlay_is_made_once_over_a_whole_volume(rig: Rig) -> None:
    base = rig.disk()
    volume = rig.hypervisor.ensure_overlay("kc-o", base=base, base_format="raw", capacity_bytes=8 << 20)
    assert (volume.format, volume.capacity_bytes) == ("qcow2", 8 << 20)
    again = rig.hypervisor.ensure_overlay("kc-o", base=base, base_format="raw", capacity_bytes=16 << 20)
    assert again.capacity_bytes == 8 << 20
    with pytest.raises(NotFoundError):
        rig.hypervisor.ensure_overlay("kc-p", base="kc-none", base_format="raw", capacity_bytes=8 << 20)
    with pytest.raises(RefusedError, match="smaller"):
        rig.hypervisor.ensure_overlay("kc-p", base=base, base_format="raw", capacity_bytes=512)
    assert rig.hypervisor.find_volume("kc-p") is None


def test_a_base_is_not_deleted_below_an_overlay_or_a_domain(rig: Rig) -> None:
    base = rig.disk()
    rig.hypervisor.ensure_overlay("kc-o", base=base, base_format="raw", capacity_bytes=8 << 20)
    assert rig.hypervisor.volume_users(base) == ["volume kc-o"]
    with pytest.raises(ConflictError, match="volume kc-o"):
        rig.hypervisor.ensure_volume_gone(base)
    plan = rig.defined(disks=(DiskPlan("root", "kc-o", "qcow2", base, "raw"),))
    assert rig.hypervisor.volume_users(base) == [plan.name]
    assert rig.hypervisor.volume_users("kc-o") == [plan.name]
    for volume in (base, "kc-o"):
        with pytest.raises(ConflictError, match=plan.name):
            rig.hypervisor.ensure_volume_gone(volume)
    rig.hypervisor.ensure_undefined(plan.uid, plan.owner)
    rig.hypervisor.ensure_volume_gone("kc-o")
    rig.hypervisor.ensure_volume_gone(base)
    assert rig.hypervisor.list_volumes() == []


def test_a_disk_that_is_kept_without_its_domain_still_holds_its_base(rig: Rig) -> None:
    base = rig.disk()
    plans = []
    for name in ("kept", "other"):
        rig.hypervisor.ensure_overlay(f"kc-{name}", base=base, base_format="raw", capacity_bytes=8 << 20)
        plans.append(rig.defined(name, disks=(DiskPlan("root", f"kc-{name}", "qcow2", base, "raw"),)))
    assert sorted(rig.hypervisor.volume_users(base)) == sorted(plan.name for plan in plans)
    rig.hypervisor.ensure_undefined(plans[0].uid, plans[0].owner)
    assert sorted(rig.hypervisor.volume_users(base)) == sorted([plans[1].name, "volume kc-kept"])
    assert rig.hypervisor.volume_users("kc-kept") == []
    with pytest.raises(ConflictError, match="volume kc-kept"):
        rig.hypervisor.ensure_volume_gone(base)
    assert rig.hypervisor.find_volume("kc-kept") is not None
    # It comes back with its disk, and is told by its name again.
    rig.hypervisor.ensure_defined(plans[0])
    assert sorted(rig.hypervisor.volume_users(base)) == sorted(plan.name for plan in plans)


def test_a_seed_in_use_is_not_deleted(rig: Rig) -> None:
    rig.hypervisor.upload("kc-seed", io.BytesIO(b"s" * 70_000), 70_000)
    plan = rig.defined(seed="kc-seed")
    with pytest.raises(ConflictError, match=plan.name):
        rig.hypervisor.ensure_volume_gone("kc-seed")


# --- networks


def test_a_network_is_made_once_and_removed(rig: Rig) -> None:
    plan = rig.network(uplink="nat", ipv6=serve("fd00:c0de::/64"), mtu=1400)
    made = rig.hypervisor.ensure_network(plan)
    assert (made.name, made.uid, made.active, made.uplink) == (plan.name, plan.uid, True, "nat")
    assert (made.ipv4_subnet, made.ipv4_mode) == (plan.ipv4.subnet, "dhcp")
    assert (made.ipv6_subnet, made.ipv6_mode) == ("fd00:c0de::/64", "slaac")
    assert 0 < len(made.bridge) <= 15
    assert rig.hypervisor.ensure_network(plan) == made
    assert made in rig.hypervisor.list_networks()
    assert rig.hypervisor.ensure_network_started(plan.name) == made
    rig.hypervisor.ensure_network_gone(plan)
    rig.hypervisor.ensure_network_gone(plan)
    assert plan.name not in [network.name for network in rig.hypervisor.list_networks()]
    with pytest.raises(NotFoundError):
        rig.hypervisor.ensure_network_started(plan.name)


def test_a_network_of_that_name_serves_as_it_is(rig: Rig) -> None:
    first = rig.network()
    made = rig.hypervisor.ensure_network(first)
    other = first._replace(uid=str(uuid.uuid4()), ipv4=serve("10.199.0.0/24"))
    assert rig.hypervisor.ensure_network(other) == made
    with pytest.raises(ConflictError):
        rig.hypervisor.ensure_network_gone(other)
    assert made in rig.hypervisor.list_networks()


def test_a_subnet_that_is_taken_is_a_conflict_with_its_holder_named(rig: Rig) -> None:
    first = rig.network()
    rig.hypervisor.ensure_network(first)
    inside = f"{first.ipv4.subnet.removesuffix('.0/24')}.64/26"
    with pytest.raises(ConflictError, match=first.name):
        rig.hypervisor.ensure_network(rig.network("twin", ipv4=serve(inside)))
    assert [network.name for network in rig.hypervisor.list_networks() if "twin" in network.name] == []


def test_a_network_that_cannot_be_is_refused(rig: Rig) -> None:
    sides = (Side("10.0.0.0/31", "10.0.0.1"), Side("nonsense", "10.0.0.1"), Side("10.0.0.0/24", "10.0.1.1"))
    for wrong in ({"uplink": "magic"}, *({"ipv4": side} for side in sides)):
        with pytest.raises(RefusedError):
            rig.hypervisor.ensure_network(rig.network("wrong", **wrong))


def test_a_network_in_use_stays(rig: Rig) -> None:
    network = rig.network()
    rig.hypervisor.ensure_network(network)
    plan = rig.defined(nics=(NicPlan("nic0", "52:54:00:00:00:01", network.name),))
    with pytest.raises(ConflictError, match=plan.name):
        rig.hypervisor.ensure_network_gone(network)
    rig.hypervisor.ensure_undefined(plan.uid, plan.owner)
    rig.hypervisor.ensure_network_gone(network)


def test_a_network_that_is_not_there_is_made_by_its_replacement(rig: Rig) -> None:
    plan = rig.network()
    made = rig.hypervisor.replace_network(plan)
    assert (made.name, made.uid, made.active, made.ipv4_mode) == (plan.name, plan.uid, True, "dhcp")
    assert rig.hypervisor.replace_network(plan) == made
    assert made in rig.hypervisor.list_networks()


def test_dhcp_comes_and_goes_under_a_running_domain(rig: Rig) -> None:
    network = rig.network(uplink="nat", ipv6=serve("fd00:c0de:1::/64"))
    made = rig.hypervisor.ensure_network(network)
    plan = rig.running(nics=(NicPlan("nic0", "52:54:00:00:00:01", network.name),))
    changed_plan = network._replace(ipv4=serve(network.ipv4.subnet, "static"), ipv6=serve("fd00:c0de:1::/64", "dhcpv6"))
    assert rig.hypervisor.would_cut(changed_plan) == ()
    changed = rig.hypervisor.replace_network(changed_plan)
    assert changed == made._replace(ipv4_mode="static", ipv6_mode="dhcpv6")
    assert rig.hypervisor.replace_network(network) == made
    assert rig.power(plan) == "running"


@pytest.mark.parametrize("change", ["subnet", "uplink", "mtu", "dns", "gateway"])
def test_a_network_is_made_anew_under_the_domains_that_run_on_it(rig: Rig, change: str) -> None:
    network = rig.network()
    made = rig.hypervisor.ensure_network(network)
    other = f"{network.ipv4.subnet.removesuffix('.0/24')}.128/25"
    changed = {
        "subnet": network._replace(ipv4=serve(other)), "uplink": network._replace(uplink="nat"),
        "mtu": network._replace(mtu=1400), "dns": network._replace(dns=("9.9.9.9",)),
        "gateway": network._replace(ipv4=network.ipv4._replace(gateway=network.ipv4.ranges[0][0])),
    }[change]  # fmt: skip
    assert rig.hypervisor.would_cut(changed) == ()
    tap = f"kt{uuid.uuid4().hex[:10]}"
    plan = rig.running(nics=(NicPlan("nic0", "52:54:00:00:00:01", network.name, tap=tap),))
    assert rig.hypervisor.would_cut(network) == ()
    assert rig.hypervisor.would_cut(changed) == (plan.name,)
    again = rig.hypervisor.replace_network(changed)
    assert (again.uid, again.active, again.bridge) == (network.uid, True, made.bridge)
    assert (again.ipv4_subnet, again.uplink) == (changed.ipv4.subnet, changed.uplink)
    (state,) = rig.hypervisor.network_states([changed])
    assert (state.bridge, state.up, tap in state.ports) == (made.bridge, True, True)
    assert rig.power(plan) == "running"
    assert rig.hypervisor.replace_network(changed) == again
    assert rig.hypervisor.would_cut(changed) == ()
    assert rig.hypervisor.replace_network(network) == made


def test_what_dhcp_keeps_for_clients_follows_the_plan(rig: Rig) -> None:
    network = rig.network()
    first, second = (DhcpHost(f"52:54:00:00:00:0{number}", network.ipv4.ranges[0][0], "web") for number in (1, 2))
    made = rig.hypervisor.ensure_network(network)
    for hosts in ((first,), (second,), ()):
        plan = network._replace(ipv4=network.ipv4._replace(hosts=hosts))
        assert rig.hypervisor.would_cut(plan) == ()
        assert rig.hypervisor.ensure_network(plan) == made
        assert rig.hypervisor.replace_network(plan) == made


def test_the_state_of_segments_is_the_kernels(rig: Rig) -> None:
    network, absent = rig.network(mtu=1400), rig.network("absent", ipv4=Side())
    made = rig.hypervisor.ensure_network(network)
    seen, missing = rig.hypervisor.network_states([network, absent], thorough=True)
    assert (seen.bridge, seen.up, seen.mtu, seen.dnsmasq, seen.vxlan) == (made.bridge, True, 1400, True, "")
    assert seen.gateways == ((network.ipv4.gateway, "answers"),)
    assert (missing.up, missing.mtu, missing.dnsmasq, missing.ports) == (False, 0, None, ())
    assert rig.hypervisor.network_states([]) == []


def test_another_network_is_not_replaced_nor_its_subnet_taken(rig: Rig) -> None:
    first = rig.network()
    made = rig.hypervisor.ensure_network(first)
    with pytest.raises(ConflictError):
        rig.hypervisor.replace_network(first._replace(uid=str(uuid.uuid4()), mtu=1400))
    second = rig.network("second", ipv4=Side())
    kept = rig.hypervisor.ensure_network(second)
    with pytest.raises(ConflictError, match=first.name):
        rig.hypervisor.replace_network(second._replace(ipv4=first.ipv4))
    with pytest.raises(RefusedError):
        rig.hypervisor.replace_network(second._replace(uplink="magic"))
    assert {made, kept} <= set(rig.hypervisor.list_networks())


def test_leases_of_networks_that_are_not_there_are_none(rig: Rig) -> None:
    assert rig.hypervisor.leases([f"{rig.prefix}-none"]) == []
    assert rig.hypervisor.leases([]) == []
    rig.hypervisor.release_lease(f"{rig.prefix}-none", "52:54:00:00:00:01")


# --- domains


def test_a_defined_domain_is_seen_and_known_as_its_makers(rig: Rig) -> None:
    plan = rig.defined()
    found = rig.hypervisor.observe(plan.uid)
    assert found is not None
    assert (found.uid, found.name, found.power) == (plan.uid, plan.name, "stopped")
    assert rig.hypervisor.find_domain(plan.name) == found
    assert found in rig.hypervisor.inventory()
    owner = rig.hypervisor.owner_of(plan.uid)
    assert (owner.owner, owner.label, owner.version) == ("owner-1", "kraut@host:/store", 3)
    assert rig.hypervisor.addresses(plan.uid) == []


def test_what_is_not_there_is_not_found(rig: Rig) -> None:
    uid = str(uuid.uuid4())
    assert rig.hypervisor.observe(uid) is None
    assert rig.hypervisor.find_domain(f"{rig.prefix}-none") is None
    for call in (
        rig.hypervisor.owner_of,
        rig.hypervisor.ensure_running,
        rig.hypervisor.console,
        rig.hypervisor.addresses,
        lambda uid: rig.hypervisor.reboot(uid, force=True),
    ):
        with pytest.raises(NotFoundError):
            call(uid)
    assert rig.hypervisor.ensure_stopped(uid, grace_seconds=1, force=False)
    rig.hypervisor.ensure_undefined(uid, "owner-1")


def test_a_domain_is_defined_anew_and_renamed_by_its_owner(rig: Rig) -> None:
    plan = rig.defined()
    rig.hypervisor.ensure_defined(plan)
    rig.hypervisor.ensure_defined(plan._replace(version=4, name=f"{rig.prefix}-renamed", cpus=2))
    assert rig.hypervisor.owner_of(plan.uid).version == 4
    assert rig.hypervisor.find_domain(plan.name) is None
    assert rig.hypervisor.find_domain(f"{rig.prefix}-renamed") is not None


def test_a_name_that_is_taken_is_a_conflict_with_its_owner_named(rig: Rig) -> None:
    plan = rig.defined()
    with pytest.raises(ConflictError, match="kraut@host:/store"):
        rig.hypervisor.ensure_defined(plan._replace(uid=str(uuid.uuid4()), owner="owner-2"))


def test_another_owners_domain_is_not_touched(rig: Rig) -> None:
    plan = rig.defined()
    with pytest.raises(ConflictError, match="kraut@host:/store"):
        rig.hypervisor.ensure_defined(plan._replace(owner="owner-2"))
    with pytest.raises(ConflictError, match="kraut@host:/store"):
        rig.hypervisor.ensure_undefined(plan.uid, "owner-2")
    assert rig.power(plan) == "stopped"


def test_a_domain_without_its_disk_is_not_defined(rig: Rig) -> None:
    with pytest.raises(NotFoundError):
        rig.hypervisor.ensure_defined(rig.plan(disks=(DiskPlan("root", "kc-none", "raw"),)))
    assert rig.hypervisor.find_domain(f"{rig.prefix}-vm") is None


@pytest.mark.parametrize(
    "wrong", [{"arch": "z80"}, {"firmware": "forth"}, {"on_crash": "weep"}, {"secure_boot": True}], ids=str
)
def test_a_plan_that_no_host_can_have_is_refused(rig: Rig, wrong: dict[str, Any]) -> None:
    plan = rig.plan(**wrong)
    with pytest.raises(RefusedError):
        rig.hypervisor.ensure_defined(plan)
    assert rig.hypervisor.observe(plan.uid) is None


def test_a_guest_starts_once_and_obeys_the_power_button(rig: Rig) -> None:
    plan = rig.running()
    rig.hypervisor.ensure_running(plan.uid)
    assert rig.power(plan) == "running"
    with pytest.raises(ConflictError):
        rig.hypervisor.ensure_undefined(plan.uid, plan.owner)
    assert rig.hypervisor.ensure_stopped(plan.uid, grace_seconds=20, force=False)
    assert rig.power(plan) == "stopped"
    assert rig.hypervisor.ensure_stopped(plan.uid, grace_seconds=20, force=False)
    rig.hypervisor.ensure_undefined(plan.uid, plan.owner)
    rig.hypervisor.ensure_undefined(plan.uid, plan.owner)
    assert rig.hypervisor.observe(plan.uid) is None


def test_a_deaf_guest_stays_on_unless_it_is_forced_off(rig: Rig) -> None:
    plan = rig.deaf()
    assert not rig.hypervisor.ensure_stopped(plan.uid, grace_seconds=0.5, force=False)
    assert rig.power(plan) == "running"
    assert rig.hypervisor.ensure_stopped(plan.uid, grace_seconds=0.5, force=True)
    assert rig.power(plan) == "stopped"


@pytest.mark.parametrize("force", [False, True])
def test_a_reboot_boots_again(rig: Rig, force: bool) -> None:
    plan = rig.running()
    rig.hypervisor.reboot(plan.uid, force=force)
    rig.wait(lambda: rig.hypervisor.read_log(plan.console_log, 4096).count(GREETING) == 2, "the guest is up again")
    assert rig.power(plan) == "running"


def test_what_is_off_cannot_be_rebooted_and_has_no_console(rig: Rig) -> None:
    plan = rig.defined()
    with pytest.raises(ConflictError):
        rig.hypervisor.reboot(plan.uid, force=True)
    with pytest.raises(ConflictError):
        rig.hypervisor.console(plan.uid)
    assert not rig.hypervisor.agent_answers(plan.uid)


def test_a_console_carries_bytes_both_ways_and_ends_with_its_guest(rig: Rig) -> None:
    plan = rig.running()
    console = rig.hypervisor.console(plan.uid)
    for word in (b"first", b"second", b"third"):
        console.write(word)
        read_until(console, word)
    assert console.read(0.05) is None
    assert b"third" in rig.hypervisor.read_log(plan.console_log, 200)
    assert rig.hypervisor.read_log(plan.console_log, 5) == b"third"
    rig.hypervisor.ensure_stopped(plan.uid, grace_seconds=0, force=True)
    rig.wait(lambda: console.read(0.1) == b"", "the console ends")
    with pytest.raises(ConflictError):
        console.write(b"x")
    console.close()
    console.close()


def test_a_second_reader_takes_the_console_over(rig: Rig) -> None:
    plan = rig.running()
    first = rig.hypervisor.console(plan.uid)
    second = rig.hypervisor.console(plan.uid)
    rig.wait(lambda: first.read(0.1) == b"", "the first one ends")
    second.write(b"mine")
    read_until(second, b"mine")
    second.close()
    assert second.read(1) == b""


def test_counters_are_of_every_domain(rig: Rig) -> None:
    on, off = rig.running("on"), rig.defined("off")
    rig.wait(lambda: rig.sample(on).cpu_time_ns > 0, "the guest has used the CPU")
    sample = rig.sample(on)
    assert (sample.power, sample.cpus, sample.memory_bytes) == ("running", 1, 32 << 20)
    assert 0 < sample.memory_used_bytes <= 32 << 20
    assert rig.sample(off).power == "stopped"


def test_subscribers_hear_of_what_happens_until_they_leave(rig: Rig) -> None:
    hints: list[tuple[str, str]] = []
    unsubscribe = rig.hypervisor.subscribe(lambda *hint: hints.append(hint))
    plan = rig.plan()
    network = rig.network()
    for change in (
        lambda: rig.hypervisor.ensure_defined(plan),
        lambda: rig.hypervisor.ensure_running(plan.uid),
        lambda: rig.hypervisor.ensure_stopped(plan.uid, grace_seconds=0, force=True),
        lambda: rig.hypervisor.ensure_undefined(plan.uid, plan.owner),
    ):
        hints.clear()
        change()
        rig.wait(lambda: ("domain", plan.uid) in hints, "a domain's event")
    rig.hypervisor.ensure_network(network)
    rig.wait(lambda: ("network", network.name) in hints, "a network's event")
    unsubscribe()
    unsubscribe()
    hints.clear()
    rig.hypervisor.ensure_network_gone(network)
    assert hints == []


def test_a_host_tells_what_it_is(rig: Rig) -> None:
    facts = rig.hypervisor.facts()
    assert facts.uri == rig.hypervisor.uri
    assert facts.arch in facts.guest_archs
    assert facts.cpus > 0
    assert facts.memory_mib > 0
    assert facts.libvirt_version.count(".") == 2
    assert rig.hypervisor.accelerator(facts.arch) in ("kvm", "qemu")
    assert rig.hypervisor.accelerator("aarch64" if facts.arch == "x86_64" else "x86_64") == "qemu"


def test_a_closed_hypervisor_may_be_closed_again(rig: Rig) -> None:
    rig.hypervisor.inventory()
    rig.hypervisor.close()
    with contextlib.suppress(FailedError):
        rig.hypervisor.close()
