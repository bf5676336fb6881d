"""Versions: their history, an old one shown, rolled back to, undone; deleted objects, and how they come back."""

from __future__ import annotations

import pytest
import yaml


@pytest.fixture
def changed(kept):
    """A VM at version 3: made, more memory, and a message with it."""
    kept.add_vm("web", metadata={"tenant": "acme"})
    kept.set_memory("web", 640)
    kept.set_memory("web", 768, "the customer asked")
    return kept


def words(line: str) -> list[str]:
    return [part for part in line.split("  ") if part.strip()]


# --- history


def test_a_history_has_the_newest_first_with_who_and_why_or_what(changed):
    result = changed("vm", "history", "web")
    header, *rows = result.out.splitlines()
    assert header.split() == ["VERSION", "WHEN", "WHO", "WHAT"]
    assert [row.split()[0] for row in rows] == ["3", "2", "1"]
    assert [row.split("ann  ")[1] for row in rows] == [
        "the customer asked",
        "+ spec.parameters.memoryMiB: 640",
        "made",
    ]
    assert result.err == ""


def test_a_history_for_programs_has_the_documents(changed):
    items = changed("vm", "history", "web", "-o", "json").json()["items"]
    assert [list(item) for item in items] == [["version", "at", "by", "message", "document"]] * 3
    assert [item["version"] for item in items] == [3, 2, 1]
    assert [item["message"] for item in items] == ["the customer asked", "", ""]
    assert [item["document"]["spec"]["parameters"] for item in items] == [{"memoryMiB": 768}, {"memoryMiB": 640}, {}]
    assert all(item["by"] == "ann" and item["at"].endswith("Z") for item in items)
    assert yaml.safe_load(changed("vm", "history", "web", "-o", "yaml").out)["items"] == items
    assert changed("vm", "history", "web", "-o", "name").out == "3\n2\n1\n"


def test_a_history_can_be_short(changed):
    result = changed("vm", "history", "web", "--limit", "1")
    assert [line.split()[0] for line in result.out.splitlines()] == ["VERSION", "3"]
    (newest,) = changed("vm", "history", "web", "--limit", "1", "-o", "json").json()["items"]
    assert newest["version"] == 3
    # What is not shown still tells what changed since.
    assert "640" in changed("vm", "history", "web", "--limit", "2").out.splitlines()[2]


def test_deletions_and_returns_stand_in_the_history(changed):
    changed("vm", "delete", "web", "--yes", "--message", "not needed")
    result = changed("vm", "history", "web")
    assert result.out.splitlines()[1].split("ann  ")[1] == "deleted: not needed"
    assert result.err == "kc: VM web is deleted; kc vm restore web brings it back\n"
    assert changed("vm", "history", "web", "-o", "json").json()["items"][0]["document"] is None
    changed("vm", "restore", "web")
    rows = changed("vm", "history", "web").out.splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["5", "4", "3", "2", "1"]
    assert rows[0].endswith("restored")


@pytest.mark.parametrize("kind", ["vm", "image", "network", "type"])
def test_every_kept_kind_has_the_verbs_for_versions(kept, kind):
    for verb in ("history", "diff", "set", "edit", "rollback", "undo", "restore", "show", "delete"):
        assert kept(kind, verb, "--help").code == 0
    assert kept(kind, "history", "gone").code == 3
    assert kept(kind, "restore", "gone").code == 3
    assert kept(kind, "undo", "gone").code == 3
    assert kept(kind, "rollback", "gone", "--to", "1").code == 3
    assert kept(kind, "rollback", "gone").code == 2


# --- show --version


def test_an_old_version_is_shown_without_a_state(changed):
    result = changed("vm", "show", "web", "--version", "1", "-o", "json")
    document = result.json()
    assert (document["version"], document["spec"]["parameters"]) == (1, {})
    assert "status" not in document
    shown = changed("vm", "show", "web", "--version", "2").out
    assert "version    2" in shown
    assert "640 MiB memory" in shown
    assert "state" not in shown
    assert changed("vm", "show", "web", "--version", "9").code == 3
    assert changed("op", "show", "x", "--version", "1").code == 2


def test_an_old_version_of_a_deleted_object_is_shown(changed):
    changed("vm", "delete", "web", "--yes")
    assert changed("vm", "show", "web").code == 3
    assert changed("vm", "show", "web", "--version", "3", "-o", "json").json()["spec"]["parameters"]["memoryMiB"] == 768


def test_a_message_is_shown(changed):
    assert "message the customer asked" in " ".join(changed("vm", "show", "web").out.split())


# --- rollback and undo


def test_rolling_back_writes_a_new_version_and_changes_the_vm(changed):
    result = changed("vm", "rollback", "web", "--to", "2", "--message", "too much")
    assert result.code == 0, result.err
    assert "~ spec.parameters.memoryMiB: 768 → 640\n" in result.err
    assert "! memoryMiB 768 → 640: while it runs\n" in result.err
    assert "kc: VM web is at version 4; kc vm undo web takes it back\n" in result.err
    document = changed.service.get("VM", "web")
    assert (document["version"], document["spec"]["parameters"]["memoryMiB"]) == (4, 640)
    assert changed.hypervisor.domains[document["uid"]].plan.memory_mib == 640
    assert changed("vm", "history", "web").out.splitlines()[1].endswith("too much")


def test_for_programs_a_rollback_gives_the_document_alone(changed):
    result = changed("vm", "rollback", "web", "--to", "1", "-o", "json", "-q")
    assert result.json()["version"] == 4
    assert result.json()["metadata"] == {"tenant": "acme"}
    assert result.err == ""


def test_rolling_back_to_what_is_there_makes_no_version(changed):
    result = changed("vm", "rollback", "web", "--to", "3")
    assert result.code == 0
    assert "kc: VM web is so already, at version 3\n" in result.err
    assert changed.service.get("VM", "web")["version"] == 3


def test_undo_takes_the_last_change_back_and_then_the_undo(changed):
    assert changed("vm", "undo", "web").code == 0
    assert changed.service.get("VM", "web")["spec"]["parameters"] == {"memoryMiB": 640}
    result = changed("vm", "undo", "web", "-o", "json")
    assert result.json()["spec"]["parameters"] == {"memoryMiB": 768}
    assert result.json()["version"] == 5


def test_a_single_version_cannot_be_undone(kept):
    result = kept("type", "undo", "tiny")
    assert result.code == 4
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize("command", [("rollback", "web", "--to", "1"), ("undo", "web"), ("delete", "web", "--yes")])
def test_who_names_an_old_version_loses_and_sees_the_difference(changed, command):
    result = changed("vm", *command, "--if-version", "2")
    assert result.code == 4
    assert result.out == ""
    assert result.err.splitlines() == [
        "kc: VM web: it is at version 3, not 2. see kc vm history web, and try again",
        "what changed from version 2 to 3:",
        "~ spec.parameters.memoryMiB: 640 → 768",
    ]
    problem = changed("vm", *command, "--if-version", "2", "-o", "json").problem()
    assert problem["current"] == 3
    assert problem["changes"] == [{"op": "replace", "path": "/spec/parameters/memoryMiB", "value": 768}]
    assert changed.service.get("VM", "web")["version"] == 3
    assert changed("vm", *command, "--if-version", "3", "-q").code == 0


# --- deleting, the trash, and back


def test_deleting_says_until_when_and_how_it_comes_back(changed):
    result = changed("vm", "delete", "web", "--yes")
    until = changed.service.list_documents("Trash").items[0]["spec"]["until"]
    when = f"{until[:10]} {until[11:19]}Z"
    assert result.err.splitlines()[-1] == f"kc: VM web deleted; until {when} kc vm restore web brings it back"
    for_good = changed("type", "delete", "large", "--yes", "--now")
    assert for_good.err == "kc: machine type large deleted for good\n"
    assert [item["name"][:6] for item in changed("trash", "list", "-o", "json").json()["items"]] == ["vm-web"]


def test_a_version_is_asked_for_of_one_object_alone(changed):
    changed.add_vm("db")
    assert changed("vm", "delete", "web", "db", "--yes", "--if-version", "1").code == 2
    assert changed("vm", "delete", "-l", "tenant=acme", "--yes", "--if-version", "1").code == 2
    assert changed.service.get("VM", "web")


def test_the_trash_is_a_list_like_others(changed):
    assert changed("trash", "list").err == "kc: no deleted objects\n"
    changed("vm", "delete", "web", "--yes")
    changed("type", "delete", "large", "--yes")
    rows = changed("trash", "list").out.splitlines()
    assert rows[0].split() == ["NAME", "KIND", "OBJECT", "DELETED", "BY", "UNTIL", "DISK"]
    assert [row.split()[1:5] for row in rows[1:]] == [["type", "large", "now", "ann"], ["vm", "web", "now", "ann"]]
    (name,) = changed("trash", "list", "-l", "tenant=acme", "-o", "name").out.split()
    assert name.startswith("vm-web-")
    uid = changed.service.get("Trash", name)["spec"]["target"]["uid"]
    shown = changed("trash", "show", name).out
    assert f"bring back  kc vm restore web --uid {uid}" in shown
    assert "object      VM web, version 3" in shown
    assert "state" not in shown


def test_what_was_deleted_comes_back_as_it_was(changed):
    changed("vm", "delete", "web", "--yes")
    result = changed("vm", "restore", "web", "-o", "json")
    assert result.code == 0, result.err
    assert result.json()["status"]["power"] == "running"
    assert result.json()["spec"]["parameters"] == {"memoryMiB": 768}
    again = changed("vm", "restore", "web")
    assert again.code == 4
    assert changed("trash", "list", "-o", "name").out == ""


def test_of_two_of_a_name_the_uid_says_which(kept):
    uids = []
    for memory in (512, 640):
        uids.append(kept.add_vm("web", parameters={"memoryMiB": memory})["uid"])
        kept("vm", "delete", "web", "--yes")
    assert kept("vm", "restore", "web", "--uid", uids[0], "-o", "json").json()["uid"] == uids[0]
    assert kept("vm", "restore", "a", "b", "--uid", uids[1]).code == 2


def test_a_selector_brings_back_what_it_matches(kept):
    for name, tenant in (("a", "acme"), ("b", "acme"), ("c", "other")):
        kept.add_vm(name, metadata={"tenant": tenant})
    kept("network", "set", "default", "--meta", "tenant=acme")
    kept("vm", "delete", "a", "b", "c", "--yes", "-q")
    result = kept("vm", "restore", "-l", "tenant=acme", "-o", "json")
    assert [item["name"] for item in result.json()["items"]] == ["a", "b"]
    assert kept("vm", "restore", "-l", "tenant=nobody").err == "kc: no deleted objects match tenant=nobody\n"
    assert kept("vm", "restore").code == 2


def test_emptying_needs_a_yes_and_takes_what_is_meant(kept):
    for name in ("a", "b", "c"):
        kept.add_vm(name, metadata={"tenant": name})
    kept("vm", "delete", "a", "b", "c", "--yes", "-q")
    assert kept("trash", "empty").code == 2
    one = kept("trash", "empty", "-l", "tenant=a", "--yes", "-q", "-o", "json")
    assert [item["spec"]["target"]["name"] for item in one.json()["items"]] == ["a"]
    missing = kept("trash", "empty", "vm-nothing-0000", "--yes")
    assert missing.code == 3
    everything = kept("trash", "empty", "--yes")
    assert everything.code == 0
    assert everything.err.splitlines()[-1] == "kc: 2 deleted objects removed for good"
    assert kept("trash", "empty", "--yes").err == "kc: the trash is empty already\n"
    assert not [name for name in kept.hypervisor.volumes if name.endswith("-root")]


def test_without_its_disks_a_vm_comes_back_only_with_new_ones(kept):
    kept.add_vm("web")
    kept("vm", "delete", "web", "--yes", "--now", "-q")
    result = kept("vm", "restore", "web", "-q")
    assert result.code == 4
    assert "--new-disks" in result.err
    assert kept("vm", "restore", "web", "--new-disks", "-q", "-o", "name").out == "web\n"
    assert kept("type", "restore", "tiny", "--new-disks").code == 2
