"""What a verb wishes for, what the overview tells of it, and the figures of the last minute."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.model.samples import Sample
from kc_tui.state.addressing import complain_about_addressing, plan_address
from kc_tui.state.counting import count_vms
from kc_tui.state.draft import Nic
from kc_tui.state.fields import make_fields
from kc_tui.state.glyphs import UNICODE
from kc_tui.state.resizing import describe_type, read_changes, read_texts
from kc_tui.state.samples import HISTORY, UsageBook
from kc_tui.state.vm_details import describe
from kc_tui.state.vm_parts import describe_restoring, draw_adoption, drift_changes, suggest_name
from kc_tui.state.vm_wiring import describe_wiring
from kc_tui.state.vm_wishes import (
    add_nic,
    complain_about_size,
    disk_sizes,
    grow_disk,
    insert_disc,
    move_to_type,
    remove_disk,
    remove_nic,
)
from kc_tui.state.vms import judge

SPEC: dict[str, Any] = {
    "image": {"name": "starter"}, "type": {"name": "tiny", "uid": "t", "version": 1}, "parameters": {"cpus": 2},
    "nics": [{"id": "nic0", "network": {"name": "default"}, "mac": "52:54:00:00:00:01"}],
    "disks": [{"id": "disk1", "sizeGiB": 5}], "cdrom": None, "power": "running", "sshKeys": [],
}  # fmt: skip
STATUS = {"power": "running", "hardware": {"cpus": 1, "memoryMiB": 512, "diskGiB": 2}}


def vm(spec: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    return {"kind": "VM", "name": "web", "uid": "u", "version": 2, "metadata": {}, "spec": SPEC | (spec or {}),
            "createdAt": "2026-01-01T00:00:00.000Z", "status": STATUS | status}  # fmt: skip


def text_of(lines: Any) -> str:
    return "\n".join("".join(run.text for run in line) for line in lines)


def test_a_wish_changes_its_part_and_leaves_the_spec_that_it_was_given():
    before = repr(SPEC)
    assert add_nic(SPEC, Nic("office", "10.0.0.5/24"))["nics"][1] == {
        "network": "office", "ipv4": {"mode": "static", "address": "10.0.0.5/24"}, "ipv6": {"mode": "network"},
    }  # fmt: skip
    assert remove_nic(SPEC, "nic0")["nics"] == []
    assert grow_disk(SPEC, "disk1", 9)["disks"] == [{"id": "disk1", "sizeGiB": 9}]
    assert grow_disk(SPEC, "root", 9)["parameters"] == {"cpus": 2, "diskGiB": 9}
    assert remove_disk(SPEC, "disk1")["disks"] == []
    assert insert_disc(SPEC, "iso")["cdrom"] == {"name": "iso"}
    assert insert_disc(SPEC, None)["cdrom"] is None
    assert repr(SPEC) == before


def test_another_type_takes_only_the_parameters_that_it_has():
    other = {"name": "big", "uid": "b", "version": 7, "spec": {"parameters": {"memoryMiB": {}}}}
    moved = move_to_type(SPEC | {"parameters": {"cpus": 2, "memoryMiB": 900}}, other)
    assert moved["type"] == {"name": "big", "uid": "b", "version": 7}
    assert moved["parameters"] == {"memoryMiB": 900}


@pytest.mark.parametrize(
    ("text", "family", "complaint"),
    [
        ("", "ipv4", ""),
        ("dhcp", "ipv4", ""),
        ("slaac", "ipv4", "dhcp, none, static, or an address such as 10.0.0.5/24"),
        ("static", "ipv4", ""),
        ("dhcp 10.0.0.5/24", "ipv4", ""),
        ("dhcp 10.0.0.5", "ipv4", "add a prefix: /24"),
        ("none 10.0.0.5/24", "ipv4", "dhcp, none, static, or an address such as 10.0.0.5/24"),
        ("10.0.0.5", "ipv4", "add a prefix: /24"),
        ("fd00::5/64", "ipv6", ""),
        ("10.0.0.5/24", "ipv6", "no IPv6 address"),
    ],
)
def test_a_way_of_addressing_is_checked_as_it_is_typed(text: str, family: str, complaint: str):
    assert complain_about_addressing(text, family) == complaint


def test_one_address_is_not_for_several_vms():
    assert complain_about_addressing("10.0.0.5/24", "ipv4", is_one=False) == "several VMs cannot have one address"
    assert complain_about_addressing("dhcp", "ipv4", is_one=False) == ""


@given(st.text(max_size=40))
def test_whatever_has_no_complaint_makes_a_plan(text: str):
    for family in ("ipv4", "ipv6"):
        if not complain_about_addressing(text, family):
            assert plan_address(text)["mode"]


def test_sizes_are_whole_and_never_less_than_they_were():
    assert complain_about_size("x") == "a whole number is wanted"
    assert complain_about_size("4", 5) == "at least 5"
    assert complain_about_size("5", 5) == ""
    assert disk_sizes(SPEC, STATUS["hardware"]) == {"root": 2, "disk1": 5}  # type: ignore[arg-type]
    assert disk_sizes(SPEC | {"adopted": True, "disks": []}, {"diskGiB": 2}) == {}


def test_a_form_begins_with_what_was_chosen_and_tells_only_what_changed():
    machine_type = {"hardware": {"memoryMiB": 512}, "parameters": {"cpus": {"type": "integer", "default": 1},
                    "memoryMiB": {"type": "integer"}}}  # fmt: skip
    fields = make_fields(machine_type)
    before = read_texts(fields, {"cpus": 2})
    assert before == {"cpus": "2", "memoryMiB": "512"}
    assert read_changes(fields, before, before) == {}
    assert read_changes(fields, before, before | {"cpus": "3"}) == {"cpus": 3}


def test_a_type_says_how_it_stands_to_the_one_that_a_vm_has():
    newest = {"uid": "t", "version": 3, "spec": {"arch": "x86_64", "hardware": {"cpus": 1, "memoryMiB": 512}}}
    assert describe_type(newest, {"uid": "t", "version": 1}, "x86_64") == ("1 CPU, 512 MiB memory", "1 to 3", "")
    assert describe_type(newest, {"uid": "t", "version": 3}, "x86_64")[2].startswith("the VM is of this type")
    assert describe_type(newest, {}, "aarch64")[2] == "it is for x86_64, the VM is aarch64"


@pytest.mark.parametrize(
    ("spec", "status", "note"),
    [
        ({"power": "running"}, {"power": "stopped"}, "it is to be running, and it is stopped"),
        ({"power": "stopped"}, {"power": "running"}, "it is to be stopped, and it is running"),
        ({}, {"drift": [{"path": "spec.autostart", "wanted": "yes", "found": "no"}]},
         "somebody else changed spec.autostart"),
    ],
)  # fmt: skip
def test_a_vm_that_is_not_as_it_is_to_be_needs_attention(spec: dict, status: dict, note: str):
    condition = judge(vm(spec, **status), None, UNICODE)
    assert (condition.group, condition.note, condition.glyph) == ("attention", note, UNICODE.attention)
    assert judge(vm(spec, **status), None, UNICODE, is_connecting=True).group != "attention"
    assert judge(vm(spec, **status, stale=True), None, UNICODE).group != "attention"


def test_the_header_counts_a_vm_that_stopped_by_itself():
    stopped = [vm(power="stopped")]
    assert count_vms(stopped, ()).attention == 1
    assert count_vms(stopped, (), is_connecting=True).attention == 0


def test_drift_is_a_change_from_what_is_found_to_what_is_wanted():
    drift = [{"path": "spec.parameters.cpus", "wanted": "1, up to 2", "found": "4"}]
    change, power = drift_changes(vm({"power": "stopped"}, drift=drift))
    assert (change.where, change.old, change.new) == ("spec.parameters.cpus", 4, "1, up to 2")
    assert (power.where, power.old, power.new) == ("spec.power", "running", "stopped")
    assert drift_changes(vm()) == []


def test_restoring_tells_what_becomes_of_the_memory():
    at = {"at": "2026-01-02T10:00:00.000Z"}
    assert "goes on from that moment" in describe_restoring(vm(), at | {"hasMemory": True})[1]
    assert "the power is cut" in describe_restoring(vm(), at)[1]
    assert describe_restoring(vm(power="stopped"), at)[1] == "the VM is off"


def test_an_adoption_tells_both_sides_and_suggests_a_name():
    text = text_of(draw_adoption(["4 CPUs"], ["a TPM"], 60, UNICODE))
    assert text.splitlines() == ["KC manages", "· 4 CPUs", "", "Stays as it is, untouched", "· a TPM"]
    assert suggest_name("Win 11 (Büro)") == "win-11-b-ro"
    assert suggest_name("---") == ""


def test_the_wiring_tells_disks_snapshots_drift_and_where_an_address_was_learned():
    text = text_of(
        describe_wiring(
            vm(
                addresses=[{"address": "10.0.0.9", "nic": "nic0", "source": "arp", "family": "ipv4"}],
                disks=[{"id": "root", "sizeBytes": 2 << 30, "usedBytes": 1 << 20}],
                snapshots=[{"name": "s1", "at": "2026-01-02T10:00:00.000Z", "hasMemory": True}],
                drift=[{"path": "spec.autostart", "wanted": "yes", "found": "no"}],
                pendingRestart=["spec.parameters.cpus"], display="vnc:1",
            ),
            {}, UNICODE,
        )
    )  # fmt: skip
    for words in ("10.0.0.9  arp", "1 MiB used", "disk1", "empty", "s1", "with memory", "no, wanted yes",
                  "Waits for a restart", "vnc:1"):  # fmt: skip
        assert words in text


def test_an_adopted_vm_has_no_image_and_keeps_its_disks():
    adopted = vm({"image": None, "adopted": True, "disks": []})
    assert "they are not KC's" in text_of(describe_wiring(adopted, {}, UNICODE))
    assert "none: it was adopted" in text_of(describe(adopted, None, None, 0.0, UNICODE))


def test_a_newer_machine_type_is_told_beside_the_pinned_version():
    text = text_of(describe(vm(newerType=4), None, None, 0.0, UNICODE))
    assert "version 1" in text
    assert "there is version 4" in text


def take(book: UsageBook, tick: int, rate: int) -> None:
    sample = Sample(
        "u", 100.0 + 2 * tick, "running", cpus=1, cpu_time_ns=tick * 1_000_000_000, memory_used_bytes=1 << 20,
        disk_read_bytes=tick * rate, sent_bytes=tick * rate * 2,
    )  # fmt: skip
    book.take([sample])


def test_figures_are_kept_for_a_minute_and_no_longer_the_oldest_first():
    book = UsageBook()
    for tick in range(HISTORY * 2 + 5):
        take(book, tick, 1000)
    usage = book.get("u")
    assert usage is not None
    for history in (usage.cpu_history, usage.memory_history, usage.read, usage.sent, usage.received):
        assert len(history) == HISTORY
    assert set(usage.read) == {500.0}
    assert set(usage.sent) == {1000.0}
    book.take([Sample("u", 100.0 + 2 * (HISTORY * 2 + 5), "running", cpus=1, cpu_time_ns=10**12)])
    last = book.get("u")
    assert last is not None
    assert last.cpu_history[:-1] == usage.cpu_history[1:]


def test_the_overview_draws_every_figure_of_a_vm_that_runs():
    book = UsageBook()
    for tick in range(5):
        take(book, tick, 4096)
    running = text_of(describe(vm(), None, book.get("u"), 0.0, UNICODE))
    for words in ("CPU ", "50 %", "read", "2 KiB/s", "sent", "4 KiB/s"):
        assert words in running
    assert "KiB/s" not in text_of(describe(vm(power="stopped"), None, book.get("u"), 0.0, UNICODE))
