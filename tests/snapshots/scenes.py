"""The scenes that the snapshot tests compare and that `screenshots/` shows: one function a scene."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.app import make_app, press, running, settle, until
from support.told_networks import Told, tell
from support.world import CREATE, NOW, Lab, make_samples, make_steps, standing_at, uid_of
from textual.pilot import Pilot

from backend.errors import FailedError
from kc_tui.application import KCApp
from kc_tui.screens.console import ConsoleScreen
from kc_tui.screens.vms import VMsScreen
from kc_tui.state.remembered import Remembered
from snapshots import life, segments

SMALL = (80, 24)
LARGE = (140, 40)
_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG3rXmUc0tJ2hB0c7V5sZk1q4r8w2yT9nE6fLx3aPdOu ada@laptop"
_BOOT = b"""\
SeaBIOS (version 1.16.2-debian-1.16.2-1)\r
\x1b[1mKC starter\x1b[0m 12.9, Linux 6.1.0-41-cloud-amd64 on ttyS0\r
\r
[    0.412330] virtio_net virtio0 eth0: link becomes ready\r
[    0.418914] \x1b[32mok\x1b[0m  seed: host name web-1, 1 SSH key\r
[    1.002117] \x1b[32mok\x1b[0m  eth0: 10.0.0.17/24 by DHCP\r
[    1.101580] \x1b[32mok\x1b[0m  qemu-guest-agent\r
[    1.120044] \x1b[32mok\x1b[0m  http://10.0.0.17/ says web-1\r
KC: web-1 is up\r
\r
/ # """

Play = Callable[[Pilot[None]], Awaitable[None]]


@dataclass(frozen=True)
class Scene:
    """One picture: what is in the lab, what is pressed, at which sizes, in which theme."""

    name: str
    play: Play
    sizes: tuple[tuple[int, int], ...] = (SMALL, LARGE)
    theme: str = "crown"
    furnish: Callable[[Lab], None] | None = None
    remembered: Remembered | None = None
    told: Told | None = None


def fill(lab: Lab) -> None:
    """Put the usual VMs, networks, images and operations into a lab."""
    lab.add("Network", "backend", {"uplink": "isolated", "ipv6": {"subnet": "fd00:1::/64", "mode": "slaac"}})
    lab.add("Network", "office", {"uplink": "bridge:br0", "ipv4": {"subnet": "10.0.0.0/24", "mode": "dhcp"}})
    for name, title, gib in (("debian-12", "Debian 12, cloud", 3), ("alpine-3", "Alpine 3.20, virt", 1)):
        digest = "sha256:" + uid_of(name).replace("-", "") * 2
        spec = {
            "title": title, "arch": "x86_64", "format": "qcow2", "digest": digest,
            "sizeBytes": gib * 180_000_000, "virtualSizeBytes": gib << 30, "source": f"{name}.qcow2",
        }  # fmt: skip
        lab.add("Image", name, spec)
    acme, beta = {"tenant": "acme", "owner": {"mail": "ada@acme.example"}}, {"tenant": "beta"}
    web = lab.add_vm("web-1", address="10.0.0.17", metadata=acme, networks=("office",))
    lab.add_vm("web-2", address="10.0.0.18", metadata=acme, networks=("office",))
    database = lab.add_vm("db-1", "stopped", metadata=acme, type="medium", image="debian-12", age=9)
    lab.add_vm("build-7", address="fd00:1::27", type="large", image="debian-12", metadata=beta, networks=("backend",))
    lab.add_vm("old-mail", "stopped", type="tiny", metadata=beta, age=9_000_000)
    lab.add_vm("edge", "crashed", type="tiny", metadata={"tenant": "core"})
    lab.add_vm("cache-1", address="10.0.0.31", type="tiny", metadata=acme)
    lab.add_vm("cache-2", "paused", type="tiny", metadata=acme)
    lab.add_foreign("win11-desktop")
    lab.add_foreign("pfsense-old", "stopped")
    lab.add_operation(
        database, "vm.create",
        {"state": "running", "percent": 70, "startedAt": _at(5), "steps": make_steps(CREATE, 4, NOW - 5)}, age=5,
    )  # fmt: skip
    lab.add_operation(
        web, "vm.create",
        {"state": "succeeded", "percent": 100, "startedAt": _at(200_000), "endedAt": _at(199_996),
         "steps": make_steps(CREATE, 6, NOW - 200_000)}, age=200_000,
    )  # fmt: skip
    lab.add_operation(
        web, "vm.reboot",
        {"state": "succeeded", "percent": 100, "startedAt": _at(3_700), "endedAt": _at(3_688),
         "steps": make_steps(("rebooting the guest",), 1, NOW - 3_700)}, age=3_700,
    )  # fmt: skip
    error = FailedError(
        "volume kc-9f-root", "no space left in the pool kc", "free some, or name another pool with KC_POOL"
    )
    lab.add_operation(
        {"kind": "VM", "name": "huge-1", "uid": uid_of("huge-1")}, "vm.create",
        {"state": "failed", "percent": 33, "startedAt": _at(700), "endedAt": _at(698), "error": error.problem(),
         "steps": make_steps(CREATE, 2, NOW - 700, failed=True),
         "undo": make_steps(("cutting the power", "removing the domain", "deleting its disks"), 3, NOW - 699)}, age=700,
    )  # fmt: skip
    lab.host.volumes[f"kc-{uid_of('web-1')}-console.log"] = (_volume(), _BOOT)
    keys = lab.home / "user" / ".ssh"
    keys.mkdir(parents=True, exist_ok=True)
    (keys / "id_ed25519.pub").write_text(f"{_KEY}\n")


def fill_with_life(lab: Lab) -> None:
    """Put what happens to VMs after they were made into the usual lab."""
    fill(lab)
    life.furnish_life(lab)
    life.furnish_drift(lab)


_CLOUD_CONFIG = """\
#cloud-config
packages:
  - nginx
runcmd:
  - systemctl enable --now nginx
  - ufw allow 80/tcp
"""


def fill_with_segments(lab: Lab) -> None:
    """Put a router and a VXLAN into the usual lab."""
    fill(lab)
    segments.furnish_segments(lab)


def fill_with_history(lab: Lab) -> None:
    """Put a VM with a past, and some deleted objects, into the usual lab."""
    fill(lab)
    store = lab.service.store
    web = store.get("VM", uid_of("web-1"))
    assert web is not None
    web = lab.change(web, 180_000, "ada", metadata__tenant="acme", metadata__tier=2)
    web = lab.change(web, 90_000, "ada", "more room for the shop", spec__parameters={"cpus": 2, "memoryMiB": 4096})
    web = lab.change(web, 86_000, "root", spec__userData=_CLOUD_CONFIG)
    nic = {"id": "nic1", "network": {"name": "backend", "uid": _network(lab, "backend")}, "mac": "52:54:00:1a:2b:01"}
    plans = {"ipv4": {"mode": "network", "address": ""}, "ipv6": {"mode": "slaac", "address": ""}}
    web = lab.change(web, 7_300, "grace", "joins the backend", spec__nics__1=nic | plans)
    changed = _CLOUD_CONFIG.replace("80/tcp", "443/tcp").replace("  - nginx\n", "  - nginx\n  - certbot\n")
    web = lab.change(web, 3_900, "grace", spec__userData=changed, metadata__tier=3)
    lab.change(
        web, 240, "ada", "smaller again", spec__parameters__memoryMiB=2048, spec__description="the shop's front",
        metadata__owner__mail=None, metadata__reviewed="2026-01-02",
    )  # fmt: skip
    acme = {"tenant": "acme"}
    for name, ago, by, hours in (("web-0", 1_500, "ada", 24.0), ("batch-12", 40_000, "root", 24.0)):
        lab.throw_away(lab.add_vm(name, "stopped", type="small", metadata=acme, age=900_000), ago, by, hours)
    lab.throw_away(lab.add("Network", "staging", {"uplink": "isolated"}), 84_000, "grace", message="no longer used")
    lab.throw_away(lab.add("MachineType", "odd", {"hardware": {"cpus": 3, "memoryMiB": 768, "diskGiB": 7}}), 60_000)


def _network(lab: Lab, name: str) -> str:
    found = lab.service.store.find("Network", name)
    assert found is not None
    return str(found["uid"])


def _at(ago: float) -> str:
    from backend.model.documents import format_time

    return format_time(NOW - ago)


def _volume() -> Any:
    from backend.hypervisor.plan import Volume

    return Volume("console.log", "/memory/console.log", "raw", len(_BOOT), len(_BOOT))


def _app(pilot: Pilot[None]) -> KCApp:
    assert isinstance(pilot.app, KCApp)
    return pilot.app


async def _sample(pilot: Pilot[None]) -> None:
    """Give the running VMs a past."""
    app = _app(pilot)
    loads = {
        "web-1": (0.1, 0.2, 0.3, 0.25, 0.6, 0.4, 0.45, 0.2, 0.22, 0.5, 0.7, 0.35, 0.3, 0.1, 0.12),
        "web-2": (0.02, 0.03, 0.02, 0.1, 0.06, 0.03),
        "build-7": (0.9, 0.95, 0.99, 0.97, 0.98, 0.97),
        "cache-1": (0.0, 0.01, 0.02, 0.01, 0.01),
    }
    memory = {"web-1": 1.2, "web-2": 0.9, "build-7": 7.1, "cache-1": 0.2}
    for batch in make_samples(loads, memory):
        app.session.usages.take(batch)
    screen = app.screen
    assert isinstance(screen, VMsScreen)
    screen.show_figures()
    await settle(pilot)


async def show_list(pilot: Pilot[None]) -> None:
    await _sample(pilot)
    await press(pilot, "=jjjjjjj")


async def show_filter(pilot: Pilot[None]) -> None:
    await _sample(pilot)
    await press(pilot, "slash", "=tenant=acme", "enter", "j")


async def show_marks(pilot: Pilot[None]) -> None:
    await _sample(pilot)
    await press(pilot, "slash", "=web", "enter", "space", "space", "s")


async def show_delete(pilot: Pilot[None]) -> None:
    await _sample(pilot)
    await press(pilot, "G", "k", "d")


async def show_delete_now(pilot: Pilot[None]) -> None:
    await _sample(pilot)
    await press(pilot, "G", "k", "d", "tab", "=web")


async def show_attention(pilot: Pilot[None]) -> None:
    await _sample(pilot)
    await press(pilot, "=jjjj")


async def show_vm(pilot: Pilot[None]) -> None:
    await _sample(pilot)
    await press(pilot, "slash", "=web-1", "enter", "enter")
    await life.see_whole(pilot)


async def show_console(pilot: Pilot[None]) -> None:
    await press(pilot, "slash", "=web-1", "enter", "c")
    screen = _app(pilot).screen
    assert isinstance(screen, ConsoleScreen)
    await until(pilot, lambda: "web-1 is up" in screen.terminal.text, "the guest is up")
    await press(pilot, "=uptime")
    await until(pilot, lambda: "uptime" in screen.terminal.text, "the guest echoes")


async def show_empty(pilot: Pilot[None]) -> None:
    await settle(pilot)


async def show_images(pilot: Pilot[None]) -> None:
    await press(pilot, "2", "j")


async def show_types(pilot: Pilot[None]) -> None:
    await press(pilot, "4", "j")


async def show_activity(pilot: Pilot[None]) -> None:
    await press(pilot, "6", "j")


async def show_image_page(pilot: Pilot[None]) -> None:
    await press(pilot, "n")


async def show_network_page(pilot: Pilot[None]) -> None:
    await press(pilot, "n", "enter", "space", "up", "space", "a", "right", "right", "right", "tab", "=192.168.150.5")


async def show_type_page(pilot: Pilot[None]) -> None:
    await press(pilot, "n", "enter", "enter", "down")


async def show_name_page(pilot: Pilot[None]) -> None:
    await press(
        pilot, "n", "enter", "enter", "enter", "=web-1", "tab", "tab", "backspace", "backspace", "backspace", "9"
    )


async def show_review_page(pilot: Pilot[None]) -> None:
    await press(pilot, "n", "enter", "enter", "enter", "=web-3", "enter")


async def show_palette(pilot: Pilot[None]) -> None:
    await _sample(pilot)
    await press(pilot, "colon", "=web")


async def show_help(pilot: Pilot[None]) -> None:
    await _sample(pilot)
    await press(pilot, "question_mark")


async def show_history(pilot: Pilot[None]) -> None:
    await press(pilot, "slash", "=web-1", "enter", "h", "j", "j")


async def show_vm_history(pilot: Pilot[None]) -> None:
    await press(pilot, "slash", "=web-1", "enter", "enter", "h")


async def show_difference(pilot: Pilot[None]) -> None:
    await press(pilot, "slash", "=web-1", "enter", "h", "j", "space", "j", "space", "enter")


async def show_undo(pilot: Pilot[None]) -> None:
    await press(pilot, "slash", "=web-1", "enter", "u")


async def show_trash(pilot: Pilot[None]) -> None:
    await press(pilot, "0", "j")


_CHOSEN = Remembered(image="debian-12", networks=("office",), type="small")

SCENES = (
    Scene("vms", show_list, furnish=fill),
    Scene("filter", show_filter, furnish=fill),
    Scene("marks", show_marks, (SMALL,), furnish=fill),
    Scene("delete", show_delete, (SMALL,), furnish=fill),
    Scene("delete-now", show_delete_now, (SMALL,), furnish=fill),
    Scene("attention", show_attention, (SMALL,), furnish=fill),
    Scene("vm", show_vm, furnish=fill_with_life),
    Scene("vm-resize", life.show_resize, furnish=fill_with_life),
    Scene("vm-nic", life.show_nic, (SMALL,), furnish=fill_with_life),
    Scene("vm-snapshots", life.show_snapshots, furnish=fill_with_life),
    Scene("vm-restore", life.show_restoring, furnish=fill_with_life),
    Scene("vm-drift", life.show_drift, furnish=fill_with_life),
    Scene("adopt", life.show_adoption, furnish=fill_with_life),
    Scene("history", show_history, furnish=fill_with_history),
    Scene("vm-history", show_vm_history, furnish=fill_with_history),
    Scene("difference", show_difference, furnish=fill_with_history),
    Scene("undo", show_undo, furnish=fill_with_history),
    Scene("trash", show_trash, furnish=fill_with_history),
    Scene("console", show_console, (SMALL,), furnish=fill),
    Scene("empty", show_empty, (SMALL,)),
    Scene("images", show_images, furnish=fill),
    Scene("networks", segments.show_networks, furnish=fill_with_segments, told=segments.TOLD),
    Scene("network", segments.show_network, furnish=fill_with_segments, told=segments.TOLD),
    Scene("network-new", segments.show_new_network, furnish=fill_with_segments),
    Scene("network-review", segments.show_new_network_review, furnish=fill_with_segments),
    Scene("topology", segments.show_topology, furnish=fill_with_segments, told=segments.TOLD),
    Scene("types", show_types, (SMALL,), furnish=fill),
    Scene("activity", show_activity, furnish=fill),
    Scene("wizard-1-image", show_image_page, (SMALL,), furnish=fill, remembered=_CHOSEN),
    Scene("wizard-2-network", show_network_page, (SMALL,), furnish=fill, remembered=_CHOSEN),
    Scene("wizard-2-nic", segments.show_nic_options, (SMALL,), furnish=fill, remembered=_CHOSEN),
    Scene("wizard-3-type", show_type_page, (SMALL,), furnish=fill, remembered=_CHOSEN),
    Scene("wizard-4-name", show_name_page, (SMALL,), furnish=fill, remembered=_CHOSEN),
    Scene("wizard-5-review", show_review_page, furnish=fill, remembered=_CHOSEN),
    Scene("palette", show_palette, (SMALL,), furnish=fill),
    Scene("help", show_help, (SMALL,), furnish=fill),
    *(Scene(f"vms-{theme}", show_list, (SMALL,), theme, furnish=fill) for theme in ("bird", "crowd", "kraut", "ansi")),
)


async def play(scene: Scene, size: tuple[int, int], folder: Path) -> tuple[str, str]:
    """Play a scene in an empty folder; return the picture as SVG and its text."""
    from snapshots.picture import draw_svg, read_text

    _use_utc()
    with standing_at(NOW):
        lab = Lab(folder)
        if scene.furnish is not None:
            scene.furnish(lab)
        told = scene.told
        factory = None if told is None else lambda: tell(lab, told)
        app = make_app(lab, remembered=scene.remembered, factory=factory, theme=scene.theme)
        async with running(app, size) as pilot:
            await scene.play(pilot)
            return draw_svg(app), read_text(app)


def _use_utc() -> None:
    os.environ["TZ"] = "UTC"
    time.tzset()
