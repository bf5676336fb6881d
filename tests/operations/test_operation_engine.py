"""How operations survive: tried again, taken over, fenced off, done once a key, and forgotten in the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.homes import opened
from support.memory_kc import furnish, make_service, settle, vm_document

from backend.errors import ConflictError, FailedError, KCError, NotFoundError, RefusedError, UnreachableError
from backend.hypervisor.memory import MemoryHypervisor, fail_with
from backend.local import LocalService
from backend.model.documents import Document, format_time
from backend.operations import journal, retrying, runner
from backend.service import Accepted
from backend.store.opening import open_store
from backend.store.protocol import Retention, Retentions

BUSY = FailedError("volume root", "the pool has asynchronous jobs running", transient=True)
AWAY = UnreachableError("host", "libvirtd does not answer", "start it")


@pytest.fixture
def host() -> MemoryHypervisor:
    return MemoryHypervisor()


@pytest.fixture
def service(tmp_path: Path, host: MemoryHypervisor, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalService]:
    monkeypatch.setattr(retrying, "FIRST_SECONDS", 0.02)
    service = make_service(tmp_path, host)
    furnish(service)
    yield service
    service.close()


def fail_times(error: KCError, call: str, times: int) -> Callable[[str], None]:
    """Return a `fail` that raises an error in the first so many calls of a name."""
    left = [times]

    def fail(name: str) -> None:
        if name == call and left[0]:
            left[0] -= 1
            raise error

    return fail


def operation_of(service: LocalService, accepted: Accepted) -> Document:
    assert accepted.operation is not None
    return service.get("Operation", accepted.operation["name"])


def attempts_of(operation: Document) -> dict[str, int]:
    return {step["id"]: step.get("attempt", 0) for step in operation["status"]["steps"]}


def wait_for(condition: Callable[[], object], what: str, seconds: float = 15.0) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, f"never came true: {what}"
        time.sleep(0.01)


def is_ended(service: LocalService, accepted: Accepted) -> bool:
    return operation_of(service, accepted)["status"]["state"] in journal.ENDED


# --- tried again


def test_what_is_transient_is_tried_again_and_told_of(service: LocalService, host: MemoryHypervisor) -> None:
    told: list[Any] = []

    def look(point: str, step: str) -> None:
        if point == "waiting":
            (operation,) = (item for item in service.list_documents("Operation").items if item["status"].get("retry"))
            told.append((step, operation["status"]["state"], operation["status"]["retry"]))

    service.runner.trace = look
    host.fail = fail_times(BUSY, "ensure_overlay", 2)
    ended = settle(service, service.create(vm_document("web")))
    assert ended["status"]["state"] == "succeeded"
    assert attempts_of(ended) == {"networks": 1, "image": 1, "disk": 3, "seed": 1, "define": 1, "power": 1}
    assert "retry" not in ended["status"]
    assert [(step, state, retry["attempt"], retry["why"]) for step, state, retry in told] == [
        ("disk", "running", 2, BUSY.why),
        ("disk", "running", 3, BUSY.why),
    ]
    assert all(retry["at"] > ended["status"]["startedAt"] for _, _, retry in told)


def test_what_stays_transient_fails_in_the_end_and_is_undone(service: LocalService, host: MemoryHypervisor) -> None:
    host.fail = fail_with(BUSY, "ensure_overlay")
    ended = settle(service, service.create(vm_document("web")))
    assert ended["status"]["state"] == "failed"
    assert attempts_of(ended)["disk"] == retrying.ATTEMPTS
    assert ended["status"]["error"]["detail"] == BUSY.why
    assert host.domains == {}
    with pytest.raises(NotFoundError):
        service.get("VM", "web")


def test_what_is_not_transient_fails_at_once(service: LocalService, host: MemoryHypervisor) -> None:
    host.fail = fail_with(FailedError("volume root", "QEMU said no"), "ensure_overlay")
    assert attempts_of(settle(service, service.create(vm_document("web"))))["disk"] == 1


def test_undoing_is_tried_again_too(service: LocalService, host: MemoryHypervisor) -> None:
    busy = fail_times(BUSY, "ensure_undefined", 2)

    def fail(call: str) -> None:
        busy(call)
        if call == "ensure_running":
            raise FailedError("domain web", "QEMU said no")

    host.fail = fail
    ended = settle(service, service.create(vm_document("web")))
    assert ended["status"]["state"] == "failed"
    assert "undoError" not in ended["status"]
    assert next(step for step in ended["status"]["undo"] if step["id"] == "undefine")["attempt"] == 3
    assert host.domains == {}


@pytest.mark.parametrize("is_elsewhere", [False, True], ids=["here", "another process"])
def test_a_wait_for_the_next_attempt_can_be_cancelled(
    service: LocalService, host: MemoryHypervisor, monkeypatch: pytest.MonkeyPatch, is_elsewhere: bool
) -> None:
    monkeypatch.setattr(retrying, "FIRST_SECONDS", 60.0)
    monkeypatch.setattr(retrying, "LONGEST_SECONDS", 60.0)
    monkeypatch.setattr(runner, "RENEW_SECONDS", 0.1)
    monkeypatch.setattr(runner, "TICK_SECONDS", 0.05)
    waiting = threading.Event()
    service.runner.trace = lambda point, _step: waiting.set() if point == "waiting" else None
    host.fail = fail_with(BUSY, "ensure_overlay")
    accepted = service.create(vm_document("web"))
    assert waiting.wait(10)
    assert accepted.operation is not None
    if is_elsewhere:
        journal.request_cancel(service.store, accepted.operation["name"])
    else:
        service.cancel(accepted.operation["name"])
    host.fail = lambda _call: None
    assert settle(service, accepted)["status"]["state"] == "cancelled"


def test_closing_ends_a_wait_and_another_process_goes_on(
    service: LocalService, host: MemoryHypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrying, "FIRST_SECONDS", 60.0)
    monkeypatch.setattr(retrying, "LONGEST_SECONDS", 60.0)
    waiting = threading.Event()
    service.runner.trace = lambda point, _step: waiting.set() if point == "waiting" else None
    host.fail = fail_with(BUSY, "ensure_overlay")
    accepted = service.create(vm_document("web"))
    assert waiting.wait(10)
    began = time.monotonic()
    service.runner.close()
    assert time.monotonic() - began < 4
    host.fail = lambda _call: None
    other = LocalService(service.store, host, service.settings)
    assert other.resume() == 1
    assert operation_of(other, accepted)["status"]["state"] == "succeeded"


def test_delays_grow_up_to_a_bound_and_are_never_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "FIRST_SECONDS", 0.5)
    for failures, longest in ((1, 0.5), (2, 1.0), (3, 2.0), (4, 4.0), (5, 8.0), (50, 8.0)):
        delays = {retrying.choose_delay(failures) for _ in range(50)}
        assert len(delays) > 40
        assert longest / 2 <= min(delays) <= max(delays) <= longest


# --- a host that is away


def test_a_host_that_is_away_for_a_moment_is_waited_for(service: LocalService, host: MemoryHypervisor) -> None:
    host.fail = fail_times(AWAY, "ensure_overlay", 3)
    assert settle(service, service.create(vm_document("web")))["status"]["state"] == "succeeded"


def test_a_parked_operation_goes_on_by_itself_when_the_host_is_back(
    service: LocalService, host: MemoryHypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrying, "UNREACHABLE_SECONDS", 0.0)
    host.fail = fail_with(AWAY, "ensure_overlay")
    accepted = service.create(vm_document("web"))
    with pytest.raises(UnreachableError, match="libvirtd does not answer"):
        settle(service, accepted)
    parked = operation_of(service, accepted)["status"]
    assert (parked["state"], parked["parked"], parked["retry"]["why"]) == ("queued", True, AWAY.why)
    host.fail = lambda _call: None
    wait_for(lambda: is_ended(service, accepted), "the operation ends by itself")
    ended = operation_of(service, accepted)["status"]
    assert ended["state"] == "succeeded"
    assert not {"parked", "retry", "error"} & set(ended)
    assert service.get("VM", "web")["status"]["power"] == "running"


def test_an_undoing_that_was_parked_goes_on_by_itself(
    service: LocalService, host: MemoryHypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrying, "UNREACHABLE_SECONDS", 0.0)

    def fail(call: str) -> None:
        if call == "ensure_running":
            raise FailedError("domain web", "QEMU said no")
        if call == "ensure_undefined":
            raise AWAY

    host.fail = fail
    accepted = service.create(vm_document("web"))
    with pytest.raises(UnreachableError):
        settle(service, accepted)
    assert operation_of(service, accepted)["status"]["state"] == "undoing"
    host.fail = lambda _call: None
    wait_for(lambda: is_ended(service, accepted), "the undoing ends by itself")
    assert operation_of(service, accepted)["status"]["state"] == "failed"
    assert host.domains == {}


def test_a_process_that_stays_takes_up_what_others_leave(
    service: LocalService, host: MemoryHypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "ATTEND_SECONDS", 0.1)
    monkeypatch.setattr(runner, "TICK_SECONDS", 0.05)
    assert service.resume(wait=False) == 0
    other = LocalService(service.store, host, service.settings, operate=False)
    accepted = other.create(vm_document("web"))
    wait_for(lambda: is_ended(service, accepted), "it is done")
    assert service.get("VM", "web")["status"]["power"] == "running"


def test_an_operation_of_a_newer_kc_is_left_to_it(service: LocalService, host: MemoryHypervisor) -> None:
    vm = settle(service, service.create(vm_document("web")))["spec"]["target"]
    newer = LocalService(service.store, host, service.settings, operate=False)
    accepted = newer.operate_on(vm, "vm.teleport", {})
    with pytest.raises(RefusedError, match="does not know it"):
        settle(service, accepted)
    ((_, lease),) = service.store.leases()
    assert not lease.get("owner")
    assert service.runner.take_up() == []


# --- several at once


def test_of_many_operations_few_are_in_flight_and_the_list_stays_live(
    service: LocalService, host: MemoryHypervisor
) -> None:
    inside: list[str] = []
    most: list[int] = []
    guard = threading.Lock()
    gate = threading.Event()

    def hold(call: str) -> None:
        if call == "ensure_overlay":
            with guard:
                inside.append(call)
                most.append(len(inside))
            gate.wait(20)
            with guard:
                inside.pop()

    host.fail = hold
    before = threading.active_count()
    accepted = [service.create(vm_document(f"vm-{number}", power="stopped")) for number in range(30)]
    wait_for(lambda: len(inside) == runner.MAXIMUM_RUNNING, "as many as may are at work")
    assert threading.active_count() - before <= runner.MAXIMUM_RUNNING + 1
    listed = service.list_documents("VM").items
    assert len(listed) == 30
    assert all(item["status"]["operation"]["state"] in ("queued", "running") for item in listed)
    gate.set()
    assert {settle(service, each)["status"]["state"] for each in accepted} == {"succeeded"}
    assert max(most) == runner.MAXIMUM_RUNNING
    wait_for(lambda: threading.active_count() - before <= 1, "their threads have ended")


def test_leases_are_kept_while_operations_wait_for_their_turn_or_the_next_attempt(
    service: LocalService, host: MemoryHypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "LEASE_SECONDS", 1.0)
    monkeypatch.setattr(runner, "RENEW_SECONDS", 0.2)
    monkeypatch.setattr(runner, "TICK_SECONDS", 0.05)
    monkeypatch.setattr(retrying, "FIRST_SECONDS", 60.0)
    monkeypatch.setattr(retrying, "LONGEST_SECONDS", 60.0)
    host.fail = fail_with(BUSY, "ensure_overlay")
    accepted = [service.create(vm_document(f"vm-{number}", power="stopped")) for number in range(6)]
    other = LocalService(service.store, MemoryHypervisor(), service.settings)
    ends = time.monotonic() + 2.5
    while time.monotonic() < ends:
        assert [uid for uid, lease in service.store.leases() if other.runner.owner.may_take(lease)] == []
        time.sleep(0.05)
    host.fail = lambda _call: None
    for each in accepted:
        assert each.operation is not None
        service.cancel(each.operation["name"])
    assert {settle(service, each)["status"]["state"] for each in accepted} == {"cancelled"}


# --- processes that die, and processes that come back

PROGRAM = """
import sys, threading
sys.path[:0] = {path!r}
from pathlib import Path
from support.memory_kc import make_service, vm_document
from backend.errors import FailedError
from backend.hypervisor.memory import MemoryHypervisor
from backend.hypervisor.plan import Volume
from backend.images.volumes import image_volume
from backend.operations import journal, retrying, runner
journal.LEASE_SECONDS = 1.0
runner.RENEW_SECONDS = 0.2
runner.TICK_SECONDS = 0.05
host = MemoryHypervisor()
service = make_service(Path({home!r}), host)
volume = image_volume(service.get("Image", "starter")["spec"])
host.volumes[volume] = (Volume(volume, "/memory/" + volume, "raw", 64 << 20, 45 << 20), b"")
{set_up}
accepted = service.create(vm_document("web"))
print(accepted.operation["name"], flush=True)
service.runner.join(accepted.operation["uid"], 30)
print("done", flush=True)
"""
WAITING = """
retrying.FIRST_SECONDS = retrying.LONGEST_SECONDS = 60.0
def fail(call):
    if call == "ensure_overlay":
        raise FailedError("volume", "busy", transient=True)
host.fail = fail
service.runner.trace = lambda point, step: point == "waiting" and print("waiting", flush=True)
"""
HOLDING = """
def fail(call):
    if call == "ensure_overlay":
        print("waiting", flush=True)
        sys.stdin.readline()
host.fail = fail
"""


@pytest.fixture
def start(tmp_path: Path, service: LocalService) -> Iterator[Callable[[str], tuple[subprocess.Popen[str], str]]]:
    """Starts a process that creates a VM and comes to a point in the middle; gives it and the operation's name."""
    started: list[subprocess.Popen[str]] = []

    def start_process(set_up: str) -> tuple[subprocess.Popen[str], str]:
        program = PROGRAM.format(path=sys.path, home=str(tmp_path), set_up=set_up)
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        lines = sorted(process.stdout.readline().strip() for _ in range(2))
        assert lines[1] == "waiting"
        return process, lines[0]

    yield start_process
    for process in started:
        process.kill()
        process.communicate(timeout=20)


def test_a_process_that_is_killed_while_it_waits_harms_nothing(
    service: LocalService, start: Callable[[str], tuple[subprocess.Popen[str], str]]
) -> None:
    process, name = start(WAITING)
    assert service.get("Operation", name)["status"]["retry"]["why"] == "busy"
    assert service.resume() == 0, "its lease is kept while it waits"
    process.kill()
    process.wait(20)
    assert service.resume() == 1
    ended = service.get("Operation", name)["status"]
    assert ended["state"] == "succeeded"
    assert "retry" not in ended
    assert next(step for step in ended["steps"] if step["id"] == "disk")["attempt"] == 2


def test_a_stopped_process_that_comes_back_writes_nothing_once_another_has_taken_over(
    service: LocalService, start: Callable[[str], tuple[subprocess.Popen[str], str]]
) -> None:
    process, name = start(HOLDING)
    process.send_signal(signal.SIGSTOP)
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    wait_for(service.runner.take_up, "its lease runs out")
    assert service.wait(name, timeout=20)["status"]["state"] == "succeeded"
    vm = service.get("VM", "web")
    settle(service, service.act("web", "stop", {"force": True}))
    before = service.store.revision()
    kept = service.get("Operation", name)
    process.send_signal(signal.SIGCONT)
    out, _ = process.communicate("\n", timeout=30)
    assert out == "done\n"
    assert service.store.revision() == before
    assert service.get("Operation", name) == kept
    assert service.get("VM", "web")["version"] == vm["version"] + 1
    assert service.store.leases() == []


# --- keys


def keyed(service: LocalService) -> dict[str, Callable[[str], Accepted]]:
    """Return one call of each kind, as functions of its key."""
    machine_type = {"kind": "MachineType", "name": "odd", "spec": service.get("MachineType", "tiny")["spec"]}
    change = {"kind": "VM", "name": "web", "metadata": {"tenant": "acme"}}
    return {
        "create": lambda key: service.create(vm_document("new"), key=key),
        "create a type": lambda key: service.create(machine_type, key=key),
        "update": lambda key: service.update(change, key=key),
        "update a type": lambda key: service.update(
            {"kind": "MachineType", "name": "small", "metadata": {"a": 1}}, key=key
        ),
        "start what runs": lambda key: service.act("web", "start", key=key),
        "stop": lambda key: service.act("web", "stop", {"force": True}, key=key),
        "clone": lambda key: service.clone("web", "copy", key=key),
        "delete": lambda key: service.delete("VM", "web", key=key),
        "delete a type": lambda key: service.delete("MachineType", "large", key=key),
    }


CALLS = (
    "create", "create a type", "update", "update a type", "start what runs", "stop", "clone", "delete", "delete a type",
)  # fmt: skip


@pytest.fixture
def furnished(service: LocalService, place: str, tmp_path: Path) -> Iterator[LocalService]:
    power = "stopped"
    settle(service, service.create(vm_document("web", power=power)))
    with opened(place, service, tmp_path) as home:
        yield home


def make_ready(service: LocalService, call: str) -> None:
    if call in ("stop", "start what runs"):
        settle(service, service.act("web", "start"))


@pytest.mark.parametrize("call", CALLS)
def test_the_same_request_with_the_same_key_is_done_once(furnished: LocalService, call: str) -> None:
    make_ready(furnished, call)
    perform = keyed(furnished)[call]
    first = perform("key 1")
    if first.operation is not None:
        settle(furnished, first)
    before = furnished.store.revision()
    again = perform("key 1")
    assert furnished.store.revision() == before
    assert (again.operation or {}).get("uid") == (first.operation or {}).get("uid")
    assert {field: again.document[field] for field in ("kind", "name", "uid")} == {
        field: first.document[field] for field in ("kind", "name", "uid")
    }


@pytest.mark.parametrize("call", CALLS)
def test_a_key_is_for_one_request(furnished: LocalService, call: str) -> None:
    make_ready(furnished, call)
    furnished.create(
        {"kind": "MachineType", "name": "x", "spec": furnished.get("MachineType", "tiny")["spec"]}, key="k"
    )
    before = furnished.store.revision()
    with pytest.raises(ConflictError, match="used for something else"):
        keyed(furnished)[call]("k")
    assert furnished.store.revision() == before


def test_two_keys_are_two_requests(service: LocalService) -> None:
    settle(service, service.create(vm_document("web"), key="a"))
    with pytest.raises(ConflictError, match="taken"):
        service.create(vm_document("web"), key="b")


def test_a_request_that_was_refused_leaves_its_key_free(service: LocalService) -> None:
    with pytest.raises(NotFoundError):
        service.create(vm_document("web", image="none"), key="a")
    assert settle(service, service.create(vm_document("web"), key="a"))["status"]["state"] == "succeeded"


@pytest.mark.parametrize("key", ["x" * 201, "a\nb", "\x1b[31m", "\x00"])
def test_a_key_is_short_and_printable(service: LocalService, key: str) -> None:
    with pytest.raises(RefusedError, match="printable"):
        service.create(vm_document("web"), key=key)


def test_of_many_processes_with_one_key_one_does_it(service: LocalService, host: MemoryHypervisor) -> None:
    services = [LocalService(service.store, host, service.settings) for _ in range(6)]
    barrier = threading.Barrier(len(services))
    given: list[Accepted] = []
    errors: list[KCError] = []

    def create(each: LocalService) -> None:
        barrier.wait(10)
        try:
            given.append(each.create(vm_document("web"), key="once"))
        except KCError as error:
            errors.append(error)

    threads = [threading.Thread(target=create, args=(each,)) for each in services]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    assert len({each.document["uid"] for each in given}) == 1
    assert len({each.operation["uid"] for each in given if each.operation}) == 1
    assert len(given) == 6
    settle(service, given[0])


def test_a_key_is_free_again_once_its_operation_is_kept_no_longer(service: LocalService) -> None:
    settle(service, service.create(vm_document("web"), key="a"))
    settle(service, service.delete("VM", "web", now=True))
    assert settle(service, service.create(vm_document("web"), key="a"))["status"]["state"] == "succeeded"
    with pytest.raises(NotFoundError):
        service.get("VM", "web")
    service.settings = service.settings._replace(operation_days=1e-9)
    time.sleep(0.002)
    assert settle(service, service.create(vm_document("web"), key="a"))["status"]["state"] == "succeeded"
    assert service.get("VM", "web")["status"]["power"] == "running"


# --- forgotten


def age(service: LocalService, name: str, days: float) -> None:
    operation = service.get("Operation", name)
    ended = format_time(time.time() - days * 86400)
    with service.store.transaction() as transaction:
        transaction.put_status("Operation", operation["uid"], {**operation["status"], "endedAt": ended})


def names(service: LocalService) -> set[str]:
    return {item["name"] for item in service.list_documents("Operation").items}


def test_operations_are_kept_for_a_week(service: LocalService, host: MemoryHypervisor) -> None:
    ended = [settle(service, service.create(vm_document(f"vm-{number}")))["name"] for number in range(3)]
    age(service, ended[0], 7.1)
    age(service, ended[1], 6.9)
    host.fail = fail_with(BUSY, "ensure_overlay")
    held = threading.Event()
    service.runner.trace = lambda point, _step: held.wait(20) if point == "waiting" else None
    unfinished = service.create(vm_document("vm-9"))
    assert unfinished.operation is not None
    age(service, unfinished.operation["name"], 30)
    assert journal.prune(service.store, 7.0) == 1
    assert {ended[1], ended[2], unfinished.operation["name"]} <= names(service)
    assert ended[0] not in names(service)
    assert journal.prune(service.store, 0.0) == 0, "0 days are for ever"
    held.set()
    settle(service, unfinished)


def test_a_process_that_runs_an_operation_forgets_old_ones_a_few_at_a_time(service: LocalService) -> None:
    with service.store.transaction() as transaction:
        for number in range(journal.PRUNED_AT_ONCE + 5):
            target = {"kind": "VM", "name": f"old-{number}", "uid": f"uid-{number}"}
            operation = transaction.put(journal.new_operation("vm.start", target, {}, "tests"))
            status = {"state": "succeeded", "steps": [], "endedAt": "2020-01-01T00:00:00.000Z"}
            transaction.put_status("Operation", operation["uid"], status)
    other = LocalService(service.store, service.hypervisor, service.settings)
    settle(other, other.create(vm_document("web")))
    old = [item for item in other.list_documents("Operation").items if item["spec"]["target"]["name"].startswith("old")]
    assert len(old) == 5


def test_a_compaction_takes_the_history_of_forgotten_operations_with_it(service: LocalService, tmp_path: Path) -> None:
    assert service.settings.retentions.of("Operation").deleted_days == 1.0
    assert service.settings.retentions.of("VM").deleted_days == 30.0
    ended = settle(service, service.create(vm_document("web")))
    age(service, ended["name"], 8)
    assert journal.prune(service.store, 7.0) == 1
    assert service.store.history("Operation", ended["uid"]) != []
    settle(service, service.act("web", "stop", {"force": True}))
    soon = Retentions(kinds={"Operation": Retention(versions=1, deleted_days=1e-9)})
    store = open_store(service.store.url, retentions=soon)
    store.compact()
    assert store.history("Operation", ended["uid"]) == []
    assert store.history("VM", ended["spec"]["target"]["uid"]) != []
    store.close()
