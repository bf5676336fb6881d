"""The parts of a VM on the command line: its disks, its CD-ROM drive, its snapshots."""

from __future__ import annotations

import io

import pytest

COLUMNS = ["DISK", "WANTED", "SIZE", "USED"]


@pytest.fixture
def web(kept):
    kept.add_vm("web")
    return kept


def vm(kept, name="web"):
    return kept.service.get("VM", name)


def disk_ids(kept):
    return [disk["id"] for disk in vm(kept)["spec"]["disks"]]


# --- disks


def test_disks_are_listed_with_what_is_wanted_and_what_there_is(web):
    rows = web("vm", "disk", "list", "web").out.splitlines()
    assert rows[0].split() == COLUMNS
    assert rows[1].split()[:5] == ["root", "2", "GiB", "2", "GiB"]
    (root,) = web("vm", "disk", "list", "web", "-o", "json").json()["items"]
    assert (root["id"], root["sizeGiB"], root["sizeBytes"]) == ("root", 2, 2 << 30)
    assert 0 < root["usedBytes"] < 2 << 30
    assert web("vm", "disk", "list", "web", "-o", "name").out == "root\n"
    assert web("vm", "disk", "list", "gone").code == 3


def test_a_disk_comes_grows_and_goes_while_the_vm_runs(web):
    added = web("vm", "disk", "add", "web", "--size", "3", "-o", "json")
    assert added.code == 0, added.err
    assert added.json()["spec"]["disks"] == [{"id": "disk1", "sizeGiB": 3}]
    assert web("vm", "disk", "add", "web", "--size", "1TiB", "--id", "data", "--message", "for data", "-q").code == 0
    assert vm(web)["spec"]["disks"][1] == {"id": "data", "sizeGiB": 1024}
    assert vm(web)["message"] == "for data"
    assert web("vm", "disk", "grow", "web", "disk1", "--size", "5", "-q").code == 0
    assert web("vm", "disk", "grow", "web", "root", "--size", "6", "-q").code == 0
    items = web("vm", "disk", "list", "web", "-o", "json").json()["items"]
    assert [(disk["id"], disk["sizeBytes"] >> 30) for disk in items] == [("root", 6), ("disk1", 5), ("data", 1024)]
    assert vm(web)["spec"]["parameters"] == {"diskGiB": 6}
    plan = web.hypervisor.domains[vm(web)["uid"]].plan
    assert [disk.id for disk in plan.disks] == ["root", "disk1", "data"]
    assert web("vm", "disk", "remove", "web", "disk1", "--yes", "-q").code == 0
    assert disk_ids(web) == ["data"]


def test_a_removed_disk_is_kept_for_a_while_and_comes_back(web):
    web("vm", "disk", "add", "web", "--size", "3", "--id", "data")
    result = web("vm", "disk", "remove", "web", "data", "--yes")
    assert result.code == 0, result.err
    told = result.err.splitlines()[-1]
    assert told.startswith("kc: disk data is kept until 20")
    assert told.endswith("; kc vm undo web, or later kc vm rollback web --to 2, brings it back with its data")
    rows = web("trash", "list").out.splitlines()
    assert "disk  data of web" in rows[1]
    assert rows[1].endswith("3 GiB")
    name = rows[1].split()[0]
    shown = web("trash", "show", name).out
    assert "disk data of VM web" in shown
    assert "kc vm rollback web --to 2" in shown
    assert web("__complete", "vm:deleted").out == ""
    assert web("vm", "restore", "-l", f"name={name}").out == ""
    assert web("vm", "rollback", "web", "--to", "2", "-q").code == 0
    assert disk_ids(web) == ["data"]
    assert web("trash", "list", "-o", "json").json()["items"] == []


def test_without_a_grace_time_a_disk_is_gone_for_good(web, monkeypatch):
    web("vm", "disk", "add", "web", "--size", "3", "--id", "data")
    monkeypatch.setattr("backend.local.disks.discard_disk", lambda *_arguments, **_named: None)
    assert web("vm", "disk", "remove", "web", "data", "--yes").err.endswith("kc: disk data is gone for good\n")


def test_a_dry_run_of_disks_shows_and_changes_nothing(web):
    result = web("vm", "disk", "add", "web", "--size", "3", "--id", "data", "--dry-run")
    assert "spec.disks" in result.out
    assert vm(web)["version"] == 1
    web("vm", "disk", "add", "web", "--size", "3", "--id", "data")
    shown = web("vm", "disk", "remove", "web", "data", "--dry-run")
    assert (shown.code, disk_ids(web)) == (0, ["data"])
    assert "spec.disks" in shown.out
    assert "is kept until" not in shown.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("list",), 2), (("list", "web", "root"), 2), (("add", "web"), 2), (("add", "web", "--size", "0"), 2),
        (("add", "web", "--size", "lots"), 2), (("add", "web", "--size", "1MiB"), 2), (("grow", "web", "root"), 2),
        (("grow", "web", "--size", "3"), 2), (("remove", "web"), 2), (("remove", "web", "data"), 2),
        (("remove", "web", "data", "--yes"), 3), (("grow", "web", "data", "--size", "9"), 3),
        (("remove", "web", "root", "--yes"), 3), (("grow", "web", "root", "--size", "1"), 8),
        (("add", "web", "--size", "3", "--id", "root"), 8), (("add", "web", "--size", "3", "--id", "Data!"), 8),
        (("add", "gone", "--size", "3"), 3), (("add", "web", "--size", "3", "--if-version", "9"), 4),
    ],
)  # fmt: skip
def test_disks_that_are_not_there_or_cannot_be(web, arguments, code):
    result = web("vm", "disk", *arguments)
    assert (result.code, result.out) == (code, "")
    assert len(result.err.splitlines()) == 1
    assert vm(web)["version"] == 1


def test_a_disk_of_a_name_is_there_once(web):
    web("vm", "disk", "add", "web", "--size", "3", "--id", "data")
    result = web("vm", "disk", "add", "web", "--size", "3", "--id", "data")
    assert result.code == 4
    assert result.err == "kc: VM web: it has a disk data already. kc vm disk grow web data makes it larger\n"


# --- the CD-ROM drive


def test_a_disc_is_put_in_and_taken_out(web):
    result = web("vm", "cd", "insert", "web", "starter", "-o", "json")
    assert result.code == 0, result.err
    assert result.json()["spec"]["cdrom"]["name"] == "starter"
    assert ["cd", "starter"] in [line.split() for line in web("vm", "show", "web").out.splitlines()]
    assert web("vm", "cd", "eject", "web", "-q").code == 0
    assert vm(web)["spec"]["cdrom"] is None
    again = web("vm", "cd", "eject", "web")
    assert again.code == 0
    assert again.err == "kc: VM web is so already, at version 3\n"
    assert web("vm", "cd", "insert", "web", "starter", "--dry-run").code == 0
    assert vm(web)["version"] == 3


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("insert", "web"), 2), (("eject",), 2), (("eject", "web", "starter"), 2), (("insert", "web", "nope"), 3),
     (("insert", "gone", "starter"), 3)],
)  # fmt: skip
def test_discs_that_are_not_there(web, arguments, code):
    result = web("vm", "cd", *arguments)
    assert (result.code, result.out) == (code, "")
    assert len(result.err.splitlines()) == 1


# --- snapshots


def test_a_snapshot_is_taken_listed_restored_and_deleted(web):
    nothing = web("vm", "snapshot", "list", "web")
    assert (nothing.code, nothing.out) == (0, "")
    assert nothing.err == "kc: VM web has no snapshot; kc vm snapshot create web takes one\n"
    assert web("vm", "snapshot", "list", "web", "-o", "json").json() == {"items": []}
    taken = web("vm", "snapshot", "create", "web", "before", "--description", "still on 11")
    assert taken.code == 0, taken.err
    assert taken.err.endswith("kc: kc vm snapshot restore web before brings the VM back to it\n")
    rows = web("vm", "snapshot", "list", "web").out.splitlines()
    assert rows == taken.out.splitlines()
    assert rows[0].split() == ["SNAPSHOT", "TAKEN", "VERSION", "MEMORY", "KEPT", "DESCRIPTION"]
    assert rows[1].split()[0] == "before"
    assert rows[1].endswith("1  yes     in the disks  still on 11")
    (item,) = web("vm", "snapshot", "list", "web", "-o", "json").json()["items"]
    assert (item["name"], item["version"], item["hasMemory"]) == ("before", 1, True)
    assert "with memory, still on 11" in web("vm", "show", "web").out
    assert web("vm", "set", "web", "spec.description=new", "-q").code == 0
    back = web("vm", "snapshot", "restore", "web", "before", "--yes")
    assert back.code == 0, back.err
    assert back.err.endswith("kc: VM web is as it was at snapshot before\n")
    assert vm(web)["spec"]["description"] == ""
    gone = web("vm", "snapshot", "delete", "web", "before", "--yes")
    assert gone.err.endswith("kc: snapshot before of VM web is gone\n")
    assert web("vm", "snapshot", "list", "web", "-o", "name").out == ""


def test_a_snapshot_without_a_name_gets_one_and_is_what_is_printed(web):
    taken = web("vm", "snapshot", "create", "web", "-o", "json").json()
    assert taken["name"].startswith("s-20")
    assert taken["version"] == 1
    name = web("vm", "snapshot", "create", "web", "second", "-o", "name")
    assert name.out == "second\n"
    assert web("vm", "snapshot", "list", "web", "-o", "name").out == f"{taken['name']}\nsecond\n"
    assert web("__complete", "vm:snapshots", "web").out == f"{taken['name']}\nsecond\n"


def test_a_snapshot_that_nobody_waits_for_is_told_by_its_name(web, monkeypatch):
    started = []
    monkeypatch.setattr("kc_tui.cli.worker.start_worker", started.append)
    assert web("vm", "snapshot", "create", "web", "later", "--no-wait", "-o", "json").json() == {"name": "later"}
    assert started == [""]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("create",), 2), (("create", "web", "a", "b"), 2), (("create", "web", "Not_A_Name"), 8),
        (("create", "gone"), 3), (("list",), 2), (("list", "gone"), 3), (("restore", "web"), 2),
        (("restore", "web", "nope"), 2), (("restore", "web", "nope", "--yes"), 3), (("delete", "web", "nope"), 2),
        (("delete", "web", "nope", "--yes"), 3), (("create", "web", "--timeout", "0"), 2),
    ],
)  # fmt: skip
def test_snapshots_that_are_not_there_or_cannot_be(web, arguments, code):
    result = web("vm", "snapshot", *arguments)
    assert (result.code, result.out) == (code, "")
    assert len(result.err.splitlines()) == 1


def test_two_snapshots_have_two_names(web):
    web("vm", "snapshot", "create", "web", "before")
    assert web("vm", "snapshot", "create", "web", "before", "-o", "json").problem()["code"] == "conflict"


# --- asking


class Person(io.StringIO):
    """Somebody at a terminal, with an answer."""

    def isatty(self):
        return True


QUESTIONS = [
    (("disk", "remove", "web", "data"), "Remove disk data (3 GiB) of VM web? type y:", "nothing was removed"),
    (("snapshot", "restore", "web", "before"), "Bring VM web back to snapshot before?", "nothing was changed"),
    (("snapshot", "delete", "web", "before"), "Delete snapshot before of VM web for good?", "nothing was deleted"),
]


@pytest.mark.parametrize(("arguments", "question", "otherwise"), QUESTIONS)
def test_what_cannot_be_taken_back_is_asked_first(web, monkeypatch, arguments, question, otherwise):
    web("vm", "disk", "add", "web", "--size", "3", "--id", "data")
    web("vm", "snapshot", "create", "web", "before")
    for answer in ("\n", "no\n", ""):
        monkeypatch.setattr("sys.stdin", Person(answer))
        result = web("vm", *arguments)
        assert (result.code, result.out) == (1, "")
        assert question in result.err
        assert otherwise in result.err
    assert vm(web)["version"] == 2
    assert web("vm", "snapshot", "list", "web", "-o", "name").out == "before\n"
    monkeypatch.setattr("sys.stdin", Person("y\n"))
    assert web("vm", *arguments).code == 0


def test_what_is_not_there_is_told_before_anybody_is_asked(web, monkeypatch):
    monkeypatch.setattr("sys.stdin", Person("y\n"))
    for arguments in (
        ("disk", "remove", "web", "data"),
        ("snapshot", "restore", "web", "x"),
        ("snapshot", "delete", "web", "x"),
    ):
        result = web("vm", *arguments)
        assert result.code == 3
        assert "?" not in result.err


# --- completion


def test_the_parts_of_a_vm_are_completed(web):
    web("vm", "disk", "add", "web", "--size", "3", "--id", "data")
    assert web("__complete", "vm:disks", "web").out == "root\ndata\n"
    assert web("__complete", "vm:nics", "web").out == "nic0\n"
    assert web("__complete", "vm:disks", "gone").out == ""
    assert web("__complete", "vm:disks").out == ""
