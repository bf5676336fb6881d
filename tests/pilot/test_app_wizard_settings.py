"""The wizard's page of a machine type that offers every kind of setting, and says what goes together."""

from __future__ import annotations

from pathlib import Path

from support.app import make_app, press, running, see
from support.world import Lab

WISHES = {
    "firmware": "uefi",
    "hardware": {"cpus": 1, "memoryMiB": 512, "diskGiB": 2},
    "parameters": {
        "cpus": {"type": "integer", "title": "CPUs", "minimum": 1, "maximum": 8},
        "memoryMiB": {"type": "integer", "title": "Memory", "unit": "MiB", "minimum": 128},
        "secureBoot": {"type": "boolean", "title": "Secure boot"},
        "cpuModels": {"type": "array", "title": "CPU model", "items": {"enum": ["EPYC", "Nehalem"]}},
    },
    "constraints": [
        {
            "title": "4 CPUs want 2 GiB",
            "if": {"properties": {"cpus": {"minimum": 4}}},
            "then": {"properties": {"memoryMiB": {"minimum": 2048}}},
        }
    ],
}


async def test_what_does_not_go_together_stands_beside_the_field_that_can_mend_it(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.add("MachineType", "wishes", WISHES)
    app = make_app(lab)
    async with running(app) as pilot:
        await press(pilot, "n", "enter", "enter", "=wishes", "enter", "=web", "tab", "=4")
        await see(pilot, r"Memory +512 +MiB +4 CPUs want 2 GiB")
        await press(pilot, "tab", "=2GB")
        await see(pilot, r"Memory +2GB +MiB +GB would be a little less")
        await press(pilot, *["backspace"] * 1)
        await see(pilot, r"Memory +2G +MiB +at least 128")
        await press(pilot, "tab", "space", "tab", "=Epyc")
        await see(pilot, r"CPU model +Epyc +Epyc is none of")
        await press(pilot, *["backspace"] * 4, "=EPYC,Nehalem", "enter")
        await see(pilot, r"--set memoryMiB=2048")
        await press(pilot, "enter")
        await see(pilot, r"web +running")
    assert lab.service.get("VM", "web")["spec"]["parameters"] == {
        "cpus": 4,
        "memoryMiB": 2048,
        "secureBoot": True,
        "cpuModels": ["EPYC", "Nehalem"],
    }
