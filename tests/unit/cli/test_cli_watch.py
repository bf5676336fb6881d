"""`kc watch` tells of each change once, in order, whichever process made it, and ends when it is told to."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.kc import Kc
from support.memory_kc import settle

NO_HOST = "test:///default"


class Watch:
    """A `kc watch` of its own process, whose lines are read as they come."""

    def __init__(self, home: Path, *arguments: str) -> None:
        variables = {key: value for key, value in os.environ.items() if not key.startswith("KC_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kc_tui", "watch", *arguments],
            env={**variables, "KC_HOME": str(home), "KC_LIBVIRT_URI": NO_HOST},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._pending = b""

    def line(self, seconds: float = 30) -> str:
        """Return the next line; fail where none comes in time."""
        assert self.process.stdout is not None
        deadline = time.monotonic() + seconds
        while b"\n" not in self._pending:
            left = deadline - time.monotonic()
            assert left > 0, f"no line came; there is {self._pending!r}"
            if select.select([self.process.stdout], [], [], left)[0]:
                data = os.read(self.process.stdout.fileno(), 1 << 16)
                assert data, self.process.stderr.read() if self.process.stderr else ""
                self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode()

    def event(self) -> Any:
        return json.loads(self.line())

    def end(self, seconds: float = 30) -> tuple[int, str]:
        """Return how it ended, and what it said to stderr."""
        _, error = self.process.communicate(timeout=seconds)
        return self.process.returncode, error.decode()


@pytest.fixture
def watch(home: Path) -> Iterator[Any]:
    watches: list[Watch] = []

    def start(*arguments: str) -> Watch:
        watches.append(Watch(home, *arguments))
        return watches[-1]

    yield start
    for entry in watches:
        entry.process.kill()
        for stream in (entry.process.stdout, entry.process.stderr):
            with suppress(ValueError):
                stream.close()  # type: ignore[union-attr]
        entry.process.wait(30)


@pytest.fixture
def other(kc: Kc) -> Any:
    """Another process: a `kc` without a host, that makes, changes and deletes machine types."""

    def run(*arguments: str) -> Any:
        result = kc(*arguments, KC_LIBVIRT_URI=NO_HOST)
        assert result.status == 0, result.stderr
        return result

    return run


MAKE = ("--cpus", "1", "--memory", "128", "--disk", "1")


def test_what_other_processes_do_is_told_once_and_in_order(watch: Any, other: Any) -> None:
    follower = watch("type", "--since", "0")
    other("type", "create", "a", *MAKE)
    first = follower.event()
    assert list(first) == ["revision", "type", "document"]
    assert (first["type"], first["document"]["name"], first["document"]["version"]) == ("created", "a", 1)
    other("type", "set", "a", "--meta", "tier=1")
    other("type", "create", "b", *MAKE)
    other("type", "delete", "a", "--yes", "--now")
    events = [first, *(follower.event() for _ in range(3))]
    assert [(event["type"], event["document"]["name"]) for event in events] == [
        ("created", "a"), ("updated", "a"), ("created", "b"), ("deleted", "a"),
    ]  # fmt: skip
    revisions = [event["revision"] for event in events]
    assert revisions == sorted(set(revisions))
    again = watch("type", "--since", str(revisions[1]), "--limit", "2", "-o", "name")
    assert [again.line(), again.line()] == ["created type b", "deleted type a"]
    assert again.end() == (0, "")


def test_a_kind_and_a_selector_narrow_it(watch: Any, other: Any) -> None:
    other("type", "create", "a", *MAKE, "--meta", "tenant=acme")
    other("type", "create", "b", *MAKE)
    follower = watch("type", "-l", "tenant=acme", "--since", "0", "-o", "name")
    assert follower.line() == "created type a"
    other("type", "set", "b", "--meta", "tenant=acme")
    assert follower.line() == "updated type b"
    other("type", "set", "a", "--meta", "tenant=other")
    assert follower.line() == "left type a"
    none = watch("network", "--since", "0", "--limit", "1")
    other("type", "set", "b", "--meta", "tier=1")
    assert follower.line() == "updated type b"
    assert select.select([none.process.stdout], [], [], 0.5)[0] == []


def test_what_is_there_comes_first_and_nothing_is_missed_after_it(watch: Any, other: Any) -> None:
    other("type", "create", "a", *MAKE)
    other("type", "create", "b", *MAKE)
    follower = watch("type", "--initial")
    events = [follower.event(), follower.event()]
    assert [(event["type"], event["document"]["name"]) for event in events] == [("present", "a"), ("present", "b")]
    other("type", "set", "a", "--meta", "tier=1")
    event = follower.event()
    assert (event["type"], event["document"]["metadata"]) == ("updated", {"tier": 1})
    resumed = watch("type", "--since", str(events[0]["revision"]), "--limit", "1")
    assert resumed.event() == event


def test_what_was_written_while_the_list_was_made_comes_once(kept: Any, monkeypatch: Any) -> None:
    from backend.local import LocalService

    listing = LocalService.list_documents

    def set_tier(tier: int) -> None:
        accepted = kept.service.update({"kind": "Network", "name": "default", "metadata": {"tier": tier}})
        settle(kept.service, accepted)

    def list_late(service: Any, kind: str, **options: Any) -> Any:
        # Another writer, between the moment of the revision and the reading of the documents.
        revision = service.store.revision()
        set_tier(1)
        page = listing(service, kind, **options)._replace(revision=revision)
        set_tier(2)
        return page

    monkeypatch.setattr(LocalService, "list_documents", list_late)
    lines = kept("watch", "network", "--initial", "--limit", "2").out.splitlines()
    events = [json.loads(line) for line in lines]
    assert [(event["type"], event["document"]["metadata"]["tier"]) for event in events] == [
        ("present", 1), ("updated", 2),
    ]  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_quietly(watch: Any, other: Any, number: signal.Signals) -> None:
    other("type", "create", "a", *MAKE)
    follower = watch("--since", "0", "-o", "name")
    assert follower.line() == "created type a"
    follower.process.send_signal(number)
    assert follower.end() == (128 + number, "")


def test_it_ends_when_nobody_reads_it_though_nothing_happens(watch: Any, other: Any) -> None:
    other("type", "create", "a", *MAKE)
    follower = watch("type", "--since", "0", "-o", "name")
    assert follower.line() == "created type a"
    follower.process.stdout.close()
    assert follower.process.wait(30) == 141
    assert follower.process.stderr.read() == b""


def test_a_watch_into_head_ends_with_it(home: Path, other: Any) -> None:
    for name in ("a", "b", "c"):
        other("type", "create", name, *MAKE)
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m kc_tui watch --since 0 -o name | head -1; echo ${{PIPESTATUS[0]}}"],
        env={**os.environ, "KC_HOME": str(home), "KC_LIBVIRT_URI": NO_HOST},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("created type a\n141\n", "")


def test_what_is_too_old_says_how_to_begin_anew(kept: Any) -> None:
    revision = kept.service.store.revision()
    result = kept("watch", "--since", str(revision + 100), "-o", "json")
    assert result.code == 4
    assert result.out == ""
    problem = result.problem()
    assert problem["compacted"] is True
    assert problem["hint"] == "kc watch --initial begins anew with what is there now"


def test_what_was_compacted_away_is_too_old(home: Path, other: Any, watch: Any) -> None:
    other("type", "create", "a", *MAKE)
    other("type", "delete", "a", "--yes", "--now")
    other("type", "create", "b", *MAKE)
    (home / "config").mkdir()
    (home / "config" / "config.toml").write_text("[history]\ndeletedDays = 1e-9\n")
    assert other("store", "compact", "-o", "json").json()["documents"] >= 1
    code, error = watch("--since", "0", "-o", "json").end()
    assert code == 4
    assert json.loads(error)["compacted"] is True


def test_each_form(kept: Any) -> None:
    kept.add_vm("web")
    since = ("--since", "0", "--limit", "3")
    lines = kept("watch", "type", *since).out.splitlines()
    assert [json.loads(line)["document"]["name"] for line in lines] == ["tiny", "small", "medium"]
    documents = list(yaml.safe_load_all(kept("watch", "type", *since, "-o", "yaml").out))
    assert documents == [json.loads(line) for line in lines]
    assert kept("watch", "type", *since, "-o", "json").out.splitlines() == lines


@pytest.mark.parametrize(
    "arguments",
    [("cat",), ("--since", "-1"), ("--since", "x"), ("--since", "0", "--initial"), ("--limit", "0"), ("--since", "²")],
)
def test_wrong_usage(kept: Any, arguments: tuple[str, ...]) -> None:
    assert kept("watch", *arguments).code == 2


def test_a_wrong_selector_points_at_its_fault(kept: Any) -> None:
    result = kept("watch", "-l", "tenant=acme,=x")
    assert result.code in (2, 8)
    assert "selector" in result.err


def test_hostile_names_reach_no_terminal(kept: Any) -> None:
    from backend.hypervisor.memory import MemoryDomain

    hostile = "\x1b]0;x\x07\u202e\x9b31m"
    kept.hypervisor.domains["x"] = MemoryDomain("x", hostile, None, "running")
    for form in ("json", "name", "yaml"):
        result = kept("watch", "vm", "--initial", "--limit", "1", "-o", form)
        assert result.code == 0
        assert not set(result.out) & set("\x1b\x07\u202e\x9b")
