"""`kc vm create` in full on a whole KC: several at once, keys against doing it twice, sizes with units, warnings."""

from __future__ import annotations

import pytest

from backend.errors import FailedError
from kc_tui.cli import worker

CREATE = ("--image", "starter", "--network", "default", "--type", "tiny")
HASH = "$6$saltsalt$" + "a" * 86


def names(kept, kind="VM"):
    return [item["name"] for item in kept.service.list_documents(kind).items]


# --- what a VM is made with


def test_a_vm_is_made_with_disks_a_disc_a_password_and_sizes_with_units(kept):
    result = kept(
        "vm", "create", "web", *CREATE, "--disk", "3", "--disk", "1TiB", "--cdrom", "starter", "--password-hash", HASH,
        "--set", "memoryMiB=1GiB", "--set", "cpus=2", "--set", "diskGiB=4", "-o", "json",
    )  # fmt: skip
    assert result.code == 0, result.err
    spec = result.json()["spec"]
    assert spec["disks"] == [{"id": "disk1", "sizeGiB": 3}, {"id": "disk2", "sizeGiB": 1024}]
    assert spec["cdrom"]["name"] == "starter"
    assert spec["passwordHash"] == HASH
    assert spec["parameters"] == {"memoryMiB": 1024, "cpus": 2, "diskGiB": 4}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--disk", "0"), 2, "--disk"),
        (("--disk", "big"), 2, "--disk"),
        (("--disk", "1MiB"), 2, "no whole number of GiB"),
        (("--password-hash", "secret"), 8, "spec.passwordHash"),
        (("--cdrom", "nope"), 3, "no image nope"),
        (("--set", "memoryMiB=1GB"), 8, "GB would be a little less"),
        (("--set", "memoryMiB=9TiB"), 8, "128 to 1024 MiB"),
        (("--set", "colour=3GiB"), 8, "parameter colour: unknown"),
        (("--idempotency-key", "x" * 129), 2, "1 to 128 characters"),
    ],
)
def test_what_a_vm_cannot_be_made_with(kept, arguments, code, words):
    result = kept("vm", "create", "web", *CREATE, *arguments)
    assert (result.code, result.out) == (code, "")
    assert words in result.err
    assert HASH not in result.err
    assert names(kept) == []


def test_a_figure_with_a_unit_for_a_type_that_is_not_there_is_told(kept):
    result = kept("vm", "create", "web", *CREATE[:-1], "nope", "--set", "memoryMiB=1GiB")
    assert result.code == 3
    assert result.err == "kc: machine type nope: no such machine type. see kc type list\n"


def test_what_cloud_init_would_find_odd_is_a_warning(kept, tmp_path):
    path = tmp_path / "user-data"
    path.write_text("#cloud-config\nhostnames: web\npackages: 7\n")
    result = kept("vm", "create", "web", *CREATE, "--user-data", str(path), "-o", "json")
    assert result.code == 0, result.err
    warnings = [line for line in result.err.splitlines() if line.startswith("kc: warning: ")]
    assert any("packages" in line for line in warnings)
    assert len(set(warnings)) == len(warnings)
    several = kept("vm", "create", "db", *CREATE, "--user-data", str(path), "--count", "2", "--no-start")
    assert [line for line in several.err.splitlines() if line.startswith("kc: warning: ")] == warnings
    assert "warning" not in kept("vm", "create", "x", *CREATE, "--user-data", str(path), "-q").err
    assert "warning" in kept("vm", "set", "web", "spec.userData=#cloud-config\npackages: 8\n").err


# --- several


def test_many_are_made_a_line_each_and_counted(kept):
    result = kept("vm", "create", "node", *CREATE, "--count", "12", "--no-start")
    assert result.code == 0, result.err
    rows = result.out.splitlines()
    assert [row.split()[:2] for row in rows[1:]] == [[f"node-{number}", "stopped"] for number in range(1, 13)]
    assert result.err.endswith("kc: 12 of 12 VMs made\n")


def test_of_many_none_is_made_where_one_is_refused_beforehand(kept):
    kept.add_vm("node-3")
    result = kept("vm", "create", "node", *CREATE, "--count", "4", "--no-start")
    assert result.code == 4
    assert "VM node-3: the name is taken" in result.err
    assert names(kept) == ["node-3"]


def test_of_many_those_that_fail_are_named_and_leave_nothing(kept):
    made = []

    def fail(call):
        if call == "ensure_defined":
            made.append(call)
            if len(made) == 2:
                raise FailedError("the pool", "no room", "make room")

    kept.hypervisor.fail = fail
    result = kept("vm", "create", "node", *CREATE, "--count", "3", "--no-start", "-o", "name")
    assert result.code == 1
    assert len(result.out.splitlines()) == 2
    assert "kc: 2 of 3 VMs made\n" in result.err
    (failed,) = {"node-1", "node-2", "node-3"} - set(result.out.split())
    assert result.err.splitlines()[-1] == "kc: the pool: no room. make room"
    assert names(kept) == sorted(result.out.split())
    operations = kept.service.list_documents("Operation", selector="status.state=failed").items
    assert [item["spec"]["target"]["name"] for item in operations] == [failed]
    left = {volume for volume in kept.hypervisor.volumes if operations[0]["spec"]["target"]["uid"] in volume}
    assert left == set()


def test_without_waiting_all_are_accepted_and_left_to_a_worker(kept, monkeypatch):
    started = []
    monkeypatch.setattr(worker, "start_worker", started.append)
    result = kept("vm", "create", "node", *CREATE, "--count", "3", "--no-wait", "-o", "name")
    assert (result.code, result.out) == (0, "node-1\nnode-2\nnode-3\n")
    assert "made" not in result.err
    assert started == [""]


# --- keys


def test_with_a_key_a_creation_is_done_once(kept):
    first = kept("vm", "create", "web", *CREATE, "--idempotency-key", "k1", "-o", "json")
    again = kept("vm", "create", "web", *CREATE, "--idempotency-key", "k1", "-o", "json")
    assert (first.code, again.code) == (0, 0), again.err
    assert again.json()["uid"] == first.json()["uid"]
    assert again.json()["version"] == 1
    assert kept("vm", "create", "web", *CREATE).code == 4
    other = kept("vm", "create", "web", *CREATE, "--no-start", "--idempotency-key", "k1")
    assert other.code == 4
    assert "it was used for something else" in other.err
    key = first.json() and kept.service.list_documents("Operation", selector="spec.type=vm.create").items[0]
    assert key["spec"]["idempotencyKey"] == "k1/web"
    assert "k1/web" in kept("op", "show", key["name"]).out


def test_with_a_key_each_of_many_has_its_own(kept):
    arguments = ("vm", "create", "node", *CREATE, "--no-start", "--idempotency-key", "k", "-o", "name")
    assert kept(*arguments, "--count", "2").out == "node-1\nnode-2\n"
    more = kept(*arguments, "--count", "3")
    assert (more.code, more.out) == (0, "node-1\nnode-2\nnode-3\n")
    assert len(kept.service.list_documents("Operation", selector="spec.type=vm.create").items) == 3


def test_with_a_key_other_changes_are_done_once_too(kept):
    kept.add_vm("web")
    for _time in range(2):
        result = kept("vm", "clone", "web", "copy", "--idempotency-key", "c", "-o", "name")
        assert (result.code, result.out) == (0, "copy\n"), result.err
    for _time in range(2):
        changed = kept("vm", "set", "web", "spec.parameters.memoryMiB=768", "--idempotency-key", "s", "-o", "json")
        assert changed.code == 0, changed.err
        assert (changed.json()["version"], changed.json()["status"]["power"]) == (2, "running")
    assert kept("vm", "set", "web", "spec.parameters.memoryMiB=640", "--idempotency-key", "s").code == 4
    for _time in range(2):
        kind = kept("type", "set", "tiny", "spec.description=other", "--idempotency-key", "t", "-o", "json")
        assert (kind.code, kind.json()["version"]) == (0, 2), kind.err
    for _time in range(2):
        deleted = kept("vm", "delete", "copy", "--yes", "--idempotency-key", "d", "-o", "name")
        assert (deleted.code, deleted.out) == (0, "copy\n"), deleted.err
    assert names(kept) == ["web"]
    assert len(kept.service.list_documents("Trash").items) == 1
