"""Domains that somebody else made: what KC says of them, and that it changes what it says and nothing else."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, canonicalize, fromstring, tostring

import pytest
from hosts import PrivateHost

from backend.errors import ConflictError, NotFoundError, RefusedError
from backend.hypervisor.plan import DomainOwner, DomainPlan, FoundDomain, FoundNic, NicPlan
from backend.hypervisor.protocol import Hypervisor
from backend.network.plan import NetworkPlan

pytestmark = pytest.mark.libvirt

LABEL = "{urn:kc:1}vm"
MACS = tuple(f"52:54:00:77:60:{number:02x}" for number in range(8))
# As somebody may have made it over the years, with everything that KC knows nothing of.
ODD = """
<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>{name}</name><uuid>{uid}</uuid><title>The old mail</title>
  <description>two lines
here</description>
  <metadata>
    <libosinfo:libosinfo xmlns:libosinfo="http://libosinfo.org/xmlns/libvirt/domain/1.0">
      <libosinfo:os id="http://debian.org/debian/9"/>
    </libosinfo:libosinfo>
    <b:backup xmlns:b="urn:backup" when="daily &amp; &lt;nightly&gt;"><!-- kept --><b:to>tape</b:to></b:backup>
  </metadata>
  <memory unit='KiB'>131072</memory><currentMemory unit='KiB'>131072</currentMemory>
  <memoryBacking><nosharepages/></memoryBacking>
  <vcpu placement='static' cpuset='0-1'>2</vcpu>
  <iothreads>1</iothreads>
  <cputune><shares>512</shares></cputune>
  <sysinfo type='smbios'><system><entry name='serial'>S-1</entry></system></sysinfo>
  <os firmware='efi'><type arch='x86_64' machine='q35'>hvm</type><smbios mode='sysinfo'/></os>
  <features><acpi/><apic/><hyperv mode='custom'><relaxed state='on'/></hyperv></features>
  <cpu mode='custom' match='exact' check='none'><model fallback='allow'>qemu64</model></cpu>
  <clock offset='localtime'/>
  <on_poweroff>destroy</on_poweroff><on_reboot>destroy</on_reboot><on_crash>coredump-destroy</on_crash>
  <devices>
    <disk type='file' device='disk'><driver name='qemu' type='raw' cache='unsafe'/>
      <source file='/elsewhere/mail.img'/><target dev='sda' bus='sata'/></disk>
    <disk type='network' device='disk'><driver name='qemu' type='raw'/>
      <source protocol='nbd' name='export'><host name='127.0.0.1' port='10809'/></source>
      <target dev='vdb' bus='virtio'/></disk>
    <disk type='file' device='cdrom'><target dev='sdc' bus='sata'/><readonly/></disk>
    <controller type='usb' model='qemu-xhci'/>
    <interface type='network'><mac address='{macs[0]}'/><source network='{network}'/><model type='e1000e'/>
      <bandwidth><inbound average='1000'/></bandwidth></interface>
    <interface type='bridge'><mac address='{macs[1]}'/><source bridge='brold'/><model type='virtio'/></interface>
    <interface type='user'><mac address='{macs[2]}'/><model type='virtio'/></interface>
    <serial type='pty'/><serial type='file'><source path='/tmp/second.log'/></serial><console type='pty'/>
    <channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0'/></channel>
    <input type='tablet' bus='usb'/>
    <graphics type='spice' port='5907' autoport='no' listen='127.0.0.1'/>
    <video><model type='qxl'/></video><sound model='ich9'/>
    <filesystem type='mount'><source dir='/srv/shared'/><target dir='shared'/></filesystem>
    <hostdev mode='subsystem' type='usb'><source><vendor id='0x1234'/><product id='0xabcd'/></source></hostdev>
    <hostdev mode='subsystem' type='pci' managed='yes'>
      <source><address domain='0x0000' bus='0x3b' slot='0x00' function='0x1'/></source></hostdev>
    <watchdog model='i6300esb' action='reset'/>
    <tpm model='tpm-tis'><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>
    <vsock model='virtio'><cid auto='yes'/></vsock>
    <memballoon model='virtio'/>
  </devices>
  <qemu:commandline><qemu:arg value='-name'/><qemu:arg value='odd,debug-threads=on'/></qemu:commandline>
</domain>
"""
PLAIN = """
<domain type='qemu'><name>{name}</name><uuid>{uid}</uuid><memory unit='MiB'>32</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os>{more}</domain>
"""


class Foreign:
    """Domains of another tool's."""

    def __init__(self, host: PrivateHost, folder: Path) -> None:
        self.host = host
        self._file = folder / "foreign.xml"
        self.uids: list[str] = []

    def define(self, xml: str, *, command: str = "define", **words: Any) -> str:
        uid = str(uuid.uuid4())
        self.uids.append(uid)
        self._file.write_text(xml.strip().format(uid=uid, **{"name": f"odd-{uid[:6]}", "more": ""} | words))
        self.host.virsh(command, str(self._file))
        return uid

    def clear(self) -> None:
        for uid in set(self.host.virsh("list", "--uuid").split()).intersection(self.uids):
            self.host.virsh("destroy", uid)
        for uid in set(self.host.virsh("list", "--all", "--uuid").split()).intersection(self.uids):
            self.host.virsh("undefine", "--nvram", uid)

    def look(self, uid: str) -> Element:
        return fromstring(self.host.virsh("dumpxml", "--inactive", uid))


@pytest.fixture
def foreign(private_host: PrivateHost, tmp_path: Path) -> Iterator[Foreign]:
    made = Foreign(private_host, tmp_path)
    yield made
    made.clear()


@pytest.fixture
def odd(foreign: Foreign, network: NetworkPlan) -> Iterator[str]:
    """The uuid of a domain with everything that KC knows nothing of."""
    yield foreign.define(ODD, macs=MACS, network=network.name)
    foreign.clear()


def plan_of(found: FoundDomain, **changes: Any) -> DomainPlan:
    """Return the plan by which everything stays as it is."""
    nics = tuple(
        NicPlan(f"nic{index}", nic.mac, **{nic.kind: nic.source}) for index, nic in enumerate(found.nics)
    )  # fmt: skip
    return DomainPlan(
        uid=found.uid, name=found.name, version=1, owner="owner", owner_label="tests", metadata='{"a":1}',
        arch=found.arch, cpus=found.cpus, memory_mib=found.memory_mib, firmware=found.firmware, accelerator="qemu",
        disks=(), nics=nics, seed="", console_log="", description=found.description.replace("\n", "\ufffd"),
        autostart=found.autostart, adopted=True,
    )._replace(**changes)  # fmt: skip


def find(hypervisor: Hypervisor, name: str) -> FoundDomain:
    found = hypervisor.find_adoptable(name)
    assert found is not None
    return found


def strip(root: Element, *paths: str) -> str:
    """Return a document without what is found at some paths, in a form that can be compared letter by letter."""
    for path in paths:
        parent, _, tag = path.rpartition("/")
        for holder in root.findall(parent or "."):
            for item in holder.findall(tag):
                holder.remove(item)
    return canonicalize(tostring(root, encoding="unicode"), with_comments=True, strip_text=True)


def controllers(root: Element) -> set[str]:
    return {strip(item) for item in root.findall("devices/controller")}


# --- what it is
def test_a_domain_is_told_with_everything_that_kc_would_not_manage(
    hypervisor: Hypervisor, network: NetworkPlan, odd: str
) -> None:
    found = find(hypervisor, odd)
    assert found == find(hypervisor, found.name)
    assert (found.uid, found.owner, found.power, found.arch, found.firmware) == (
        odd, DomainOwner(), "stopped", "x86_64", "uefi",
    )  # fmt: skip
    assert (found.cpus, found.memory_mib, found.autostart, found.description) == (2, 128, False, "two lines\nhere")
    assert found.nics == (
        FoundNic(MACS[0], "network", network.name, "e1000e"), FoundNic(MACS[1], "bridge", "brold", "virtio"),
    )  # fmt: skip
    assert found.disks == ("/elsewhere/mail.img",)
    lines = "\n".join(found.untouched)
    for words in (
        "firmware: UEFI", "machine: pc-q35", "disk sda: /elsewhere/mail.img", "disk vdb: nbd:export",
        "CD-ROM drive sdc: empty", f"NIC {MACS[2]}, of the kind user", "further serial port: file",
        "channel: spicevmc com.redhat.spice.0", "input: tablet usb", "screen: spice 127.0.0.1 port 5907", "video: qxl",
        "sound: ich9", "shared folder shared: /srv/shared", "device of the host: usb 0x1234:0xabcd",
        "device of the host: pci 0x0000:0x3b:0x00:0x1", "watchdog: i6300esb reset", "TPM: passthrough", "vsock",
        "commandline of http://libvirt.org/schemas/domain/qemu/1.0: -name odd,debug-threads=on",
        "metadata of http://libosinfo.org/xmlns/libvirt/domain/1.0", "metadata of urn:backup", "title", "SMBIOS texts",
        "CPU placement and limits", "memory backing", "I/O threads", "crash policy", "controllers: ", "1 × usb",
    ):  # fmt: skip
        assert words in lines, f"{words!r} is not in {lines}"
    assert "not known" not in lines
    assert network.name not in lines


def test_what_is_hostile_in_it_is_made_safe(hypervisor: Hypervisor, foreign: Foreign) -> None:
    more = "<description>a&#155;31m&#8238;b</description><metadata><x:y xmlns:x='urn:\u202e\u009b1m'/></metadata>"
    found = find(hypervisor, foreign.define(PLAIN, more=more))
    assert found.description == "a\ufffd31m\ufffdb"
    assert any("urn:\ufffd\ufffd1m" in line for line in found.untouched)


def test_what_is_not_there_is_not_found(hypervisor: Hypervisor) -> None:
    assert hypervisor.find_adoptable("no-such-domain") is None
    assert hypervisor.find_adoptable(str(uuid.uuid4())) is None


# --- the label
def test_adoption_labels_a_domain_and_changes_nothing(hypervisor: Hypervisor, foreign: Foreign, odd: str) -> None:
    before = strip(foreign.look(odd))
    plan = plan_of(find(hypervisor, odd))
    for _ in range(2):
        hypervisor.adopt(odd, plan)
        assert hypervisor.owner_of(odd) == DomainOwner("owner", "tests", 1)
        assert strip(foreign.look(odd), f"metadata/{LABEL}") == before
    assert hypervisor.differences(plan) == ()
    with pytest.raises(ConflictError, match="belongs to tests"):
        hypervisor.adopt(odd, plan._replace(owner="owner-2"))
    with pytest.raises(ConflictError, match="belongs to tests"):
        hypervisor.disown(odd, "owner-2")
    for _ in range(2):
        hypervisor.disown(odd, "owner")
        assert hypervisor.owner_of(odd) == DomainOwner()
        assert strip(foreign.look(odd)) == before
    hypervisor.disown(str(uuid.uuid4()), "owner")


def test_a_domain_that_is_on_is_labelled_for_now_and_for_later(
    hypervisor: Hypervisor, foreign: Foreign, private_host: PrivateHost
) -> None:
    uid = foreign.define(PLAIN)
    private_host.virsh("start", uid)
    found = find(hypervisor, uid)
    assert found.power == "running"
    plan = plan_of(found)
    hypervisor.adopt(uid, plan)
    for options in ((), ("--inactive",)):
        assert LABEL in {item.tag for item in fromstring(private_host.virsh("dumpxml", uid, *options)).iter()}
    more = plan._replace(memory_mib=48, name=f"{plan.name}-new")
    hypervisor.ensure_defined(more)
    assert hypervisor.differences(more) == ()
    assert find(hypervisor, uid).name == plan.name
    hypervisor.disown(uid, "owner")
    for options in ((), ("--inactive",)):
        assert "urn:kc:1" not in private_host.virsh("dumpxml", uid, *options)


def test_a_transient_domain_is_told_as_such_and_refused(hypervisor: Hypervisor, foreign: Foreign) -> None:
    uid = foreign.define(PLAIN, command="create")
    found = find(hypervisor, uid)
    assert "not persistent" in found.untouched[0]
    with pytest.raises(RefusedError, match="not persistent") as caught:
        hypervisor.adopt(uid, plan_of(found))
    assert "virsh define" in caught.value.hint
    assert hypervisor.owner_of(uid) == DomainOwner()


# --- what KC changes of it
def test_what_stays_as_it_is_is_not_written_at_all(hypervisor: Hypervisor, foreign: Foreign, odd: str) -> None:
    before = strip(foreign.look(odd))
    plan = plan_of(find(hypervisor, odd))
    hypervisor.adopt(odd, plan)
    hypervisor.ensure_defined(plan)
    assert strip(foreign.look(odd), f"metadata/{LABEL}") == before


def test_only_what_a_plan_names_is_changed(
    hypervisor: Hypervisor, foreign: Foreign, private_host: PrivateHost, odd: str, network: NetworkPlan
) -> None:
    changed = ("name", "description", f"metadata/{LABEL}", "memory", "currentMemory", "vcpu", "devices/interface")
    before = foreign.look(odd)
    first, user = before.findall("devices/interface")[0], before.findall("devices/interface")[2]
    plan = plan_of(find(hypervisor, odd))
    hypervisor.adopt(odd, plan)
    moved = NicPlan("nic1", MACS[1], network=network.name)
    wanted = plan._replace(
        name=f"{plan.name}-new", description="mine", memory_mib=96, cpus=3, version=2, autostart=True,
        nics=(plan.nics[0], moved, NicPlan("more", MACS[3], network=network.name)),
    )  # fmt: skip
    assert hypervisor.differences(wanted) != ()
    for _ in range(2):
        hypervisor.ensure_defined(wanted)
        assert hypervisor.differences(wanted) == ()
    after = foreign.look(odd)
    assert (after.findtext("name"), after.findtext("description")) == (wanted.name, "mine")
    assert (after.findtext("memory"), after.findtext("currentMemory")) == (str(96 << 10), str(96 << 10))
    assert (after.findtext("vcpu"), after.find("vcpu").get("cpuset")) == ("3", "0-1")  # type: ignore[union-attr]
    found = {item.find("mac").get("address"): item for item in after.findall("devices/interface")}  # type: ignore[union-attr]
    assert strip(found[MACS[0]]) == strip(first)
    assert strip(found[MACS[2]]) == strip(user)
    assert found[MACS[1]].find("source").get("network") == network.name  # type: ignore[union-attr]
    assert found[MACS[1]].find("model").get("type") == "virtio"  # type: ignore[union-attr]
    assert set(found) == set(MACS[:4])
    assert odd in private_host.virsh("list", "--all", "--autostart", "--uuid").split()
    # For a new NIC libvirt adds a port and sorts its controllers; all else is the same, letter by letter.
    assert controllers(after) >= controllers(before)
    assert strip(after, *changed, "devices/controller") == strip(before, *changed, "devices/controller")
    fewer = wanted._replace(nics=(moved,), autostart=False)
    hypervisor.ensure_defined(fewer)
    assert hypervisor.differences(fewer) == ()
    left = {item.get("address") for item in foreign.look(odd).findall("devices/interface/mac")}
    assert left == {MACS[1], MACS[2]}


def test_headroom_that_it_has_is_kept(hypervisor: Hypervisor, foreign: Foreign) -> None:
    uid = foreign.define(
        PLAIN.replace("<memory unit='MiB'>32</memory><vcpu>1</vcpu>",
                      "<memory unit='MiB'>128</memory><currentMemory unit='MiB'>64</currentMemory>"
                      "<vcpu current='2'>4</vcpu>"),
    )  # fmt: skip
    plan = plan_of(find(hypervisor, uid))
    assert (plan.cpus, plan.memory_mib) == (2, 64)
    hypervisor.adopt(uid, plan)
    for cpus, memory in ((3, 96), (1, 32)):
        wanted = plan._replace(cpus=cpus, memory_mib=memory)
        hypervisor.ensure_defined(wanted)
        assert hypervisor.differences(wanted) == ()
        root = foreign.look(uid)
        assert (root.findtext("vcpu"), root.findtext("memory")) == ("4", str(128 << 10))
    larger = plan._replace(cpus=6, memory_mib=256)
    hypervisor.ensure_defined(larger)
    assert hypervisor.differences(larger) == ()


@pytest.mark.parametrize(
    ("more", "changes", "why"),
    [
        ("<cpu mode='custom'><model>qemu64</model><topology sockets='1' cores='1' threads='1'/></cpu>",
         {"cpus": 2}, "sockets"),
        ("<cpu mode='custom'><model>qemu64</model><numa><cell id='0' cpus='0' memory='32' unit='MiB'/></numa></cpu>",
         {"memory_mib": 64}, "NUMA"),
    ],
    ids=["topology", "numa"],
)  # fmt: skip
def test_what_would_change_more_than_a_number_is_refused(
    hypervisor: Hypervisor, foreign: Foreign, more: str, changes: dict[str, int], why: str
) -> None:
    plan = plan_of(find(hypervisor, foreign.define(PLAIN, more=more)))
    hypervisor.adopt(plan.uid, plan)
    hypervisor.ensure_defined(plan)
    with pytest.raises(RefusedError, match=why) as caught:
        hypervisor.ensure_defined(plan._replace(**changes))
    assert "virsh edit" in caught.value.hint
    assert hypervisor.differences(plan) == ()


def test_a_domain_that_is_not_labelled_or_gone_is_not_made(
    hypervisor: Hypervisor, foreign: Foreign, private_host: PrivateHost
) -> None:
    uid = foreign.define(PLAIN)
    plan = plan_of(find(hypervisor, uid))
    with pytest.raises(ConflictError, match="made by no KC"):
        hypervisor.ensure_defined(plan)
    private_host.virsh("undefine", uid)
    with pytest.raises(NotFoundError, match="cannot make it anew"):
        hypervisor.ensure_defined(plan)
    with pytest.raises(NotFoundError):
        hypervisor.adopt(uid, plan)
    assert hypervisor.observe(uid) is None


def test_a_name_that_is_taken_stays_with_who_has_it(hypervisor: Hypervisor, foreign: Foreign) -> None:
    uid, other = foreign.define(PLAIN), foreign.define(PLAIN)
    plan = plan_of(find(hypervisor, uid))
    hypervisor.adopt(uid, plan)
    with pytest.raises(ConflictError, match="taken"):
        hypervisor.ensure_defined(plan._replace(name=find(hypervisor, other).name))
    assert re.fullmatch(r"odd-[0-9a-f]{6}", find(hypervisor, uid).name)
