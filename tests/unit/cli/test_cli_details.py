"""What `show` and the lists say of VMs, operations and deleted disks, whatever is in them."""

from __future__ import annotations

import io

import pytest
from support.command_line import CommandLine

from kc_tui.cli.progress import ProgressLine, describe_operation

HOSTILE = "\x1b[2J\u202eevil\n"
RETRY = {"attempt": 3, "at": "2026-01-02T03:04:09.500Z", "why": "the host does not answer"}
COPYING = {
    "id": "copy", "title": "copying the disks", "state": "running", "attempt": 2,
    "progress": {"done": 3 << 30, "total": 10 << 30, "unit": "bytes"},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _home(monkeypatch, tmp_path):
    monkeypatch.setenv("KC_HOME", str(tmp_path))


@pytest.fixture
def kc(capsys):
    return CommandLine(capsys)


def lines(result):
    return [" ".join(line.split()) for line in result.out.splitlines()]


def add_operation(kc, name="op-1", *, made="2026-01-02T03:04:05.000Z", **status):
    target = {"kind": "VM", "name": "web", "uid": "u"}
    spec = {"type": "vm.clone", "target": target, "parameters": {}, "idempotencyKey": status.pop("key", "")}
    document = kc.service.add("Operation", name, spec=spec, status={"state": "running", "percent": 30, **status})
    document["createdAt"] = made
    return document


# --- operations


def test_an_operation_is_shown_with_amounts_attempts_and_its_next_try(kc):
    done = {"id": "find", "title": "finding the image", "state": "done", "attempt": 1}
    add_operation(kc, steps=[done, COPYING], retry=RETRY, key="mine")
    shown = lines(kc("op", "show", "op-1"))
    assert "work vm.clone web" in shown
    assert "step done finding the image" in shown
    assert "step running copying the disks, 3 GiB of 10 GiB, attempt 2" in shown
    assert "again attempt 3 at 2026-01-02 03:04:09Z: the host does not answer" in shown
    assert "key mine" in shown


def test_the_newest_operation_is_the_first_of_the_list_with_its_age_and_step(kc):
    add_operation(kc, "op-1", made="2026-01-02T03:04:05.000Z", steps=[COPYING], retry=RETRY)
    add_operation(kc, "op-2", made="2026-01-03T03:04:05.000Z", state="succeeded", percent=100)
    rows = kc("op", "list").out.splitlines()
    assert [row.split()[0] for row in rows] == ["ID", "op-2", "op-1"]
    assert "1 of 1: copying the disks, attempt 3 at 2026-01-02 03:04:09Z: the host does not answer" in rows[2]
    assert rows[0].split() == ["ID", "WORK", "STATE", "DONE", "AGE", "STEP"]


def test_nothing_in_an_operation_steers_a_terminal(kc):
    strange = {**COPYING, "title": HOSTILE, "attempt": HOSTILE}
    add_operation(kc, steps=[strange], retry={"attempt": HOSTILE, "at": HOSTILE, "why": HOSTILE}, key=HOSTILE)
    for arguments in (("op", "show", "op-1"), ("op", "list")):
        result = kc(*arguments)
        assert result.code == 0
        assert "\x1b" not in result.out
        assert "\u202e" not in result.out
    add_operation(kc, "op-2", steps=[{"state": "running", "progress": "much"}], retry="soon")
    assert kc("op", "show", "op-2").code == 0


class Screen(io.StringIO):
    """A terminal that keeps what is written to it."""

    def isatty(self):
        return True

    def fileno(self):
        return -1


def test_progress_counts_bytes_on_a_terminal_and_not_in_a_log(monkeypatch):
    spec = {"type": "vm.clone", "target": {"name": "web"}}
    status = {"state": "running", "percent": 30, "steps": [COPYING]}
    operation = {"kind": "Operation", "name": "op-1", "spec": spec, "status": status}
    monkeypatch.setenv("TERM", "xterm")
    for stream, wanted in ((Screen(), "copying the disks  3 GiB of 10 GiB  30 %"), (io.StringIO(), "disks\n")):
        monkeypatch.setattr("sys.stderr", stream)
        line = ProgressLine(quiet=False)
        line.show(operation)
        more = {**COPYING, "progress": {"done": 4 << 30, "total": 10 << 30}}
        if not stream.isatty():
            line.show({**operation, "status": {**status, "steps": [more]}})
        assert stream.getvalue().endswith(wanted)
        assert stream.getvalue().count("copying") == 1
    retried = describe_operation({**operation, "status": {**status, "retry": RETRY}})
    assert retried.endswith("copying the disks, attempt 3 at 2026-01-02 03:04:09Z: the host does not answer")


# --- VMs


def test_all_that_is_known_of_a_vm_is_shown(kc):
    document = kc.service.add_vm("web", status={
        "pendingRestart": ["name"], "newerType": 4, "display": "vnc+unix:///run/web.vnc",
        "drift": [{"path": "spec.parameters.cpus", "wanted": "1", "found": "2"}],
        "disks": [{"id": "root", "sizeBytes": 2 << 30, "usedBytes": 1 << 20},
                  {"id": "data", "sizeBytes": 3 << 30, "usedBytes": 0}],
        "snapshots": [{"name": "before", "at": "2026-01-02T03:04:05.000Z", "version": 2, "hasMemory": True,
                       "method": "internal", "description": "still on 11"}],
    })  # fmt: skip
    document["spec"] |= {
        "type": {"name": "tiny", "version": 3}, "disks": [{"id": "data", "sizeGiB": 5}], "cdrom": {"name": "disc"},
        "autostart": False, "onCrash": "stop", "adopted": False,
    }  # fmt: skip
    shown = lines(kc("vm", "show", "web"))
    for line in (
        "restart needed for name", "changed spec.parameters.cpus: 1 → 2",
        "mend somebody else changed it; kc vm reconcile web", "type tiny, version 3",
        "newer type version 4 exists: kc vm set web --type tiny", "image starter", "disk root 2 GiB, 1 MiB used",
        "disk data 5 GiB, now 3 GiB, 0 B used", "cd disc",
        "snapshot before, 2026-01-02 03:04:05Z, version 2, with memory, still on 11",
        "screen vnc+unix:///run/web.vnc", "autostart no; after a crash: stop",
    ):  # fmt: skip
        assert line in shown


def test_an_adopted_vm_has_no_image_anywhere(kc):
    document = kc.service.add_vm("web")
    document["spec"] |= {"image": None, "adopted": True, "disks": [], "cdrom": None}
    document["status"] |= {"hardware": {"cpus": 1, "memoryMiB": 512}, "disks": [], "snapshots": [], "drift": []}
    shown = kc("vm", "show", "web").out
    assert "image" not in shown
    assert "disk" not in shown.replace("its disks and devices", "")
    assert kc("vm", "list").out.splitlines()[1].split()[-1] == "–"
    for form in ("json", "yaml", "name"):
        assert kc("vm", "list", "-o", form).code == 0
    assert "spec.image" in kc("__complete", "vm:paths", "web").out


def test_nothing_in_a_vm_steers_a_terminal(kc):
    document = kc.service.add_vm("web", status={
        "pendingRestart": [HOSTILE], "newerType": HOSTILE, "display": HOSTILE,
        "drift": [{"path": HOSTILE, "wanted": HOSTILE, "found": HOSTILE}, {}],
        "disks": [{"id": HOSTILE, "sizeBytes": 1, "usedBytes": 1}, {}], "snapshots": [{"name": HOSTILE}, {}],
    })  # fmt: skip
    document["spec"] |= {"cdrom": {"name": HOSTILE}, "onCrash": HOSTILE, "autostart": True}
    for arguments in (("show",), ("disk", "list"), ("snapshot", "list"), ("nic", "list")):
        result = kc("vm", *arguments, "web")
        assert result.code == 0
        assert "\x1b" not in result.out + result.err
        assert "\u202e" not in result.out + result.err
        assert kc("vm", *arguments, "web", "-o", "json").json()
    assert kc("__complete", "vm:snapshots", "web").out == ""
    assert kc("__complete", "vm:disks", "web").out == "root\n"


def test_the_parts_of_what_a_newer_kc_wrote_are_not_guessed(kc):
    kc.service.add_vm("web")["apiVersion"] = "kc/v9"
    for part in ("nic", "disk", "snapshot"):
        result = kc("vm", part, "list", "web")
        assert (result.code, result.out) == (8, "")
        assert "a newer KC wrote it" in result.err
