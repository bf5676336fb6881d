"""`kc audit list`: a table of the newest entries, and what scripts read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.command_line import CommandLine

from backend.audit import AuditTrail
from backend.service import DocumentPage


@pytest.fixture
def kc(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """The command line on a service whose audit trail is a real one."""
    monkeypatch.setenv("KC_HOME", str(tmp_path))
    trail = AuditTrail(tmp_path / "audit")
    for number in range(3):
        trail.record(
            {
                "event": "write", "subject": "alice", "requestId": f"r{number}", "via": "tcp", "action": "vm.update",
                "kind": "VM", "name": "web", "version": number + 1, "outcome": "accepted",
            },
            durable=True,
        )  # fmt: skip
    trail.record(
        {"event": "decision", "subject": "", "transport": "unix", "action": "vm.list", "outcome": "deny"}, durable=True
    )
    trail.close()
    command_line = CommandLine(capsys)

    def list_audit(*, selector: str = "", limit: int | None = None, after: str = "") -> DocumentPage:
        return trail.read(selector, limit, after)

    monkeypatch.setattr(command_line.service, "list_audit", list_audit)
    return command_line


def test_a_table_has_the_newest_first(kc: CommandLine) -> None:
    lines = kc("audit", "list").out.splitlines()
    assert lines[0].split() == ["AT", "SUBJECT", "ACTION", "OBJECT", "OUTCOME", "VIA"]
    assert lines[1].split()[2:] == ["–", "vm.list", "deny", "unix"]
    assert lines[2].split()[2:] == ["alice", "vm.update", "VM", "web", "v3", "accepted", "tcp"]
    assert len(lines) == 5


def test_a_page_says_how_to_go_on(kc: CommandLine) -> None:
    first = kc("audit", "list", "--limit", "2")
    cursor = first.err.rpartition(" ")[2].strip()
    assert first.err == f"kc: there are more: --continue {cursor}\n"
    second = kc("audit", "list", "--limit", "2", "--continue", cursor)
    assert [line.split()[6] for line in second.out.splitlines()[1:]] == ["v2", "v1"]
    assert second.err == ""


def test_scripts_read_entries_and_cursor(kc: CommandLine) -> None:
    answer = kc("audit", "list", "-l", "subject=alice,version>1", "--limit", "1", "-o", "json").json()
    (item,) = answer["items"]
    assert item["kind"] == "Audit"
    assert (item["metadata"]["requestId"], item["metadata"]["version"]) == ("r2", 3)
    assert answer["continue"] == item["name"]
    assert kc("audit", "list", "-o", "name").out.splitlines()[1] == item["name"]


@pytest.mark.parametrize(
    ("selector", "note"),
    [("subject=bob", "no entries match subject=bob"), ("event=none", "no entries match event=none")],
)
def test_an_empty_answer_is_said(kc: CommandLine, selector: str, note: str) -> None:
    result = kc("audit", "list", "-l", selector)
    assert (result.code, result.out, result.err) == (0, "", f"kc: {note}\n")


@pytest.mark.parametrize("arguments", [("-l", "a b"), ("--continue", "../x")])
def test_what_cannot_be_read_is_refused(kc: CommandLine, arguments: tuple[str, ...]) -> None:
    assert kc("audit", "list", *arguments).code == 8


def test_a_filtered_trail_says_so(kc: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    def list_audit(**_: Any) -> DocumentPage:
        return DocumentPage([], "", 0, ["a line of the audit trail is damaged"], filtered=True)

    monkeypatch.setattr(kc.service, "list_audit", list_audit)
    err = kc("audit", "list").err.splitlines()
    assert "kc: warning: a line of the audit trail is damaged" in err
    assert "kc: there may be entries that you are not allowed to see" in err
