"""How long KC takes to open on 10,000 VMs, here and over HTTP: `python tests/performance/remote_bench.py`.

Both speak to the same store and libvirt; a start ends when the header counts all VMs. The budget is twice the local
time.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

KC = str(Path(sys.executable).with_name("kc"))
URI = os.environ.get("KC_LIBVIRT_URI", "qemu:///system")
VMS = 10_000
ROUNDS = 5
BUDGET = 2.0
COUNTED = f"{VMS:,} VMs"


def fill(environment: dict[str, str]) -> None:
    """Make one VM, and as many documents like it as there are to be; none has a domain."""
    from backend.local import open_service
    from backend.settings import load_settings

    for words in (["init"], ["vm", "create", "vm-0", "--image", "starter", "--type", "tiny", "--network", "default",
                             "--no-start"]):  # fmt: skip
        subprocess.run([KC, "-q", *words], env=environment, check=True, stdout=subprocess.DEVNULL)
    service = open_service(load_settings(environment=environment), operate=False)
    model = service.get("VM", "vm-0", observe=False)
    body = {field: value for field, value in model.items() if field not in ("version", "status")}
    for start in range(1, VMS, 500):
        with service.store.transaction() as transaction:
            for number in range(start, min(start + 500, VMS)):
                transaction.put({**body, "name": f"vm-{number}", "uid": str(uuid.uuid4())}, expect=0)
    service.close()


@contextmanager
def serving(environment: dict[str, str]) -> Iterator[str]:
    """Serve a home and yield where."""
    process = subprocess.Popen(
        [KC, "serve", "--listen", "127.0.0.1:0"], env=environment, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    assert process.stderr is not None
    try:
        found = re.search(r"http://[\d.:]+", process.stderr.readline())
        assert found, "it does not say where it listens"
        # Its log would fill the pipe.
        threading.Thread(target=process.stderr.read, daemon=True).start()
        yield found[0]
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def main() -> int:
    from support.pty_driver import first_paint

    with tempfile.TemporaryDirectory(prefix="kc-bench-") as folder:
        home, away = Path(folder) / "home", Path(folder) / "away"
        plain = {name: value for name, value in os.environ.items() if not name.startswith("KC_")}
        here = {**plain, "KC_HOME": str(home), "KC_LIBVIRT_URI": URI, "TERM": "xterm-256color"}
        try:
            fill(here)
            token = subprocess.run(
                [KC, "-q", "token", "create", "bench", "--god"], env=here, check=True, capture_output=True, text=True
            ).stdout.strip()
            with serving(here) as url:
                there = {**plain, "KC_HOME": str(away), "KC_URL": url, "KC_AUTH_HEADER": f"Bearer {token}"}
                there["TERM"] = "xterm-256color"
                for marker, what in (("vm-1", "first painted list"), (COUNTED, "all VMs listed")):
                    times: dict[str, list[float]] = {"here": [], "there": []}
                    for _round in range(ROUNDS):
                        times["here"].append(first_paint([KC], here, marker))
                        times["there"].append(first_paint([KC], there, marker))
                    local, remote = (statistics.median(times[name]) for name in ("here", "there"))
                    verdict = "ok" if remote <= BUDGET * local else "OVER"
                    print(f"{what:<20} local {local:6.2f} s   remote {remote:6.2f} s   "
                          f"{remote / local:5.2f}   budget {BUDGET:.1f}   {verdict}")  # fmt: skip
        finally:
            subprocess.run([KC, "-q", "vm", "delete", "vm-0", "--yes", "--now"], env=here, check=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
