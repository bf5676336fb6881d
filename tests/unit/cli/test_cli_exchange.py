"""A whole store goes out as JSON lines and comes back as it was; what is damaged is refused with its line."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.memory_kc import make_service

from backend.local import LocalService
from kc_tui.cli.main import run

NO_HOST = "test:///default"


@pytest.fixture
def full(kept: Any) -> Any:
    """A KC with a history: VMs that were changed and deleted."""
    kept.add_vm("web", metadata={"tenant": "acme", "dish": "Grünkohl 🥬 \x1b[2J\u202e"})
    kept.set_memory("web", 768, "more memory")
    kept.add_vm("old", power="stopped")
    assert kept("vm", "delete", "old", "--yes", "--message", "too old").code == 0
    return kept


@pytest.fixture
def take(kept: Any, tmp_path: Path, capsys: Any, monkeypatch: Any) -> Any:
    """Runs `kc import` into another home, and returns its exit code, its stdout and stderr, and that home's service."""

    def importing(*arguments: str, home: str = "other") -> tuple[int, str, str, LocalService]:
        folder = tmp_path / home
        monkeypatch.setenv("KC_HOME", str(folder))
        capsys.readouterr()
        code = run(("import", *arguments), lambda _settings, operate=True: make_service(folder, operate=operate))
        captured = capsys.readouterr()
        return code, captured.out, captured.err, make_service(folder, kept.hypervisor)

    return importing


def lines_of(service: LocalService) -> list[Any]:
    """Return an export without the time at which it was made."""
    header, *rest = service.export()
    return [{**header, "at": ""}, *rest]


def test_a_store_comes_back_with_its_history(full: Any, take: Any, tmp_path: Path) -> None:
    path = tmp_path / "store.jsonl"
    done = full("export", str(path))
    assert done.code == 0
    assert done.out == ""
    assert f"are in {path}" in done.err
    before = lines_of(full.service)
    code, out, error, other = take(str(path), "-o", "json")
    assert (code, error) == (0, "")
    assert json.loads(out) == {"entries": before[-1]["entries"]}
    assert lines_of(other) == before
    assert other.store.identity == full.service.store.identity
    for kind, name in (("VM", "web"), ("VM", "old"), ("Network", "default")):
        assert other.history(kind, name) == full.service.history(kind, name)
    assert [entry.message for entry in other.history("VM", "web")][1] == "more memory"
    assert other.get("VM", "web", version=1)["metadata"]["dish"] == "Grünkohl 🥬 \x1b[2J\u202e"
    assert other.check_store() == []
    # It is a store like any other: one goes on in it.
    accepted = other.restore("VM", "old")
    assert other.wait(accepted.operation["name"], timeout=30)["status"]["state"] == "succeeded"


def test_an_export_to_stdout_is_the_same_and_can_be_piped(
    full: Any, take: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    path = tmp_path / "store.jsonl"
    assert full("export", str(path)).code == 0
    printed = full("export")
    assert printed.err == ""
    assert "\x1b" not in printed.out
    records = [json.loads(line) for line in printed.out.splitlines()]
    assert records[1:] == [json.loads(line) for line in path.read_text().splitlines()][1:]
    assert (records[0]["kc"], records[-1]["entries"]) == ("export", len(records) - 2)

    class Input:
        buffer = io.BytesIO(printed.out.encode())

    monkeypatch.setattr("sys.stdin", Input)
    code, _, error, other = take("-")
    assert code == 0, error
    assert lines_of(other) == lines_of(full.service)


def test_a_terminal_that_lacks_signs_still_gets_json(full: Any, tmp_path: Path) -> None:
    path = tmp_path / "store.jsonl"
    environment = {**os.environ, "KC_HOME": str(full.home), "KC_LIBVIRT_URI": NO_HOST, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", "kc_tui", "export"], env=environment, capture_output=True, timeout=60, check=True
    )  # fmt: skip
    full("export", str(path))
    assert [json.loads(line) for line in done.stdout.splitlines()][1:] == [
        json.loads(line) for line in path.read_text().splitlines()
    ][1:]


def test_a_file_is_private_whole_and_replaced_at_once(full: Any, tmp_path: Path) -> None:
    path = tmp_path / "backups" / "store.jsonl"
    path.parent.mkdir()
    path.write_text("old")
    path.chmod(0o644)
    link = tmp_path / "link"
    link.symlink_to(path)
    said = full("export", str(link), "-o", "json").json()
    assert said["entries"] == len(path.read_text().splitlines()) - 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert link.is_symlink()
    assert list(path.parent.iterdir()) == [path]
    assert full("export", str(path), "-o", "name").out == f"{path}\n"


def test_an_export_that_fails_leaves_what_was_there(full: Any, tmp_path: Path, monkeypatch: Any) -> None:
    from backend.errors import FailedError

    path = tmp_path / "backups" / "store.jsonl"
    path.parent.mkdir()
    path.write_text("old")
    export = LocalService.export

    def break_off(service: LocalService) -> Any:
        yield from list(export(service))[:3]
        raise FailedError("store", "the disk is gone")

    monkeypatch.setattr(LocalService, "export", break_off)
    assert full("export", str(path)).code == 1
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_where_no_file_can_be_made_it_says_why(full: Any, tmp_path: Path) -> None:
    assert full("export", str(tmp_path)).code == 8
    missing = full("export", str(tmp_path / "none" / "store.jsonl"))
    assert missing.code == 1
    assert "no such file or directory" in missing.err
    no_room = full("export", "/dev/full")
    assert no_room.code == 1
    assert "no space left on device" in no_room.err
    assert Path("/dev/full").is_char_device()
    assert full("export", "-o", "yaml").code == 2


def test_a_store_that_is_not_empty_takes_none(full: Any, take: Any, tmp_path: Path) -> None:
    path = tmp_path / "store.jsonl"
    full("export", str(path))
    assert take(str(path))[0] == 0
    code, out, error, other = take(str(path), "-o", "json")
    assert (code, out) == (4, "")
    assert "KC_STORE=tinydb:PATH kc import FILE" in json.loads(error)["hint"]
    assert lines_of(other) == lines_of(full.service)


def cut(lines: list[str]) -> tuple[list[str], int, str]:
    return lines[:-3], len(lines) - 3, "its end is missing"


def cut_within(lines: list[str]) -> tuple[list[str], int, str]:
    return [*lines[:-2], lines[-2][:-10]], len(lines) - 1, "it is no JSON"


def lose_one(lines: list[str]) -> tuple[list[str], int, str]:
    return [*lines[:2], *lines[3:]], len(lines) - 1, "entries"


def swap(lines: list[str]) -> tuple[list[str], int, str]:
    return [*lines[:2], lines[3], lines[2], *lines[4:]], 4, "out of order"


def double(lines: list[str]) -> tuple[list[str], int, str]:
    return [*lines[:3], lines[2], *lines[3:]], 4, "out of order"


def garble(lines: list[str]) -> tuple[list[str], int, str]:
    return (
        [*lines[:4], lines[4].replace('"version": ', '"version": x'), *lines[5:]],
        5,
        "it is no JSON: expecting value",
    )


def lie(lines: list[str]) -> tuple[list[str], int, str]:
    return [*lines[:4], lines[4].replace('"version": ', '"version": -'), *lines[5:]], 5, "a number or a name"


def repeat_a_key(lines: list[str]) -> tuple[list[str], int, str]:
    return [*lines[:4], '{"id": 1, "id": 2}', *lines[5:]], 5, "the key 'id' is there twice"


def bare(lines: list[str]) -> tuple[list[str], int, str]:
    return [*lines[:4], "7", *lines[4:]], 5, "not one JSON object"


def two_in_one(lines: list[str]) -> tuple[list[str], int, str]:
    return [*lines[:4], lines[4] + lines[5], *lines[6:]], 5, "not one JSON object"


def no_header(lines: list[str]) -> tuple[list[str], int, str]:
    return lines[1:], 1, "does not begin as an export"


def newer(lines: list[str]) -> tuple[list[str], int, str]:
    return [lines[0].replace('"format": 1', '"format": 99'), *lines[1:]], 1, "a newer KC has written it"


def go_on(lines: list[str]) -> tuple[list[str], int, str]:
    return [*lines, "", lines[-1]], len(lines) + 1, "it goes on after its end"


def empty(_lines: list[str]) -> tuple[list[str], int, str]:
    return [], 1, "does not begin as an export"


DAMAGES = [
    cut, cut_within, lose_one, swap, double, garble, lie, repeat_a_key, bare, two_in_one, no_header, newer, go_on,
    empty,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_refused_with_its_line_and_nothing_is_written(
    full: Any, take: Any, tmp_path: Path, damage: Any
) -> None:
    path = tmp_path / "store.jsonl"
    full("export", str(path))
    lines, number, words = damage(path.read_text().splitlines())
    path.write_text("\n".join(lines) + "\n")
    code, out, error, other = take(str(path), "-q")
    assert (code, out) == (8, "")
    assert error.startswith(f"kc: import {path}: line {number}: ")
    assert words in error
    assert other.store.revision() == 0
    assert len(list(other.export())) == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe\x00", "line 1: it is no text"),
        (b"\x00" * 1000, "line 1: it is no JSON"),
        (b"{" * 100_000, "line 1: it is no JSON"),
        (b'{"a":' + b"[" * 200_000, "line 1: it is no JSON"),
        (b"x" * ((8 << 20) + 1), "line 1: it is too long"),
        (b'{"kc": "export", "format": true, "identity": "019a2038-07bf-727d-ae9f-000000000000"}\n', "line 1"),
        (
            b'{"kc": "export", "format": 1, "identity": "019a2038-07bf-727d-ae9f-000000000000"}\n{"lease": 7}\n',
            "line 2",
        ),
    ],
)
def test_what_is_no_export_at_all_is_refused(kept: Any, take: Any, tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "store.jsonl"
    path.write_bytes(content)
    code, _, error, other = take(str(path))
    assert code == 8
    assert words in error
    assert other.store.revision() == 0


def test_a_file_that_is_not_there(kept: Any, tmp_path: Path) -> None:
    assert kept("import", str(tmp_path / "none")).code == 3
    assert kept("import", str(tmp_path)).code == 8
    assert kept("import").code == 2


def test_real_processes_hand_a_store_on_through_a_pipe(full: Any, tmp_path: Path) -> None:
    kc = f"{sys.executable} -m kc_tui"
    environment = {
        **os.environ,
        "KC_HOME": str(full.home),
        "KC_LIBVIRT_URI": NO_HOST,
        "NEW": f"tinydb:{tmp_path}/new.db",
    }
    script = f"set -eo pipefail; {kc} export | KC_STORE=$NEW {kc} import -; KC_STORE=$NEW {kc} vm history web"
    done = subprocess.run(
        ["bash", "-c", script],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "more memory" in done.stdout
