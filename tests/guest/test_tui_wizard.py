"""The wizard on a real terminal and a real libvirt: a few keys make a VM, and its boot is watched inside KC."""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path

import pytest
from support.kc import URI, Kc, virsh
from support.pty_driver import Terminal

pytestmark = [pytest.mark.libvirt, pytest.mark.guest]

MOST_CONTROL_KEYS = 8


def test_a_few_keys_make_a_vm_whose_boot_is_seen_in_its_console(ready_home: Path, ready_kc: Kc) -> None:
    name = f"keys-{uuid.uuid4().hex[:6]}"
    environment = {**os.environ, "KC_HOME": str(ready_home), "KC_LIBVIRT_URI": URI, "TERM": "xterm-256color"}
    terminal = Terminal([sys.executable, "-m", "kc_tui"], environment)
    control_keys = 0

    def press(key: str, then: str) -> None:
        nonlocal control_keys
        control_keys += 1
        terminal.send(key)
        terminal.wait_for(then)

    try:
        terminal.wait_for("enter open")
        press("n", "◉ image")
        press("\r", "◉ network")
        press("\r", "◉ type")
        press("\r", "◉ name and size")
        terminal.send(name)
        terminal.wait_for(name)
        # A terminal is shown the page's title and what stands below it one after the other, in either order.
        press("\r", f"kc vm create {name} --image starter --network default")
        terminal.wait_for("◉ review")
        press("\r", "enter open")
        press("c", "console")
        assert control_keys <= MOST_CONTROL_KEYS
        terminal.wait_for(f"KC starter: {name} is up", timeout=120)
        terminal.send("echo $((6 * 7)) is said by $(hostname)\r")
        terminal.wait_for(f"42 is said by {name}")
        terminal.send("\x1d")
        terminal.wait_for("enter open")
        assert virsh("domstate", name).strip() == "running"
        terminal.send("q")
        assert terminal.wait_end() == 0
    finally:
        terminal.close()
        ready_kc("vm", "delete", name, "--now", "--yes")
