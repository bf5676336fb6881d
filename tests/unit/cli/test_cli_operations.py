"""Commands that change something: waiting, failing, several at once, leaving work to the background."""

from __future__ import annotations

import pytest
from support.command_line import CommandLine

from backend.errors import FailedError, RefusedError
from kc_tui.cli import worker


@pytest.fixture(autouse=True)
def _home(monkeypatch, tmp_path):
    monkeypatch.setenv("KC_HOME", str(tmp_path))


@pytest.fixture
def kc(capsys):
    return CommandLine(capsys)


@pytest.fixture
def started(monkeypatch):
    """The profiles for which a worker was started; none is."""
    profiles: list[str] = []
    monkeypatch.setattr(worker, "start_worker", profiles.append)
    return profiles


CREATE = ("--image", "starter", "--network", "default", "--type", "tiny")


def test_create_waits_and_prints_the_live_document(kc, started):
    result = kc("vm", "create", "web", *CREATE, "-o", "json")
    assert result.code == 0
    assert result.json()["status"]["power"] == "running"
    assert result.err.splitlines() == [
        "web: step 1 of 3: making the disk",
        "web: step 2 of 3: defining the domain",
        "web: step 3 of 3: starting the domain",
    ]
    assert kc.operates == [True]
    assert kc.service.closed
    assert started == []


def test_progress_is_left_out_when_quiet(kc):
    kc.service.add_vm("db", "stopped")
    assert kc("vm", "start", "db", "-q").err == ""


def test_waiting_until_ready_is_asked_for(kc):
    result = kc("vm", "create", "web", *CREATE, "--wait", "ready", "--timeout", "30", "-o", "json")
    assert result.json()["status"]["addresses"][0]["address"] == "10.0.0.7"
    (waited,) = [call for call in kc.service.calls if call[0] == "wait_until"]
    assert waited[1:3] == ("web", "ready")
    assert 0 < waited[3] <= 30


def test_a_failed_operation_is_the_error_that_it_ended_with(kc):
    kc.service.failures["web"] = RefusedError("VM web", "no room in the pool", "make room")
    result = kc("vm", "create", "web", *CREATE, "-q")
    assert (result.code, result.out, result.err) == (8, "", "kc: VM web: no room in the pool. make room\n")
    kc.service.failures["db"] = RefusedError("VM db", "no room in the pool", "make room")
    problem = kc("vm", "create", "db", *CREATE, "-q", "-o", "json").problem()
    assert problem["code"] == "refused"
    assert problem["operation"].startswith("op-")


def test_a_failed_undo_is_told_too():
    from kc_tui.cli.following import judge

    status = {
        "state": "failed",
        "error": FailedError("VM web", "no room", "make room").problem(),
        "undoError": FailedError("volume", "it is stuck", "").problem(),
    }
    error = judge({"name": "op-1", "spec": {"target": {"kind": "VM", "name": "web"}}, "status": status})
    assert str(error) == "VM web: no room; undoing it failed too: it is stuck. see kc op show op-1"


def test_without_waiting_the_operation_is_written_down_and_a_worker_started(kc, started):
    result = kc("--profile", "local", "vm", "create", "web", *CREATE, "--no-wait", "-o", "json")
    assert result.code == 0
    assert result.json()["name"] == "web"
    assert result.err == "kc: op-1 goes on; see kc op show op-1\n"
    assert kc.operates == [False]
    assert not [call for call in kc.service.calls if call[0] in ("wait", "resume")]
    assert kc.service.closed
    assert started == ["local"]


def test_a_time_limit_leaves_the_work_to_a_worker(kc, started):
    kc.service.gate.clear()
    kc.service.add_vm("web", "stopped")
    result = kc("vm", "start", "web", "--timeout", "0.2", "-q", "-o", "json")
    assert result.code == 7
    assert result.out == ""
    assert result.problem()["detail"] == "not ended after 0.2 s"
    assert started == [""]
    kc.service.gate.set()


def test_what_an_earlier_process_left_is_finished_first(kc):
    kc.service.interrupted = ["finishing vm.create of web, which was interrupted"]
    result = kc("vm", "list", "-o", "json")
    assert result.err == "kc: finishing vm.create of web, which was interrupted\n"
    assert [call[0] for call in kc.service.calls] == ["resume", "list"]
    for arguments in (
        ("doctor",),
        ("schema", "vm"),
        ("__complete", "vm"),
        ("op", "cancel", "x"),
        ("vm", "console", "x", "--log"),
    ):
        kc.service.calls.clear()
        kc(*arguments)
        assert "resume" not in [call[0] for call in kc.service.calls]


def test_several_are_made_at_once(kc):
    result = kc("vm", "create", "web", *CREATE, "--count", "2", "-o", "json")
    assert [item["name"] for item in result.json()["items"]] == ["web-1", "web-2"]
    assert [call[0] for call in kc.service.calls if call[0] in ("create", "wait")] == [
        "create",
        "create",
        "wait",
        "wait",
    ]
    assert [
        item["name"] for item in kc("vm", "create", "one", *CREATE, "--count", "1", "-o", "json").json()["items"]
    ] == ["one-1"]


def test_of_several_none_is_made_where_one_cannot_be(kc):
    kc.service.add_vm("web-2")
    result = kc("vm", "create", "web", *CREATE, "--count", "3")
    assert result.code == 4
    assert result.err == "kc: VM web-2: the name is taken. choose another\n"
    assert not [call for call in kc.service.calls if call[0] == "create"]


def test_of_several_those_that_went_well_are_printed(kc):
    kc.service.failures["web-2"] = FailedError("VM web-2", "no room", "")
    result = kc("vm", "create", "web", *CREATE, "--count", "3", "-q", "-o", "json")
    assert result.code == 1
    assert [item["name"] for item in result.json()["items"]] == ["web-1", "web-3"]
    assert result.problem()["title"] == "VM web-2"


def test_actions_print_the_vms_as_they_are_then(kc):
    kc.service.add_vm("web", "stopped")
    kc.service.add_vm("db", "stopped")
    assert kc("vm", "start", "web", "-o", "json").json()["status"]["power"] == "running"
    items = kc("vm", "stop", "web", "db", "-o", "json").json()["items"]
    assert [(item["name"], item["status"]["power"]) for item in items] == [("web", "stopped"), ("db", "stopped")]
    assert kc("vm", "reboot", "web", "-o", "name").out == "web\n"


def test_what_is_so_already_is_said_and_no_error(kc):
    kc.service.add_vm("web")
    result = kc("vm", "start", "web")
    assert result.code == 0
    assert result.err == "kc: VM web is running already\n"


def test_a_selector_picks_ours_and_sums_up(kc):
    for name in ("a", "b"):
        kc.service.add_vm(name, metadata={"tenant": "acme"})
    kc.service.add_vm("c")
    kc.service.add_vm("stranger", status={"foreign": True}, metadata={"tenant": "acme"})
    result = kc("vm", "stop", "-l", "tenant=acme", "-o", "name")
    assert result.out == "a\nb\n"
    assert result.err.splitlines()[-1] == "kc: 2 of 2 VMs stopped"
    nothing = kc("vm", "stop", "-l", "tenant=none", "-o", "json")
    assert nothing.code == 0
    assert nothing.json() == {"items": []}


def test_delete_prints_what_was_deleted(kc):
    kc.service.add_vm("web")
    kc.service.add_vm("a")
    kc.service.add_vm("b")
    assert kc("vm", "delete", "web", "--yes", "--now", "-o", "json").json()["name"] == "web"
    assert [item["name"] for item in kc("vm", "delete", "a", "b", "--yes", "-o", "json").json()["items"]] == ["a", "b"]
    assert kc("vm", "list", "-o", "name").out == ""


def test_delete_goes_on_after_one_that_is_not_there(kc):
    kc.service.add_vm("web")
    result = kc("vm", "delete", "gone", "web", "--yes")
    assert result.code == 3
    assert result.out == ""
    assert "kc: VM web deleted\n" in result.err
    assert "kc: 1 of 2 VMs deleted\n" in result.err
    assert result.err.endswith("kc: VM gone: no such VM. see kc vm list\n")


def test_other_kinds_are_deleted_the_same_way(kc):
    kc.service.add("MachineType", "huge")
    assert kc("type", "delete", "huge", "--yes", "-q").code == 0
    assert kc("type", "delete", "huge", "--yes", "-q").code == 3
    assert kc("type", "delete", "huge", "--yes", "--keep-disks").code == 2


def test_cancelling_waits_for_the_undo(kc):
    kc.service.gate.clear()
    kc.service.add_vm("web", "stopped")
    kc.service.act("web", "start")
    result = kc("op", "cancel", "op-1", "-o", "json")
    assert result.code == 0
    assert result.json()["status"]["state"] == "cancelled"
    assert kc("op", "cancel", "op-1").code == 4
    assert kc("op", "cancel", "op-9").code == 3


def test_the_log_of_a_console(kc):
    kc.service.add_vm("web")
    assert kc("vm", "console", "web", "--log").err == "kc: the console of VM web has said nothing yet\n"
    kc.service.log = b"\x1b[2J\x1b[1;31mKC\x1b[0m starter\r\nlogin: \x1b]0;title\x07ok\r\n"
    assert kc("vm", "console", "web", "--log").out == "KC starter\nlogin: ok\n"
    assert kc("vm", "console", "web", "--log", "-o", "json").json() == {"name": "web", "log": "KC starter\nlogin: ok\n"}
    assert kc("vm", "console", "gone", "--log").code == 3


def test_a_console_needs_a_terminal(kc):
    kc.service.add_vm("web")
    result = kc("vm", "console", "web")
    assert result.code == 2
    assert "--log" in result.err


def test_a_ctrl_c_that_meets_a_lock_just_then_cancels_too(kc, monkeypatch):
    wait, times = kc.service.wait, []

    def interrupted(*arguments, **more):
        times.append(1)
        if len(times) > 1:
            return wait(*arguments, **more)
        try:
            raise KeyboardInterrupt  # noqa: TRY301 - it comes from outside, wherever the program is
        except KeyboardInterrupt:
            # As `threading.Condition` does where the signal comes while it takes its lock back.
            message = "cannot release un-acquired lock"
            raise RuntimeError(message)  # noqa: B904 - so that its context is what it is there

    monkeypatch.setattr(kc.service, "wait", interrupted)
    kc.service.gate.clear()
    left = kc("vm", "create", "web", "--image", "starter", "--network", "default", "--type", "tiny")
    assert "cancelling op-1" in left.err
    assert left.code == 130
    assert ("VM", "web") not in kc.service.documents
