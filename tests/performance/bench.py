"""`make bench`: each figure side by side with what it is held against, in one run; prints a table.

Run as root where libvirt answers: python tests/performance/bench.py [--vms N] [NAME…].
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.pty_driver import first_paint

BIN = Path(sys.executable).parent
URI = os.environ.get("KC_LIBVIRT_URI", "qemu:///system")
ROUNDS = 9


class Row(NamedTuple):
    """One line of the table: ours and theirs in seconds, medians; `budget` is a ratio."""

    name: str
    ours: float
    theirs: float
    budget: float
    against: str

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs


def time_command(command: list[str], environment: dict[str, str] | None = None) -> float:
    """Return how long a command takes as a whole process."""
    started = time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    return time.perf_counter() - started


def compare(ours: Callable[[], float], theirs: Callable[[], float], rounds: int = ROUNDS) -> tuple[float, float]:
    """Return the medians of two measurements taken in turn, after a warm-up of each."""
    ours(), theirs()
    pairs = [(ours(), theirs()) for _ in range(rounds)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def home_environment(home: Path) -> dict[str, str]:
    return {**os.environ, "KC_HOME": str(home), "KC_LIBVIRT_URI": URI, "TERM": "xterm-256color"}


def measure_version(_home: Path, _vms: int) -> Iterator[Row]:
    ours, theirs = compare(
        lambda: time_command([str(BIN / "kc"), "--version"]), lambda: time_command([sys.executable, "-c", "pass"])
    )
    yield Row("kc --version", ours, theirs, 4.0, "python -c pass")


def measure_list(home: Path, vms: int) -> Iterator[Row]:
    environment = home_environment(home)
    ours, theirs = compare(
        lambda: time_command([str(BIN / "kc"), "vm", "list"], environment),
        lambda: time_command(["virsh", "-c", URI, "list", "--all"]),
    )
    yield Row(f"kc vm list, {vms} VMs", ours, theirs, 3.0, "virsh list --all")


BARE = """
from textual.app import App
from textual.widgets import Static
class Bare(App):
    def compose(self):
        yield Static("hello, bare world")
Bare().run()
"""


def measure_first_paint(home: Path, vms: int) -> Iterator[Row]:
    environment = home_environment(home)
    ours, theirs = compare(
        lambda: first_paint([str(BIN / "kc")], environment, "bench-"),
        lambda: first_paint([sys.executable, "-c", BARE], environment, "bare world"),
        rounds=5,
    )
    yield Row(f"first painted list, {vms} VMs", ours, theirs, 2.0, "bare Textual app")


def measure_create(home: Path, _vms: int) -> Iterator[Row]:
    """Compare the creation of a VM, from the request to QEMU running, with the bare tools on the same domain."""
    from backend.local import open_service
    from backend.settings import load_settings

    service = open_service(load_settings(environment=home_environment(home)))
    names: list[str] = []

    def ours() -> float:
        name = f"bcreate-{uuid.uuid4().hex[:6]}"
        names.append(name)
        spec = {"image": "starter", "type": "tiny", "nics": [{"network": "default"}]}
        started = time.perf_counter()
        accepted = service.create({"kind": "VM", "name": name, "spec": spec})
        ended = service.wait(accepted.operation["name"], timeout=60)
        took = time.perf_counter() - started
        assert ended["status"]["state"] == "succeeded", ended
        service.wait(service.act(name, "stop", {"force": True}).operation["name"], timeout=60)
        return took

    try:
        ours()
        model = subprocess.run(
            ["virsh", "-c", URI, "dumpxml", "--inactive", names[0]], capture_output=True, text=True, check=True
        ).stdout
        uid = service.get("VM", names[0])["uid"]
        with _bare_domains(model, names[0], uid) as theirs:
            a, b = compare(ours, theirs, rounds=7)
        yield Row("create to QEMU running", a, b, 1.2, "qemu-img create + virsh define + start")
    finally:
        for name in names:
            service.wait(service.delete("VM", name).operation["name"], timeout=60)
        service.close()


@contextmanager
def _bare_domains(model: str, name: str, uid: str) -> Iterator[Callable[[], float]]:
    """Yield what makes one more domain like `model` with the bare tools, and remove them all in the end."""
    import xml.etree.ElementTree as ET

    made: list[tuple[str, Path]] = []
    root = ET.fromstring(model)
    disk = root.find("devices/disk[@device='disk']/source").get("file")
    base = root.find("devices/disk[@device='disk']/backingStore/source").get("file")

    def create() -> float:
        fresh, bare = str(uuid.uuid4()), f"bare-{uuid.uuid4().hex[:6]}"
        path = Path(disk).parent / f"{bare}.qcow2"
        text = model.replace(uid, fresh).replace(f"<name>{name}</name>", f"<name>{bare}</name>")
        text = text.replace(f"kc-{fresh}-root", path.name).replace(f"kc-{fresh}-seed", f"kc-{uid}-seed")
        with tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
            file.write(text)
            file.flush()
            made.append((bare, path))
            started = time.perf_counter()
            for command in (
                ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, str(path), "2G"],
                ["virsh", "-q", "-c", URI, "define", file.name],
                ["virsh", "-q", "-c", URI, "start", bare],
            ):
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            took = time.perf_counter() - started
        subprocess.run(["virsh", "-q", "-c", URI, "destroy", bare], check=True)
        return took

    try:
        yield create
    finally:
        for bare, path in made:
            subprocess.run(["virsh", "-q", "-c", URI, "undefine", bare, "--nvram"], check=False)
            path.unlink(missing_ok=True)


MEASURES = {
    "version": measure_version,
    "list": measure_list,
    "paint": measure_first_paint,
    "create": measure_create,
}


def fill(home: Path, vms: int) -> None:
    """Make `vms` VMs that are off."""
    environment = home_environment(home)
    subprocess.run([str(BIN / "kc"), "-q", "init"], env=environment, check=True, stdout=subprocess.DEVNULL)
    options = ["--image", "starter", "--network", "default", "--type", "tiny", "--no-start", "--count", str(vms)]
    subprocess.run(
        [str(BIN / "kc"), "-q", "vm", "create", "bench", *options], env=environment, check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--vms", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("names", nargs="*", choices=[[], *MEASURES])
    arguments = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="kc-bench-") as folder:
        home = Path(folder)
        try:
            fill(home, arguments.vms)
            for name in arguments.names or MEASURES:
                rows.extend(MEASURES[name](home, arguments.vms))
        finally:
            subprocess.run(
                [str(BIN / "kc"), "-q", "vm", "delete", "-l", "name~*", "--yes", "--now"],
                env=home_environment(home), check=False, stdout=subprocess.DEVNULL,
            )  # fmt: skip
    if arguments.json:
        print(json.dumps([{**row._asdict(), "ratio": row.ratio} for row in rows]))
        return 0
    print(f"{'what':<34} {'KC':>9} {'against':>9} {'ratio':>6} {'budget':>6}      against")
    for row in rows:
        verdict = "ok" if row.ratio <= row.budget else "OVER"
        print(
            f"{row.name:<34} {row.ours * 1000:>6.0f} ms {row.theirs * 1000:>6.0f} ms {row.ratio:>6.2f} "
            f"{row.budget:>6.1f} {verdict:<4} {row.against}"
        )
    return 0 if all(row.ratio <= row.budget for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
