"""The life of VMs on the command line: paused, cloned, renamed, resized, moved to a type, adopted, mended."""

from __future__ import annotations

import io
import uuid

import pytest

from backend.hypervisor.memory import fail_with
from backend.hypervisor.memory_guest import MemoryDomain
from backend.hypervisor.plan import DomainOwner, FoundDomain, FoundNic

HOSTILE = "\x1b[2Jold\u202e"


@pytest.fixture
def web(kept):
    kept.add_vm("web", metadata={"tenant": "acme"})
    return kept


def vm(kept, name="web"):
    return kept.service.get("VM", name)


def details(kept, name="web"):
    """Return the lines of `kc vm show`, label and value a space apart."""
    return [" ".join(line.split()) for line in kept("vm", "show", name).out.splitlines()]


# --- power


def test_a_vm_is_paused_and_resumed(web):
    paused = web("vm", "pause", "web", "-o", "json")
    assert paused.code == 0, paused.err
    assert (paused.json()["status"]["power"], paused.json()["spec"]["power"]) == ("paused", "paused")
    assert web("vm", "pause", "web").err == "kc: VM web is paused already\n"
    assert web("vm", "resume", "web", "-o", "json").json()["status"]["power"] == "running"
    assert web("vm", "resume", "web").err == "kc: VM web is running already\n"


def test_several_are_paused_by_a_selector_and_summed_up(web):
    web.add_vm("db", metadata={"tenant": "acme"})
    web.add_vm("other")
    result = web("vm", "pause", "-l", "tenant=acme", "-o", "name")
    assert result.out == "db\nweb\n"
    assert result.err.endswith("kc: 2 of 2 VMs paused\n")
    assert web("vm", "resume", "web", "db", "other", "-o", "name").err.endswith("kc: 2 of 3 VMs resumed\n")
    assert vm(web, "other")["status"]["power"] == "running"


def test_what_is_off_cannot_be_paused(web):
    web("vm", "stop", "web")
    result = web("vm", "pause", "web")
    assert (result.code, result.out) == (4, "")
    assert "it is stopped. kc vm start web" in result.err


@pytest.mark.parametrize("arguments", [(), ("web", "-l", "a=b"), ("web", "--force"), ("web", "--wait", "ready")])
def test_pausing_takes_names_or_a_selector_alone(web, arguments):
    assert web("vm", "pause", *arguments).code == 2


# --- clone, rename


def test_a_clone_is_like_the_other_and_stays_off_unless_it_is_to_start(web):
    result = web("vm", "clone", "web", "web-2", "-o", "json")
    assert result.code == 0, result.err
    copy, first = result.json(), vm(web)
    assert copy["status"]["power"] == "stopped"
    assert copy["metadata"] == {"tenant": "acme"}
    assert copy["uid"] != first["uid"]
    assert copy["spec"]["nics"][0]["mac"] != first["spec"]["nics"][0]["mac"]
    third = web("vm", "clone", "web", "web-3", "--start", "--meta", "tenant=other", "--wait", "ready", "-o", "json")
    assert third.json()["metadata"] == {"tenant": "other"}
    assert third.json()["status"]["power"] == "running"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("web",), 2), (("web", "x", "y"), 2), (("web", "web-2", "--wait", "ready"), 2),
        (("web", "web-2", "--start", "--wait", "ready", "--no-wait"), 2), (("web", "web"), 4), (("gone", "x"), 3),
        (("web", "Not_A_Name"), 8), (("web", "x", "--idempotency-key", "a" * 129), 2),
        (("web", "x", "--idempotency-key", "a\nb"), 2), (("web", "x", "--idempotency-key", ""), 2),
    ],
)  # fmt: skip
def test_clones_that_cannot_be(web, arguments, code):
    result = web("vm", "clone", *arguments)
    assert (result.code, result.out) == (code, "")
    assert len(result.err.splitlines()) == 1
    assert [item["name"] for item in web.service.list_documents("VM").items] == ["web"]


def test_a_name_changes_at_once_and_on_the_host_at_the_next_start(web):
    result = web("vm", "rename", "web", "www")
    assert result.code == 0, result.err
    assert result.out.splitlines()[1].startswith("www   running ↻")
    assert result.err.endswith("kc: VM www needs a restart for name: kc vm reboot www\n")
    assert web("vm", "show", "web").code == 3
    assert web("vm", "rename", "www", "www").err.endswith("kc: VM www is called so already\n")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("web",), 2), (("web", "db"), 4), (("gone", "x"), 3), (("web", "A_B"), 8),
     (("web", "x", "--if-version", "9"), 4)],
)  # fmt: skip
def test_names_that_cannot_be(web, arguments, code):
    web.add_vm("db")
    result = web("vm", "rename", *arguments)
    assert (result.code, result.out) == (code, "")
    assert vm(web)["version"] == 1


# --- resize


def test_a_vm_is_resized_in_one_command(web):
    result = web("vm", "resize", "web", "--cpus", "2", "--memory", "1GiB", "--disk", "4", "-o", "json")
    assert result.code == 0, result.err
    assert result.json()["spec"]["parameters"] == {"cpus": 2, "memoryMiB": 1024, "diskGiB": 4}
    assert vm(web)["version"] == 2
    assert web("vm", "resize", "web", "--set", "memoryMiB=0.5 GiB", "--set", "cpus=1", "-q").code == 0
    assert vm(web)["spec"]["parameters"] == {"cpus": 1, "memoryMiB": 512, "diskGiB": 4}
    dry = web("vm", "resize", "web", "--cpus", "2", "--dry-run")
    assert dry.out.splitlines()[0] == "~ spec.parameters.cpus: 1 → 2"
    assert vm(web)["version"] == 3


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, "give --cpus, --memory, --disk or --set"),
        (("--cpus", "2", "--set", "cpus=2"), 2, "--cpus and --set cpus=… say the same"),
        (("--cpus", "0"), 2, "--cpus"),
        (("--memory", "1e3"), 2, "--memory"),
        (("--memory", "1.3GiB"), 2, "no whole number of MiB"),
        (("--cpus", "99"), 8, "parameter cpus"),
        (("--disk", "1"), 8, "cannot shrink"),
        (("--set", "memoryMiB=2GB"), 8, "parameter memoryMiB: GB would be a little less"),
        (("--set", "colour=3GiB"), 8, "parameter colour: unknown"),
        (("--cpus", "2", "--if-version", "7"), 4, "it is at version 1"),
    ],
)
def test_sizes_that_cannot_be(web, arguments, code, words):
    result = web("vm", "resize", "web", *arguments)
    assert (result.code, result.out) == (code, "")
    assert words in result.err
    assert vm(web)["version"] == 1


# --- machine types


def test_a_vm_is_told_of_a_newer_version_of_its_type_and_moves_to_it(web):
    assert "newer" not in web("vm", "show", "web").out
    assert web("type", "set", "tiny", "spec.description=other", "-q").code == 0
    shown = details(web)
    assert "type tiny, version 1" in shown
    assert "newer type version 2 exists: kc vm set web --type tiny" in shown
    dry = web("vm", "set", "web", "--type", "tiny", "--dry-run")
    assert dry.out.splitlines()[0] == "~ spec.type.version: 1 → 2"
    assert web("vm", "set", "web", "--type", "tiny", "-q").code == 0
    assert vm(web)["spec"]["type"]["version"] == 2
    assert "newer" not in web("vm", "show", "web").out
    assert web("vm", "set", "web", "--type", "tiny").err == "kc: VM web is so already, at version 2\n"


def test_a_vm_moves_to_another_type_with_other_changes(web):
    web("vm", "stop", "web", "-q")
    disk = web("vm", "set", "web", "--type", "small", "--meta", "tier=2", "-o", "json")
    assert disk.code == 0, disk.err
    document = disk.json()
    assert (document["spec"]["type"]["name"], document["metadata"]) == ("small", {"tenant": "acme", "tier": 2})
    assert document["status"]["hardware"]["memoryMiB"] == 2048
    several = web("vm", "set", "-l", "tenant=acme", "--type", "medium", "-o", "name")
    assert several.out == "web\n"


def test_a_type_that_is_not_there_or_does_not_fit_moves_nothing(web):
    assert web("vm", "set", "web", "--type", "nope").code == 3
    assert web("vm", "set", "web", "--type", "arm-tiny").code == 8
    assert web("vm", "set", "--type", "tiny").code == 2
    assert web("network", "set", "default", "--type", "tiny").code == 2
    assert vm(web)["version"] == 1


# --- adopting


def add_foreign(kept, name="old", power="running", untouched=("a sound card",)):
    uid = str(uuid.uuid4())
    nic = FoundNic("52:54:00:00:00:07", "network", "kc-default", "virtio")
    found = FoundDomain(
        uid, name, DomainOwner(), power, "x86_64", "bios", 2, 1024, "by hand", autostart=True, nics=(nic,),
        disks=("/pool/old.qcow2",), untouched=untouched,
    )  # fmt: skip
    kept.hypervisor.domains[uid] = MemoryDomain(uid, name, None, power, found=found)
    return uid


def test_an_adoption_is_shown_before_it_is_asked_for(kept):
    add_foreign(kept)
    result = kept("vm", "adopt", "old")
    assert (result.code, result.out) == (2, "")
    lines = result.err.splitlines()
    assert lines[0] == "VM old would be managed by KC:"
    assert "+ 2 CPUs, 1024 MiB of memory" in lines
    assert lines[lines.index("what stays as it is:") + 1] == "  a sound card"
    assert lines[-1] == "kc: kc vm adopt: it asks first, and here is no terminal. add --yes to mean it"
    assert kept.service.list_documents("VM").items[0]["status"]["foreign"]


class Person(io.StringIO):
    """Somebody at a terminal, with an answer."""

    def isatty(self):
        return True


def test_a_person_sees_what_an_adoption_means_and_may_leave_it(kept, monkeypatch):
    add_foreign(kept)
    monkeypatch.setattr("sys.stdin", Person("n\n"))
    refused = kept("vm", "adopt", "old", "-q", "-o", "name")
    assert (refused.code, refused.out) == (1, "")
    assert "VM old would be managed by KC:\n" in refused.err
    assert "Adopt it as VM old? [Y/n]" in refused.err
    monkeypatch.setattr("sys.stdin", Person("\n"))
    assert kept("vm", "adopt", "old", "--name", "web", "-o", "name").out == "web\n"


def test_a_dry_run_of_an_adoption_shows_it_alone(kept):
    uid = add_foreign(kept)
    shown = kept("vm", "adopt", "old", "--dry-run")
    assert (shown.code, shown.err) == (0, "")
    assert shown.out.splitlines()[0] == "VM old would be managed by KC:"
    told = kept("vm", "adopt", uid, "--name", "web", "--meta", "tenant=acme", "--dry-run", "-o", "json").json()
    assert (told["document"]["name"], told["document"]["metadata"]) == ("web", {"tenant": "acme"})
    assert told["untouched"] == ["a sound card"]
    assert kept("vm", "adopt", "old", "--dry-run", "-o", "name").out == "old\n"
    assert kept.service.list_documents("MachineType", selector="name~adopted-*").items == []


def test_an_adopted_vm_is_a_vm_without_an_image(kept):
    uid = add_foreign(kept)
    assert kept("__complete", "vm:foreign").out == "old\n"
    result = kept("vm", "adopt", "old", "--meta", "tenant=acme", "--yes", "-o", "json")
    assert result.code == 0, result.err
    document = result.json()
    assert (document["uid"], document["spec"]["image"], document["spec"]["adopted"]) == (uid, None, True)
    assert document["metadata"] == {"tenant": "acme"}
    row = kept("vm", "list").out.splitlines()[1]
    assert row.startswith("old   running")
    assert row.endswith("–")
    shown = kept("vm", "show", "old").out
    assert "somebody else made the domain; its disks and devices are not KC's" in shown
    assert "image" not in shown
    assert kept("vm", "disk", "list", "old", "-o", "json").json() == {"items": []}
    assert kept("vm", "disk", "list", "old").err == "kc: VM old has no disk that KC knows of\n"
    assert kept("__complete", "vm:disks", "old").out == ""
    assert kept("__complete", "vm:foreign").out == ""
    assert kept("vm", "resize", "old", "--cpus", "3", "-q").code == 0
    assert kept("vm", "disk", "grow", "old", "root", "--size", "9").code == 3
    assert kept("vm", "list", "-o", "yaml").code == 0
    again = kept("vm", "adopt", "old", "--yes")
    assert again.code == 4


def test_an_adopted_vm_is_applied_as_it_is_shown(kept, tmp_path):
    add_foreign(kept)
    kept("vm", "adopt", "old", "--yes")
    path = tmp_path / "old.json"
    path.write_text(kept("vm", "show", "old", "-o", "json").out)
    assert kept("apply", "-f", str(path)).out == "vm old: unchanged\n"


def test_the_way_back_of_an_adoption_is_told(kept):
    add_foreign(kept)
    result = kept("vm", "adopt", "old", "--yes")
    assert result.err.startswith("VM old would be managed by KC:\n")
    assert result.err.endswith("kc: VM old is managed by KC; kc vm delete old leaves the domain to libvirt again\n")
    assert kept("vm", "adopt", "old", "--yes", "-q", "-o", "name").code == 4


def test_a_hostile_domain_is_shown_without_its_tricks(kept):
    uid = add_foreign(kept, HOSTILE, untouched=(f"device {HOSTILE}",))
    for result in (kept("vm", "adopt", uid, "--dry-run"), kept("vm", "adopt", HOSTILE, "--dry-run")):
        assert "\x1b" not in result.out + result.err
        assert "\u202e" not in result.out + result.err
    assert kept("__complete", "vm:foreign").out == ""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [((), 2), (("old", "x"), 2), (("gone", "--dry-run"), 3), (("old", "--name", "web", "--dry-run"), 4)],
)
def test_adoptions_that_cannot_be(web, arguments, code):
    add_foreign(web)
    result = web("vm", "adopt", *arguments)
    assert (result.code, result.out) == (code, "")


# --- drift


def test_what_somebody_else_changed_is_shown_and_mended(web):
    web.hypervisor.tamper(vm(web)["uid"], memory_mib=768, description="mine now\x1b[2J")
    shown = details(web)
    assert "changed spec.description: → mine now\ufffd[2J" in shown
    assert any(line.startswith("changed spec.parameters.memoryMiB: 512 MiB") for line in shown)
    assert "mend somebody else changed it; kc vm reconcile web" in shown
    result = web("vm", "reconcile", "web")
    assert result.code == 0, result.err
    lines = result.err.splitlines()
    assert lines[0] == "kc: VM web: somebody else changed it; mended is"
    assert "~ spec.description: mine now\ufffd[2J → " in lines
    assert any(line.startswith("~ spec.parameters.memoryMiB: 768 MiB") for line in lines)
    assert "\x1b" not in result.err
    assert web.hypervisor.domains[vm(web)["uid"]].plan.memory_mib == 512
    again = web("vm", "reconcile", "web")
    assert again.err == "kc: VM web is as its document says; there is nothing to mend\n"
    assert again.code == 0


def test_several_are_mended_and_summed_up(web):
    web.add_vm("db", metadata={"tenant": "acme"})
    web.hypervisor.tamper(vm(web, "db")["uid"], cpus=2)
    result = web("vm", "reconcile", "-l", "tenant=acme", "-o", "json")
    assert [item["name"] for item in result.json()["items"]] == ["db", "web"]
    assert "somebody else" not in result.err
    assert result.err.endswith("kc: 1 of 2 VMs had something to mend\n")
    missing = web("vm", "reconcile", "gone", "db")
    assert missing.code == 3
    assert "kc: VM db is as its document says; there is nothing to mend\n" in missing.err
    assert web("vm", "reconcile").code == 2


def test_a_host_that_does_not_answer_is_no_drift(web):
    from backend.errors import UnreachableError

    web.hypervisor.fail = fail_with(UnreachableError("host", "it does not answer"), "observe", "differences")
    result = web("vm", "reconcile", "web")
    assert result.code == 6
    assert "mended" not in result.err
