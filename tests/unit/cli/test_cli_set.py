"""Values set by their paths, NICs added and removed: read, changed and written as what is there by then."""

from __future__ import annotations

import threading

import pytest
from support.memory_kc import settle

from backend.errors import ConflictError
from backend.local import LocalService


def vm(kept, name="web"):
    return kept.service.get("VM", name)


@pytest.fixture
def web(kept):
    kept.add_vm("web", metadata={"tenant": "acme", "owner": {"mail": "a@b.c", "id": 7}})
    return kept


def test_values_are_json_where_they_parse_and_else_text(web):
    result = web(
        "vm", "set", "web", "spec.parameters.memoryMiB=640", "spec.description=a = b", 'metadata."a.b"=[1, 2]',
        "--meta", "owner.id=8", "--meta", "tier=true", "--message", "as asked", "-o", "json",
    )  # fmt: skip
    assert result.code == 0, result.err
    document = result.json()
    assert document["spec"]["parameters"] == {"memoryMiB": 640}
    assert document["spec"]["description"] == "a = b"
    assert document["metadata"] == {"tenant": "acme", "owner": {"mail": "a@b.c", "id": 8}, "a.b": [1, 2], "tier": True}
    assert (document["version"], document["message"]) == (2, "as asked")
    assert web.hypervisor.domains[document["uid"]].plan.memory_mib == 640


def test_a_person_is_told_what_was_written_and_what_it_needs(web):
    size = {"cpus": 1, "memoryMiB": 512, "diskGiB": 2}
    web.service.create({"kind": "MachineType", "name": "full", "spec": {"hardware": size, "parameters": {"cpus": {}}}})
    web.add_vm("db", type="full")
    result = web("vm", "set", "db", "spec.parameters.cpus=2")
    assert result.out.splitlines()[1].startswith("db    running ↻")
    assert result.err.splitlines()[-2:] == [
        "kc: VM db needs a restart for spec.parameters.cpus: kc vm reboot db",
        "kc: VM db is at version 2; kc vm undo db takes it back",
    ]
    assert "restart needed for spec.parameters.cpus" in " ".join(web("vm", "show", "db").out.split())


def test_what_is_taken_away_is_gone_and_what_is_not_there_may_stay_away(web):
    assert web("vm", "set", "web", "metadata.list=[0, 1, 2, 3]").code == 0
    result = web(
        "vm", "set", "web", "--unset", "metadata.list.0", "--unset", "metadata.list.2", "--unset", "metadata.nothing",
        "--unset", "metadata.owner.mail", "-q",
    )  # fmt: skip
    assert result.code == 0, result.err
    assert vm(web)["metadata"] == {"tenant": "acme", "owner": {"id": 7}, "list": [1, 3]}
    same = web("vm", "set", "web", "--unset", "metadata.nothing")
    assert same.code == 0
    assert same.err == "kc: VM web is so already, at version 3\n"
    assert vm(web)["version"] == 3


def test_a_whole_root_can_be_set_but_not_taken_away(web):
    assert web("vm", "set", "web", 'metadata={"only": 1}', "-q").code == 0
    assert vm(web)["metadata"] == {"only": 1}
    assert web("vm", "set", "web", "--unset", "metadata").code == 8
    assert web("vm", "set", "web", "metadata=3").code == 8


@pytest.mark.parametrize(
    ("kind", "path", "words"),
    [
        ("vm", "memoryMiB", "did you mean spec.parameters.memoryMiB?"),
        ("vm", "power", "did you mean spec.power?"),
        ("vm", "tenant", "did you mean metadata.tenant?"),
        ("vm", "nics.0.mac", "did you mean spec.nics.0.mac?"),
        ("type", "memoryMiB", "did you mean spec.hardware.memoryMiB?"),
        ("vm", "status.power", "status is observed, nobody writes it"),
        ("vm", "version", "version is KC's own"),
        ("vm", "spec..power", "a key is missing at character 6"),
    ],
)
def test_a_path_that_is_nobodys_to_write_is_refused_with_a_better_one(kept, kind, path, words):
    for arguments in ((f"{path}=1",), ("--unset", path)):
        result = kept(kind, "set", "web", *arguments)
        assert (result.code, result.out) == (8, "")
        assert words in result.err
        assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        (), ("web",), ("web", "more"), ("web", "spec.power"), ("spec.power=stopped",), ("-l", "a=b"), ("--meta", "a=1"),
        ("web", "-l", "a=b", "spec.power=stopped"), ("-l", "", "spec.power=stopped"), ("web", "=1"),
        ("web", "spec.power=1", "--if-version", "0"),
    ],
)  # fmt: skip
def test_a_command_line_that_makes_no_sense_is_wrong_usage(web, arguments):
    result = web("vm", "set", *arguments)
    assert (result.code, result.out) == (2, "")
    assert len(result.err.splitlines()) == 1
    assert vm(web)["version"] == 1


def test_what_the_model_refuses_is_refused_with_its_path(web):
    result = web("vm", "set", "web", "spec.colour=red", "-o", "json")
    assert result.code == 8
    assert "spec.colour: unknown field" in result.problem()["detail"]
    assert web("vm", "set", "gone", "spec.power=stopped").code == 3
    assert web("vm", "set", "web", "spec.nics.7.mac=x").code == 8


def test_a_dry_run_shows_and_writes_nothing(web):
    arguments = ("vm", "set", "web", "spec.parameters.memoryMiB=640", "spec.power=stopped", "--dry-run")
    result = web(*arguments)
    assert result.code == 0
    assert result.out.splitlines() == [
        "+ spec.parameters.memoryMiB: 640",
        '~ spec.power: "running" → "stopped"',
        "! memoryMiB 512 → 640: while it runs",
        "! the guest is shut down",
    ]
    assert result.err == "kc: VM web would change:\n"
    described = web(*arguments, "-o", "json").json()
    assert (described["name"], described["version"], len(described["effects"])) == ("web", 1, 2)
    assert described["changes"][1] == {"op": "replace", "path": "/spec/power", "value": "stopped"}
    assert web("vm", "set", "web", "metadata.tenant=acme", "--dry-run").err == "kc: VM web is so already\n"
    assert web(*arguments, "--if-version", "9").code == 4
    assert web("vm", "set", "web", "spec.x=1", "--dry-run").code == 8
    assert vm(web)["version"] == 1


# --- many


def test_a_selector_changes_each_on_its_own(web):
    web.add_vm("db", metadata={"tenant": "acme"})
    web.add_vm("other", metadata={"tenant": "other"})
    result = web("vm", "set", "-l", "tenant=acme", "--meta", "tier=2", "-o", "json")
    assert [(item["name"], item["metadata"]["tier"]) for item in result.json()["items"]] == [("db", 2), ("web", 2)]
    assert "tier" not in vm(web, "other")["metadata"]
    none = web("vm", "set", "-l", "tenant=nobody", "--meta", "tier=2", "-o", "json")
    assert none.code == 0
    assert none.json() == {"items": []}


def test_of_many_those_that_can_be_changed_are(web):
    web.add_vm("db", metadata={"tenant": "acme", "owner": "ann"})
    result = web("vm", "set", "-l", "tenant=acme", "metadata.owner.id=8")
    assert result.code == 8
    assert "kc: 1 of 2 VMs changed" in result.err
    assert "metadata.owner" in result.err
    assert vm(web)["metadata"]["owner"]["id"] == 8
    assert vm(web, "db")["version"] == 1
    dry = web("vm", "set", "-l", "tenant=acme", "metadata.owner.id=9", "--dry-run", "-o", "json")
    assert dry.code == 8
    assert [item["name"] for item in dry.json()["items"]] == ["web"]


# --- somebody else


@pytest.fixture
def rival(web, monkeypatch):
    """Somebody who writes a version of the VM between the reading and the writing of the next `times` updates."""
    update = LocalService.update
    left = {"times": 0, "settles": True}

    def update_second(self, document, **options):
        if left["times"] and document["name"] == "web" and self is not web.service:
            left["times"] -= 1
            current = web.service.get("VM", "web", observe=False)
            metadata = {**current["metadata"], "rival": current["version"]}
            accepted = update(web.service, {"kind": "VM", "name": "web", "metadata": metadata})
            if left["settles"]:
                settle(web.service, accepted)
        return update(self, document, **options)

    monkeypatch.setattr(LocalService, "update", update_second)
    return left


def test_without_a_version_what_somebody_else_wrote_meanwhile_stays(web, rival):
    rival["times"] = 3
    result = web("vm", "set", "web", "--meta", "mine=1", "-q", "-o", "json")
    assert result.code == 0, result.err
    document = vm(web)
    assert (document["metadata"]["mine"], document["metadata"]["rival"], document["version"]) == (1, 3, 5)


def test_work_of_somebody_else_is_waited_for(web, rival, monkeypatch):
    wait, gate, waited = LocalService.wait, threading.Event(), []

    def wait_and_let_go(self, operation, **options):
        waited.append(operation)
        gate.set()
        return wait(self, operation, **options)

    def hold(call):
        if call == "ensure_defined":
            gate.wait(30)

    monkeypatch.setattr(LocalService, "wait", wait_and_let_go)
    web.hypervisor.fail = hold
    rival.update(times=1, settles=False)
    result = web("vm", "set", "web", "--meta", "mine=1", "-q")
    assert result.code == 0, result.err
    assert vm(web)["metadata"] | {"owner": 0} == {"tenant": "acme", "owner": 0, "rival": 1, "mine": 1}
    assert len(waited) == 2
    gate.clear()
    rival.update(times=1)
    nobody = web("vm", "set", "web", "--meta", "mine=2", "--no-wait")
    gate.set()
    assert nobody.code == 4
    assert "at work on it" in nobody.err


def test_with_a_version_the_loser_sees_the_difference(web, rival):
    rival["times"] = 1
    result = web("vm", "set", "web", "--meta", "mine=1", "--if-version", "1")
    assert result.code == 4
    assert result.err.splitlines() == [
        "kc: VM web: it is at version 2, not 1. see kc vm history web, and try again",
        "what changed from version 1 to 2:",
        "+ metadata.rival: 1",
    ]
    assert "mine" not in vm(web)["metadata"]
    problem = web("vm", "set", "web", "--meta", "mine=1", "--if-version", "1", "-o", "json").problem()
    assert (problem["code"], problem["current"]) == ("conflict", 2)
    assert problem["changes"] == [{"op": "add", "path": "/metadata/rival", "value": 1}]


def test_somebody_who_never_stops_is_told_of(web, rival):
    rival["times"] = 1000
    result = web("vm", "set", "web", "--meta", "mine=1")
    assert result.code == 4
    assert "somebody else changed it 50 times" in result.err


def test_a_version_that_is_not_kept_is_a_conflict_without_a_difference(web):
    result = web("vm", "set", "web", "--meta", "mine=1", "--if-version", "7")
    assert result.code == 4
    assert result.err == "kc: VM web: it is at version 1, not 7. see kc vm history web, and try again\n"


def test_another_conflict_is_not_tried_again(web, monkeypatch):
    calls = []

    def update(_self, document, **_options):
        calls.append(document)
        raise ConflictError("VM web", "it is in use", "wait")

    monkeypatch.setattr(LocalService, "update", update)
    assert web("vm", "set", "web", "--meta", "mine=1").err == "kc: VM web: it is in use. wait\n"
    assert len(calls) == 1


# --- NICs


def test_nics_come_and_go_while_it_runs(web):
    assert web("network", "create", "lab", "--ipv4", "10.9.0.0/24", "-q").code == 0
    result = web("vm", "nic", "add", "web", "--network", "lab,ipv4=10.9.0.5/24", "--message", "for the lab")
    assert result.code == 0, result.err
    rows = web("vm", "nic", "list", "web").out.splitlines()
    assert rows[0].split() == ["NIC", "NETWORK", "MAC", "IPV4", "IPV6", "ADDRESS"]
    assert [row.split()[:2] for row in rows[1:]] == [["nic0", "default"], ["nic1", "lab"]]
    assert rows[2].split()[3] == "10.9.0.5/24"
    items = web("vm", "nic", "list", "web", "-o", "json").json()["items"]
    assert [item["id"] for item in items] == ["nic0", "nic1"]
    assert all(item["mac"] and "addresses" in item for item in items)
    assert len(web.hypervisor.domains[vm(web)["uid"]].plan.nics) == 2
    removed = web("vm", "nic", "remove", "web", items[0]["mac"], "-o", "json")
    assert [nic["id"] for nic in removed.json()["spec"]["nics"]] == ["nic1"]
    assert web("vm", "nic", "remove", "web", "nic1", "-q").code == 0
    assert web("vm", "nic", "list", "web").err == "kc: VM web has no NIC; kc vm nic add web --network N gives it one\n"
    assert web("vm", "nic", "list", "web", "-o", "json").json() == {"items": []}
    assert web("vm", "undo", "web", "-q").code == 0
    assert web("vm", "nic", "list", "web", "-o", "name").out == "nic1\n"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("add", "web"), 2), (("remove", "web"), 2), (("list", "web", "nic0"), 2), (("list",), 2), (("swap", "web"), 2),
        ((), 2), (("remove", "web", "nic0", "--id", "nic0"), 2), (("add", "web", "nic0", "--network", "default"), 2),
        (("list", "web", "--network", "default"), 2), (("remove", "web", "nic0", "--network", "default"), 2),
        (("remove", "web", "nic9"), 3), (("add", "web", "--network", "gone"), 3), (("list", "gone"), 3),
        (("add", "web", "--network", "default,ipv4=10.9.9.9/24"), 8),
        (("remove", "web", "nic0", "--if-version", "9"), 4),
    ],
)  # fmt: skip
def test_nics_that_are_not_there_or_cannot_be(web, arguments, code):
    result = web("vm", "nic", *arguments)
    assert (result.code, result.out) == (code, "")
    assert len(result.err.splitlines()) == 1
    assert vm(web)["version"] == 1
