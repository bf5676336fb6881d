"""`kc apply` makes objects what documents say: all checked first, each made, changed or left, in their order."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from support.memory_kc import make_service

from backend.errors import FailedError
from backend.hypervisor.memory import fail_with

LAB = """
kind: VM
name: web
metadata: {tenant: acme}
spec:
  image: starter
  type: pico
  parameters: {memoryMiB: 640}
  nics: [{network: lab, ipv4: {mode: static, address: 10.9.0.5/24}}, {network: default}]
---
kind: Network
name: lab
spec: {uplink: isolated, ipv4: {subnet: 10.9.0.0/24, mode: dhcp}}
---
kind: MachineType
name: pico
spec:
  hardware: {cpus: 1, memoryMiB: 256, diskGiB: 1}
  parameters: {memoryMiB: {type: integer, maximum: 1024, default: 256}}
"""


@pytest.fixture
def lab(tmp_path: Path) -> Any:
    """Writes a file of documents and returns its path."""

    def write(text: str = LAB, name: str = "lab.yaml") -> str:
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def revision(kept: Any) -> int:
    return int(kept.service.store.revision())


def vm(name: str, **spec: Any) -> str:
    whole = {"image": "starter", "type": "tiny", "nics": [{"network": "default"}], **spec}
    return json.dumps({"kind": "VM", "name": name, "spec": whole})


def test_a_whole_lab_is_made_in_its_order_changed_and_left_alone(kept: Any, lab: Any) -> None:
    made = kept("apply", "-f", lab())
    assert made.code == 0, made.err
    assert made.out == "type pico: created\nnetwork lab: created\nvm web: created\n"
    web = kept.service.get("VM", "web")
    assert (web["status"]["power"], web["metadata"]) == ("running", {"tenant": "acme"})
    before = revision(kept)
    assert kept("apply", "-f", lab()).out == "type pico: unchanged\nnetwork lab: unchanged\nvm web: unchanged\n"
    assert revision(kept) == before
    changed = kept("apply", "-f", lab(LAB.replace("640", "768")), "--message", "more memory")
    assert changed.code == 0
    assert changed.out.splitlines()[2] == "vm web: updated (~ spec.parameters.memoryMiB: 640 → 768)"
    last = kept.service.history("VM", "web")[-1]
    assert (last.message, last.by) == ("more memory", "ann")


def test_what_would_change_is_shown_and_nothing_is_written(kept: Any, lab: Any) -> None:
    before = revision(kept)
    shown = kept("apply", "-f", lab(), "--dry-run")
    assert shown.code == 0, shown.err
    lines = shown.out.splitlines()
    assert "type pico: would be created" in lines
    assert "network lab: would be created" in lines
    assert "vm web: would be created, after type pico, network lab" in lines
    assert '+ spec.parameters: {"memoryMiB": 640}' in lines
    assert revision(kept) == before
    assert kept.hypervisor.domains == {}


def test_a_dry_run_of_a_nic_on_a_network_of_the_same_file_shows_that_nic_alone(kept: Any, lab: Any) -> None:
    kept.add_vm("db")
    network = '{"kind": "Network", "name": "lab", "spec": {"uplink": "isolated"}}'
    path = lab(vm("db", nics=[{"network": "lab"}, {"network": "default"}]) + network, "lab.json")
    shown = kept("apply", "-f", path, "--dry-run", "-o", "json")
    assert shown.code == 0, shown.err
    vm_item = shown.json()["items"][1]
    assert (vm_item["action"], vm_item["after"]) == ("updated", ["network lab"])
    (change,) = vm_item["patch"]
    assert (change["op"], change["path"]) == ("add", "/spec/nics/0")
    assert change["value"]["network"] == {"name": "lab"}
    assert shown.json()["dryRun"] is True
    assert kept("apply", "-f", path).code == 0
    nics = kept.service.get("VM", "db")["spec"]["nics"]
    assert [nic["network"]["name"] for nic in nics] == ["lab", "default"]


def test_a_dry_run_of_a_vm_that_moves_to_a_type_of_the_same_file(kept: Any, lab: Any) -> None:
    kept.add_vm("db")
    size = {"cpus": 1, "memoryMiB": 1024, "diskGiB": 2}
    machine_type = json.dumps({"kind": "MachineType", "name": "pico", "spec": {"hardware": size}})
    path = lab(vm("db", type="pico") + machine_type, "lab.json")
    shown = kept("apply", "-f", path, "--dry-run")
    assert shown.code == 0, shown.err
    assert "vm db: would be updated, after type pico" in shown.out
    assert kept("apply", "-f", path).code == 0
    assert kept.service.get("VM", "db")["spec"]["type"]["name"] == "pico"


def test_the_effects_on_the_host_are_told(kept: Any, lab: Any) -> None:
    kept.add_vm("db")
    path = lab(vm("db", parameters={"memoryMiB": 1024}), "db.json")
    shown = kept("apply", "-f", path, "--dry-run")
    assert "! memoryMiB 512 → 1024: while it runs" in shown.out
    assert shown.out.splitlines()[0] == "vm db: would be updated"
    assert "kc: vm db: memoryMiB 512 → 1024: while it runs" in kept("apply", "-f", path).err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            LAB.replace("kind: VM", "kind: Cat"),
            "document 1: no such kind: Cat. known are VM, Image, Network, MachineType",
        ),
        (LAB.replace("kind: VM", "kind: Operation"), "document 1: kind Operation is KC's own"),
        (LAB.replace("kind: VM", "kind: [VM]"), "document 1: no such kind"),
        (LAB.replace("kind: VM\n", ""), "document 1: kind is missing"),
        (LAB.replace("name: web\n", ""), "document 1: VM: name is missing"),
        (LAB.replace("name: web", "name: ../etc"), "document 1, VM '../etc': not a valid name"),
        (LAB.replace("name: web", "name: 7"), "document 1, VM '7': not a valid name"),
        (
            LAB.replace("image: starter", "image: starter\n  colour: red"),
            "document 1, VM web: spec.colour: unknown field",
        ),
        (LAB.replace("name: web", "name: web\ncolour: red"), "document 1, VM web: colour: unknown field"),
        (LAB.replace("metadata: {tenant: acme}", "metadata: acme"), "document 1, VM web: metadata: not an object"),
        (LAB.replace("name: web", "name: web\napiVersion: kc/v9"), "apiVersion is not kc/v1"),
        (LAB.replace("name: web", 'name: web\nversion: "1"'), "document 1, VM web: version: not a whole number"),
        (LAB.replace("name: web", "name: web\nversion: true"), "document 1, VM web: version: not a whole number"),
        (LAB.replace("name: web", "name: web\nversion: 0"), "document 1, VM web: it is foreign"),
        (LAB.replace("memoryMiB: 640", "memoryMiB: 4096"), "document 1, VM web: parameter memoryMiB: 4096 is greater"),
        (LAB.replace("memoryMiB: 640", "speed: 9"), "document 1, VM web: parameter speed: unknown"),
        (LAB.replace("10.9.0.5/24", "10.8.0.5/24"), "VM web: 10.8.0.5/24 is not in 10.9.0.0/24 of network lab"),
        (LAB.replace("10.9.0.5/24", "10.9.0.5"), "document 1, VM web: spec.nics.0.ipv4"),
        (LAB.replace("10.9.0.0/24", "10.9.0.1/24"), "document 2, network lab: spec.ipv4"),
        (
            LAB.replace("image: starter", "image: nothing").replace("pico", "tiny"),
            "document 1, VM web: no image nothing",
        ),
        (LAB + "---\nkind: vm\nname: web\n", "document 4: vm web is in "),
        (LAB + "---\n[]\n---\njust a text\n", "document 4: it is no object"),
        (LAB + "---\na: 1\na: 2\n", "the key 'a' is there twice"),
    ],
)
def test_one_wrong_document_and_nothing_is_written(kept: Any, lab: Any, text: str, words: str) -> None:
    before = revision(kept)
    for arguments in ((), ("--dry-run",)):
        result = kept("apply", "-f", lab(text), *arguments)
        assert result.code in (8, 3)
        assert result.out == ""
        assert words in result.err
        assert "lab.yaml" in result.err
    assert revision(kept) == before


def test_every_wrong_document_is_told_of_as_a_problem_too(kept: Any, lab: Any) -> None:
    text = LAB.replace("uplink: isolated", "uplink: 7").replace("cpus: 1", "cpus: 0")
    result = kept("apply", "-f", lab(text), "-o", "json", "-q")
    assert result.code == 8
    problems = [json.loads(line) for line in result.err.splitlines()]
    assert [problem["code"] for problem in problems] == ["refused", "refused"]
    assert [problem["title"].rpartition(", ")[2] for problem in problems] == ["machine type pico", "network lab"]


def test_what_the_documents_refer_to_may_be_missing_everywhere(kept: Any, lab: Any) -> None:
    result = kept("apply", "-f", lab(vm("web", nics=[{"network": "nowhere"}]), "web.json"))
    assert result.code == 3
    assert "web.json, document 1, VM web: no network nowhere" in result.err


def test_a_version_in_a_document_is_the_only_one_that_it_is_applied_to(kept: Any, lab: Any) -> None:
    kept.add_vm("web")
    document = kept("vm", "show", "web", "-o", "json").json()
    kept.set_memory("web", 1024)
    document["metadata"] = {"tenant": "acme"}
    path = lab(json.dumps(document), "web.json")
    other = lab('{"kind": "Network", "name": "lab", "spec": {"uplink": "isolated"}}', "net.json")
    dry = kept("apply", "-f", path, "-f", other, "--dry-run")
    assert dry.code == 4
    assert "vm web: would fail: it is at version 2, not 1" in dry.out
    result = kept("apply", "-f", path, "-f", other)
    assert result.code == 4
    assert result.out == "network lab: created\nvm web: failed: it is at version 2, not 1\n"
    assert kept.service.get("VM", "web")["metadata"] == {}
    document["version"] = 2
    assert kept("apply", "-f", lab(json.dumps(document), "web.json")).code == 0
    assert kept.service.get("VM", "web")["metadata"] == {"tenant": "acme"}
    assert kept("vm", "delete", "web", "--yes", "--now").code == 0
    gone = kept("apply", "-f", path)
    assert gone.code == 4
    assert "vm web: failed: it is not there, and the document says version 2" in gone.out


def test_what_is_left_out_stays(kept: Any, lab: Any) -> None:
    before = kept.add_vm("web", metadata={"tenant": "acme"})
    result = kept("apply", "-f", lab("kind: VM\nname: web\nspec: {description: mine, nics: [{network: default}]}\n"))
    assert result.out == 'vm web: updated (~ spec.description: "" → "mine")\n'
    after = kept.service.get("VM", "web")
    assert after["spec"] == {**before["spec"], "description": "mine"}
    assert after["metadata"] == {"tenant": "acme"}
    assert kept("apply", "-f", lab("kind: VM\nname: web\nmetadata: {a: 1}\n")).code == 0
    assert kept.service.get("VM", "web")["spec"] == after["spec"]


def test_lists_and_documents_that_kc_printed_are_applied_as_they_are(kept: Any, lab: Any) -> None:
    kept.add_vm("web")
    for command in (("vm", "list"), ("vm", "show", "web"), ("network", "list"), ("type", "list"), ("image", "list")):
        for form in ("json", "yaml"):
            printed = kept(*command, "-o", form).out
            result = kept("apply", "-f", lab(printed, f"all.{form}"))
            assert result.code == 0, result.err
            assert {line.rpartition(": ")[2] for line in result.out.splitlines()} == {"unchanged"}


def test_a_failure_stops_what_depends_on_it_and_nothing_else(kept: Any, lab: Any) -> None:
    kept.hypervisor.fail = fail_with(FailedError("network lab", "the bridge is gone"), "ensure_network")
    result = kept("apply", "-f", lab(LAB + "---\nkind: MachineType\nname: other\n"), "-o", "json", "-q")
    assert result.code == 1
    items = {item["name"]: item for item in result.json()["items"]}
    assert [items[name]["action"] for name in ("pico", "other", "lab", "web")] == [
        "created",
        "created",
        "failed",
        "failed",
    ]
    assert items["lab"]["error"]["detail"] == "the bridge is gone"
    assert items["web"]["error"]["detail"] == "it needs network lab, which failed"
    assert [json.loads(line)["title"] for line in result.err.splitlines()] == ["network lab", "VM web"]
    kept.hypervisor.fail = lambda _call: None
    again = kept("apply", "-f", lab())
    assert again.out == "type pico: unchanged\nnetwork lab: created\nvm web: created\n"


def test_a_vm_that_fails_leaves_the_others_and_sets_the_exit_code(kept: Any, lab: Any) -> None:
    kept.hypervisor.domains["x"] = _foreign("a")
    result = kept("apply", "-f", lab(vm("a", power="stopped") + vm("b", power="stopped"), "vms.json"))
    assert result.code == 4
    assert [line.partition(":")[0] for line in result.out.splitlines()] == ["vm a", "vm b"]
    assert "failed" in result.out.splitlines()[0]
    assert result.out.splitlines()[1] == "vm b: created"


def _foreign(name: str) -> Any:
    from backend.hypervisor.memory import MemoryDomain

    return MemoryDomain("x", name, None, "running")


def test_without_waiting_all_of_it_is_only_begun(kept: Any, lab: Any, monkeypatch: Any) -> None:
    started: list[str] = []
    monkeypatch.setattr("kc_tui.cli.worker.start_worker", started.append)
    result = kept("apply", "-f", lab(), "--no-wait")
    assert result.code == 0, result.err
    assert result.out == "type pico: created\nnetwork lab: created\nvm web: created\n"
    assert result.err.count("goes on; see kc op show op-") == 2
    assert started == [""]
    assert kept.hypervisor.domains == {}
    make_service(kept.home, kept.hypervisor).resume()
    assert kept.service.get("VM", "web")["status"]["power"] == "running"


def test_when_the_time_is_over_what_was_done_is_told(kept: Any, lab: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("kc_tui.cli.worker.start_worker", lambda _profile: None)
    kept.hypervisor.boots = False
    kept.add_vm("old", power="stopped")
    text = LAB + "---\nkind: VM\nname: old\nspec: {power: stopped, description: mine}\n"
    result = kept("apply", "-f", lab(text), "--timeout", "0.000001", "-o", "json")
    assert result.code == 7
    items = {item["name"]: item for item in result.json()["items"]}
    assert items["pico"]["action"] == "created"
    assert items["lab"]["error"]["code"] == "timed-out"
    assert items["web"]["error"]["detail"] == "not begun: the time was over"


def test_standard_input_is_read_once(kept: Any, lab: Any, monkeypatch: Any) -> None:
    class Input:
        buffer = io.BytesIO(LAB.encode())

    monkeypatch.setattr("sys.stdin", Input)
    assert kept("apply", "-f", "-", "-f", "-").code == 2
    result = kept("apply", "-f", "-", "-o", "name")
    assert result.out == "type pico\nnetwork lab\nvm web\n"
    assert "standard input" in kept("apply", "-f", "-").err


def test_hostile_documents_reach_no_terminal(kept: Any, lab: Any) -> None:
    hostile = "\x1b]0;x\x07\u202e\x9b31m"
    network = {"kind": "Network", "name": "lab", "metadata": {hostile: hostile}, "spec": {"description": hostile}}
    path = lab(json.dumps(network), f"{hostile.replace('/', '')}.json")
    for arguments in (("--dry-run",), ()):
        result = kept("apply", "-f", path, *arguments)
        assert result.code == 0, result.err
        assert not set(result.out + result.err) & set("\x1b\x07\u202e\x9b")
    for broken in (
        {"kind": hostile},
        {"kind": "VM", "name": hostile},
        {**network, hostile: 1},
        {**network, "spec": {hostile: 1}},
    ):
        result = kept("apply", "-f", lab(json.dumps(broken), f"{hostile}.json"))
        assert result.code == 8
        assert not set(result.out + result.err) & set("\x1b\x07\u202e\x9b")


def test_a_file_is_needed(kept: Any) -> None:
    result = kept("apply")
    assert result.code == 2
    assert "-f" in result.err
