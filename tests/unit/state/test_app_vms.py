"""What the list says of a VM: its state in a word and a sign, its figures, and what is wrong with it."""

from typing import Any

import pytest

from kc_tui.state.counting import count_vms
from kc_tui.state.glyphs import UNICODE
from kc_tui.state.roles import Role
from kc_tui.state.samples import Usage, UsageBook
from kc_tui.state.table import measure
from kc_tui.state.vm_details import describe, describe_metadata
from kc_tui.state.vm_wiring import describe_wiring
from kc_tui.state.vms import COLUMNS, build_entry, flatten, judge, read_metadata, refresh_usage

SHORT = {"name": "op-1", "type": "vm.start", "state": "running", "step": 2, "steps": 6, "title": "x", "percent": 20}


def vm(power: str = "running", **status: Any) -> dict[str, Any]:
    return {
        "kind": "VM", "name": "web", "uid": "u", "version": 1, "createdAt": "2026-01-01T00:00:00.000Z",
        "metadata": {"tenant": "acme", "owner": {"mail": "a@b"}, "tier": 3},
        "spec": {"type": {"name": "tiny"}, "image": {"name": "starter"}, "nics": [{"id": "nic0", "network": "default",
                 "mac": "52:54:00:00:00:01", "ipv4": {"mode": "network"}, "ipv6": {"mode": "none"}}],
                 "sshKeys": ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 ada"]},
        "status": {"power": power, "hardware": {"cpus": 1, "memoryMiB": 512, "diskGiB": 2}, **status},
    }  # fmt: skip


FOREIGN = {
    "kind": "VM",
    "name": "win",
    "uid": "f",
    "version": 0,
    "spec": {},
    "status": {"power": "running", "foreign": True},
}


@pytest.mark.parametrize(
    ("document", "word", "sign", "group"),
    [
        (vm("running"), "running", UNICODE.running, "running"),
        (vm("stopped"), "stopped", UNICODE.stopped, "stopped"),
        (vm("paused"), "paused", UNICODE.paused, "paused"),
        (vm("crashed"), "crashed", UNICODE.attention, "attention"),
        (vm("absent"), "missing", UNICODE.attention, "attention"),
        (vm("running", stale=True), "running", UNICODE.stale, "running"),
        (FOREIGN, "running", UNICODE.foreign, "foreign"),
    ],
)
def test_each_state_has_a_word_and_a_sign(document: dict, word: str, sign: str, group: str):
    condition = judge(document, None, UNICODE)
    assert (condition.word, condition.glyph, condition.group) == (word, sign, group)


def test_what_is_done_to_a_vm_comes_before_its_state():
    condition = judge(vm("crashed"), SHORT, UNICODE)
    assert (condition.word, condition.busy, condition.group) == ("starting", "starting", "busy")


def test_while_kc_connects_nothing_is_marked_as_old():
    assert not judge(vm(stale=True), None, UNICODE, is_connecting=True).is_stale
    assert judge(vm(stale=True), None, UNICODE).is_stale


def test_a_pending_restart_names_what_waits_for_it():
    condition = judge(vm(pendingRestart=["spec.parameters.cpus"]), None, UNICODE)
    assert condition.needs_restart
    assert condition.note == "restart needed for: spec.parameters.cpus"


def entry(document: dict, operation: dict | None = None, usage: Usage | None = None, **more: Any):
    return build_entry(document, operation, usage, UNICODE, **more)


def texts(row) -> list[str]:
    return ["".join(run.text for run in cell.runs) for cell in row.cells]


def test_a_row_says_all_of_it():
    address = {"address": "10.0.0.17", "family": "ipv4", "source": "lease"}
    built = entry(vm(addresses=[address]), usage=Usage(0.12, 300 << 20, (0.1, 0.5, 0.12)))
    assert texts(built.row) == ["web", "running", " ▂▅▂ 12 %", "0.3/0.5 G", "10.0.0.17 dhcp", "tiny"]
    assert (built.address, built.state, built.is_on) == ("10.0.0.17", "running", True)


def test_a_row_fits_the_columns_of_eighty_cells():
    address = {"address": "192.168.150.117", "family": "ipv4", "source": "lease"}
    built = entry(vm(addresses=[address]), usage=Usage(1.0, 500 << 20, (1.0,) * 9))
    widths = {column.id: column.width for column in COLUMNS}
    assert measure(built.row.cells[2].runs) == widths["cpu"]
    assert measure(built.row.cells[3].runs) <= widths["memory"]
    assert sum(widths.values()) + 2 * (len(widths) - 1) + 4 == 80


def test_a_vm_that_is_off_shows_dashes_for_its_figures():
    built = entry(vm("stopped"), usage=Usage(0.5, 100, (0.5,)))
    assert texts(built.row)[2:5] == ["–", "–/0.5 G", "–"]
    assert not built.is_on


def test_ipv4_comes_before_ipv6_and_link_local_last():
    found = [{"address": "fe80::1", "family": "ipv6"}, {"address": "fd00::1", "family": "ipv6"},
             {"address": "169.254.0.1", "family": "ipv4"}, {"address": "10.0.0.1", "family": "ipv4"}]  # fmt: skip
    assert entry(vm(addresses=found)).address == "10.0.0.1"


def test_a_foreign_domain_says_so_and_is_dim():
    built = entry(FOREIGN)
    assert texts(built.row)[4] == "foreign, not KC's"
    assert built.is_foreign
    assert {cell.role for cell in built.row.cells} == {Role.MUTED}


def test_an_operation_takes_the_place_of_the_figures():
    progress = entry(vm(), SHORT).row.progress
    assert progress is not None
    assert (progress.text, progress.fraction) == ("step 2 of 6: x", 0.2)


def test_a_missing_vm_can_be_started_like_one_that_is_off():
    assert entry(vm("absent")).state == "stopped"


def test_metadata_gives_columns_and_is_found_by_a_filter():
    built = entry(vm(), metadata_columns=("tenant", "owner.mail", "gone"))
    assert texts(built.row)[6:] == ["acme", "a@b", ""]
    assert "owner.mail=a@b" in built.search
    assert read_metadata(vm(), "tier") == "3"


def test_rows_that_look_the_same_have_the_same_version():
    assert entry(vm()).row == entry(vm()).row
    assert entry(vm()).row.version != entry(vm("paused")).row.version


def test_other_figures_leave_the_rest_of_a_row():
    built = entry(vm())
    other = refresh_usage(built, vm(), Usage(0.5, None, (0.5,)), UNICODE)
    assert texts(other.row)[2].endswith("50 %")
    assert texts(other.row)[0:2] == texts(built.row)[0:2]
    assert other.row.version != built.row.version


def test_deep_metadata_is_not_followed_for_ever():
    deep: dict[str, Any] = {}
    for _ in range(2000):
        deep = {"a": deep}
    assert len(flatten(deep)) == 1


def sample(at: float, cpu_time_ns: int, cpus: int = 2, memory: int = 0):
    from backend.model.samples import Sample

    return Sample("u", at, "running", cpus=cpus, cpu_time_ns=cpu_time_ns, memory_used_bytes=memory)


def test_two_samples_make_a_share_of_all_cpus():
    book = UsageBook()
    book.take([sample(10.0, 0)])
    first = book.get("u")
    assert first is not None
    assert first.cpu is None
    book.take([sample(12.0, 2_000_000_000, memory=5)])
    assert book.get("u") == Usage(0.5, 5, (0.5,), (5.0,), (0.0,), (0.0,), (0.0,), (0.0,))


def test_a_counter_that_went_back_is_no_share():
    book = UsageBook()
    for at, cpu in ((10.0, 5), (12.0, 1), (12.0, 9)):
        book.take([sample(at, cpu)])
    found = book.get("u")
    assert found is not None
    assert found.cpu is None


def test_a_vm_that_is_gone_is_forgotten():
    book = UsageBook()
    book.take([sample(1.0, 1)])
    book.take([])
    assert book.get("u") is None


def test_the_header_counts_kcs_own_vms():
    documents = [vm() | {"uid": "a"}, vm() | {"uid": "b"}, vm("crashed") | {"uid": "c"}, vm("stopped"), FOREIGN]
    counted = count_vms(documents, {"b"})
    assert (counted.total, counted.running, counted.changing, counted.attention) == (4, 1, 1, 1)
    assert count_vms(None, ()).total is None


def lines(found) -> str:
    return "\n".join("".join(run.text for run in line) for line in found)


def test_the_overview_tells_where_it_runs_and_that_emulation_is_slow():
    text = lines(describe(vm(accelerator="tcg"), SHORT, Usage(0.5, None, (0.5,)), 1_767_312_000.0, UNICODE))
    for words in ("web", "starting", "step 2 of 6", "emulated, slow", "50 %", "none yet", "tenant acme"):
        assert words in text


def test_the_overview_of_a_foreign_domain_says_that_it_is_left_alone():
    assert "never touched" in lines(describe(FOREIGN, None, None, 0.0, UNICODE))


def test_wiring_tells_each_nic_and_shortens_keys():
    networks = {"default": {"spec": {"ipv4": {"mode": "dhcp"}}}}
    text = lines(describe_wiring(vm(), networks, UNICODE))
    assert "nic0    default  dhcp  52:54:00:00:00:01" in text
    assert "ssh-ed25519 …ZDI1NTE5 ada" in text


def test_a_vm_without_metadata_says_how_to_give_it_some():
    assert "kc vm set web --meta" in lines(describe_metadata(vm() | {"metadata": {}}, UNICODE))
