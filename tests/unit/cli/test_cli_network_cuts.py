"""Changes of networks on a whole KC in memory: what leaves running VMs without a line asks first; NICs; reconcile."""

from __future__ import annotations

import io
import json

import pytest

CUT = ("spec.mtu=1400",)


class Answering(io.StringIO):
    """Somebody at a terminal, who types this."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def lab(kept, monkeypatch):
    """A network at version 2 of which every change cuts the VMs web and db off."""
    assert kept("network", "create", "lab", "--uplink", "isolated", "--ipv4", "10.9.0.0/24", "-q").code == 0
    assert kept("network", "set", "lab", "spec.description=first", "-q").code == 0
    monkeypatch.setattr(kept.hypervisor, "would_cut", lambda _plan: ("web", "db"), raising=False)
    return kept


def version(kept) -> int:
    return kept.service.get("Network", "lab", observe=False)["version"]


def write(tmp_path, kept, **spec) -> str:
    """Return a file with the network's document, changed."""
    document = kept.service.get("Network", "lab", observe=False)
    path = tmp_path / "lab.json"
    path.write_text(json.dumps({"kind": "Network", "name": "lab", "spec": {**document["spec"], **spec}}))
    return str(path)


def editor(monkeypatch) -> None:
    monkeypatch.setenv("EDITOR", "sed -i s/first/second/")
    monkeypatch.delenv("VISUAL", raising=False)


def commands(tmp_path, kept):
    return {
        "set": ("network", "set", "lab", *CUT),
        "edit": ("network", "edit", "lab"),
        "apply": ("apply", "-f", write(tmp_path, kept, mtu=1400)),
        "rollback": ("network", "rollback", "lab", "--to", "1"),
        "undo": ("network", "undo", "lab"),
    }


VERBS = ("set", "edit", "apply", "rollback", "undo")


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("output", ["table", "json"])
def test_without_a_terminal_and_without_yes_nobody_is_cut_off(lab, tmp_path, monkeypatch, verb, output):
    editor(monkeypatch)
    result = lab(*commands(tmp_path, lab)[verb], "-o", output)
    assert (result.code, result.out) == (2, "")
    assert "cuts VMs web and db off for a moment, and here is no terminal to ask on" in result.err
    assert "add --yes to mean it" in result.err
    assert version(lab) == 2


@pytest.mark.parametrize("verb", VERBS)
def test_with_yes_it_goes_on(lab, tmp_path, monkeypatch, verb):
    editor(monkeypatch)
    result = lab(*commands(tmp_path, lab)[verb], "--yes", "-o", "json")
    assert result.code == 0, result.err
    assert json.loads(result.out)
    assert version(lab) == 3


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("answer", ["yes\n", "\n", ""])
def test_on_a_terminal_it_shows_the_change_and_asks(lab, tmp_path, monkeypatch, verb, answer):
    editor(monkeypatch)
    monkeypatch.setattr("sys.stdin", Answering(answer))
    result = lab(*commands(tmp_path, lab)[verb])
    agreed = answer.startswith("y")
    assert "~ spec." in result.err or "+ spec." in result.err
    assert "It cuts VMs web and db off for a moment. " in result.err
    assert "? [y/N]" in result.err
    assert (result.code, version(lab)) == ((0, 3) if agreed else (1, 2)), result.err
    if not agreed:
        assert "not confirmed. nothing was changed" in result.err


def test_a_text_that_was_not_agreed_to_is_kept(lab, monkeypatch):
    editor(monkeypatch)
    monkeypatch.setattr("sys.stdin", Answering("n\n"))
    result = lab("network", "edit", "lab")
    assert "your text is kept: kc network edit lab --from " in result.err
    kept = result.err.rpartition("--from ")[2].strip()
    monkeypatch.setenv("EDITOR", "true")
    monkeypatch.setattr("sys.stdin", None)
    assert lab("network", "edit", "lab", "--from", kept, "--yes").code == 0
    assert lab.service.get("Network", "lab", observe=False)["spec"]["description"] == "second"


@pytest.mark.parametrize("verb", VERBS)
def test_what_cuts_nobody_off_asks_nothing_more(lab, tmp_path, monkeypatch, verb):
    editor(monkeypatch)
    monkeypatch.setattr(lab.hypervisor, "would_cut", lambda _plan: (), raising=False)
    result = lab(*commands(tmp_path, lab)[verb])
    assert result.code == 0, result.err
    assert version(lab) == 3


def test_a_dry_run_says_whom_it_would_cut_off_and_asks_nothing(lab, tmp_path):
    shown = lab("network", "set", "lab", *CUT, "--dry-run")
    assert shown.code == 0
    assert "VM web, db is without a line for a moment" in shown.out
    assert lab("network", "set", "lab", *CUT, "--dry-run", "-o", "json").json()["cuts"] == ["web", "db"]
    path = write(tmp_path, lab, mtu=1400)
    (item,) = lab("apply", "-f", path, "--dry-run", "-o", "json").json()["items"]
    assert item["cuts"] == ["web", "db"]
    assert version(lab) == 2


def test_each_of_several_is_asked_about(lab, monkeypatch):
    assert lab("network", "create", "dmz", "--uplink", "isolated", "--ipv4", "10.8.0.0/24", "-q").code == 0
    monkeypatch.setattr("sys.stdin", Answering("n\ny\n"))
    result = lab("network", "set", "-l", "spec.uplink=isolated", *CUT)
    assert result.err.count("[y/N]") == 2
    assert result.code == 1
    assert "1 of 2 networks changed" in result.err


def test_other_kinds_are_not_asked_about(lab):
    assert "--yes" not in lab("vm", "set", "--help").out
    assert "--yes" in lab("network", "set", "--help").out


# --- what else speaks to a whole KC


def test_a_network_made_from_flags_is_listed_shown_drawn_and_mended(kept):
    made = kept("network", "create", "lab", "--uplink", "isolated", "--ipv4", "10.9.0.0/24", "-o", "json")
    assert made.code == 0, made.err
    assert made.json()["spec"]["ipv4"]["mode"] == "dhcp"
    assert [row.split()[0] for row in kept("network", "list").out.splitlines()] == ["NAME", "default", "lab"]
    assert "gateway" in kept("network", "show", "lab").out
    assert "gateway host  .1" in kept("network", "topology").out
    mended = kept("network", "reconcile", "lab", "default", "-o", "json")
    assert mended.code == 0, mended.err
    assert [item["name"] for item in mended.json()["items"]] == ["lab", "default"]
    assert kept("network", "reconcile", "gone").code == 3
    assert kept("network", "reconcile").code == 2


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--ipv4", "10.9.0.1/24"), "spec.ipv4.subnet"),
        (("--ipv6", "fd00::/65", "--ipv6-mode", "slaac"), "spec.ipv6.subnet: SLAAC needs a /64"),
        (("--ipv4", "10.9.0.0/24", "--gateway", "10.8.0.1"), "spec.gateway: 10.8.0.1 is not in 10.9.0.0/24"),
        (("--ipv4", "10.9.0.0/24", "--range", "10.8.0.1-10.8.0.9"), "spec.ipv4.ranges.0.start: 10.8.0.1 is not in"),
        (("--vxlan", "vni=0,local=192.0.2.1,peer=192.0.2.2"), "spec.vxlan.vni"),
        (("--vxlan", "vni=16777216,local=192.0.2.1,peer=192.0.2.2"), "spec.vxlan.vni"),
        (("--ipv6", "fd00::/64", "--mtu", "1279"), "spec.mtu: IPv6 needs 1280 at least"),
        (("--lease", "1", "--ipv4", "10.9.0.0/24"), "spec.ipv4.leaseSeconds"),
        (("--rate-send", "1", "--ipv4", "10.9.0.0/24"), "spec.rateLimit.sendBytesPerSecond"),
        (("--ipv4", "192.168.150.0/25"), "192.168.150.0/24"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_its_path_and_reason(kept, arguments, told):
    result = kept("network", "create", "lab", *arguments)
    assert (result.out, len(result.err.splitlines())) == ("", 1)
    assert result.code in (4, 8)
    assert told in result.err
    assert kept("network", "show", "lab").code == 3


@pytest.fixture
def web(kept):
    kept.add_vm("web")
    return kept


def nic(kept) -> dict:
    (found,) = kept.service.get("VM", "web", observe=False)["spec"]["nics"]
    return found


def test_one_nic_is_changed_and_what_is_not_named_stays(web):
    mac = nic(web)["mac"]
    result = web("vm", "nic", "set", "web", "nic0", "antispoof=mac", "rate-send=10MB", "--message", "calm", "-q")
    assert result.code == 0, result.err
    assert nic(web)["guard"] == {
        "antiSpoof": "mac", "dhcpGuard": "network", "raGuard": "network", "isolated": "network",
    }  # fmt: skip
    assert nic(web)["rateLimit"]["sendBytesPerSecond"] == 10_000_000
    assert (nic(web)["mac"], nic(web)["ipv4"]["mode"]) == (mac, "network")
    assert web("vm", "nic", "set", "web", mac, "isolated=yes,rate=network", "-q").code == 0
    assert (nic(web)["guard"]["antiSpoof"], nic(web)["guard"]["isolated"], nic(web)["rateLimit"]) == ("mac", "on", None)
    assert web("vm", "nic", "set", "web", "nic0", "reserve=192.168.150.9/24", "-q").code == 0
    assert nic(web)["ipv4"] == {"mode": "dhcp", "address": "192.168.150.9/24"}
    shown = web("vm", "show", "web")
    assert "isolated" in shown.out
    assert "dhcp 192.168.150.9/24" in shown.out
    dry = web("vm", "nic", "set", "web", "nic0", "ipv4=network", "--dry-run", "-o", "json").json()
    assert {change["path"] for change in dry["changes"]} == {"/spec/nics/0/ipv4/address", "/spec/nics/0/ipv4/mode"}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), 2), (("nic0",), 2), (("nic0", "speed=9"), 2), (("nic0", "antispoof=much"), 2),
        (("nic0", "rate-send=1Mb"), 2), (("nic9", "isolated=yes"), 3), (("nic0", "ipv4=10.1.1.1/24"), 8),
        (("nic0", "isolated=yes", "--if-version", "9"), 4),
    ],
)  # fmt: skip
def test_a_nic_is_not_changed_into_what_cannot_be(web, arguments, code):
    result = web("vm", "nic", "set", "web", *arguments)
    assert (result.code, result.out) == (code, "")
    assert len(result.err.splitlines()) == 1
    assert web.service.get("VM", "web", observe=False)["version"] == 1
