"""A document in an editor: written when it is good, kept when it is not, never lost."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kc_tui.cli.reading_documents import parse_yaml
from kc_tui.yaml_text import format_yaml


@pytest.fixture
def web(kept, monkeypatch):
    kept.add_vm("web", metadata={"tenant": "acme", "commit": "12e4567", "on": "no"}, userData="#cloud-config\na: 1\n")
    monkeypatch.delenv("VISUAL", raising=False)
    return kept


@pytest.fixture
def editor(web, tmp_path, monkeypatch):
    """Makes Python code the editor; it has the file's text as `text` and leaves what is then in `text`."""

    def use(code: str) -> None:
        script = tmp_path / "an editor.py"
        lines = ["import sys", "path = sys.argv[-1]", "text = open(path).read()", code, "open(path, 'w').write(text)"]
        script.write_text("\n".join(lines))
        monkeypatch.setenv("EDITOR", shlex.join([sys.executable, str(script)]))

    return use


def kept_files(web) -> list[Path]:
    return sorted((web.home / "cache" / "edit").glob("*"))


def test_what_the_editor_leaves_is_written(web, editor):
    editor("text = text.replace('parameters: {}', 'parameters: {memoryMiB: 640}').replace('a: 1', 'a: 2')")
    result = web("vm", "edit", "web", "--message", "by hand")
    assert result.code == 0, result.err
    document = web.service.get("VM", "web")
    assert document["spec"]["parameters"] == {"memoryMiB": 640}
    assert document["spec"]["userData"] == "#cloud-config\na: 2\n"
    assert document["metadata"] == {"tenant": "acme", "commit": "12e4567", "on": "no"}
    assert (document["version"], document["message"]) == (2, "by hand")
    assert "kc: VM web is at version 2; kc vm undo web takes it back\n" in result.err
    assert kept_files(web) == []


def test_the_text_is_yaml_with_what_can_be_written_and_is_nobody_elses(web, editor, tmp_path):
    copy, mode = tmp_path / "seen", tmp_path / "mode"
    editor(
        f"import os; open({str(copy)!r}, 'w').write(text); open({str(mode)!r}, 'w').write(oct(os.stat(path).st_mode))"
    )
    assert web("vm", "edit", "web").err == "kc: VM web: nothing was changed\n"
    text = copy.read_text()
    assert text.startswith("# VM web, version 1;")
    assert list(yaml.safe_load(text)) == ["metadata", "spec"]
    assert "  userData: |\n    #cloud-config\n    a: 1\n" in text
    assert mode.read_text().endswith("600")
    assert web.service.get("VM", "web")["version"] == 1
    assert kept_files(web) == []


@pytest.mark.parametrize(
    "code", ["text = ''", "text = '# nothing\\n'", "pass", "text = text.replace('acme', '\"acme\"')"]
)
def test_an_empty_or_unchanged_text_changes_nothing(web, editor, code):
    editor(code)
    result = web("vm", "edit", "web")
    assert (result.code, result.err) == (0, "kc: VM web: nothing was changed\n")
    assert kept_files(web) == []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("text += '  - ['", "line "),
        ("text = text.replace('power: running', 'power: sideways')", "spec.power"),
        ("text += 'status: {}\\n'", "status: nobody writes that"),
        ("text = '- a\\n- b\\n'", "it is no document"),
        ("text = 'a: 1\\n---\\nb: 2\\n'", "it is no document"),
        ("text = text.replace('image:', 'bild:')", "spec.bild: unknown field"),
    ],
)
def test_without_a_terminal_a_wrong_text_is_kept_and_can_be_gone_on_with(web, editor, code, words):
    editor(code)
    result = web("vm", "edit", "web", "-o", "json")
    assert (result.code, result.out) == (8, "")
    problem = result.problem()
    assert words in problem["detail"]
    (path,) = kept_files(web)
    assert problem["file"] == str(path)
    assert f"kc vm edit web --from {path}" in problem["hint"]
    assert web.service.get("VM", "web")["version"] == 1
    editor("assert text.count('# VM web') == 1; text = 'metadata: {mended: true}\\n'")
    assert web("vm", "edit", "web", "--from", str(path), "-q").code == 0
    assert web.service.get("VM", "web")["metadata"] == {"mended": True}


def test_a_text_that_was_kept_is_written_as_it_is(web, editor, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("# mine\nmetadata:\n  a: 1\n")
    editor("pass")
    assert web("vm", "edit", "web", "--from", str(path), "-q").code == 0
    assert web.service.get("VM", "web")["metadata"] == {"a": 1}
    assert web("vm", "edit", "web", "--from", str(tmp_path / "gone")).code == 3


def test_who_was_slower_keeps_the_text_and_sees_the_difference(web, editor, monkeypatch):
    monkeypatch.setenv("KC_LIBVIRT_URI", "test:///default")
    program = "from backend.store.opening import open_store; from backend.settings import load_settings"
    editor(
        f"{program}\nstore = open_store(load_settings().store_url)\nbody = store.find('VM', 'web')\n"
        "with store.transaction() as transaction:\n"
        "    transaction.put({**body, 'metadata': {'rival': 1}}, expect=body['version'])\n"
        "store.close()\ntext = text.replace('acme', 'mine')"
    )
    result = web("vm", "edit", "web")
    assert result.code == 4, result.err
    lines = result.err.splitlines()
    (path,) = kept_files(web)
    assert lines[0].startswith("kc: VM web: it is at version 2, not 1. ")
    assert lines[0].endswith(f"your text is kept: kc vm edit web --from {path}")
    assert lines[1] == "what changed from version 1 to 2:"
    assert "+ metadata.rival: 1" in lines
    assert "mine" in path.read_text()
    assert web.service.get("VM", "web")["metadata"] == {"rival": 1}


def test_an_editor_that_fails_loses_nothing(web, editor, monkeypatch):
    editor("text = text.replace('acme', 'mine'); open(path, 'w').write(text); sys.exit(3)")
    result = web("vm", "edit", "web")
    assert result.code == 1
    assert "ended with 3" in result.err
    (path,) = kept_files(web)
    assert "mine" in path.read_text()
    path.unlink()
    monkeypatch.setenv("EDITOR", "false")
    assert web("vm", "edit", "web").code == 1
    assert kept_files(web) == []
    monkeypatch.setenv("EDITOR", "kc-no-such-editor --wait")
    missing = web("vm", "edit", "web")
    assert missing.code == 1
    assert "kc-no-such-editor" in missing.err
    monkeypatch.setenv("EDITOR", "'")
    assert web("vm", "edit", "web").code == 1
    assert kept_files(web) == []
    assert web.service.get("VM", "web")["version"] == 1


def test_what_is_not_there_is_not_edited(web, editor):
    editor("raise SystemExit(9)")
    assert web("vm", "edit", "gone").code == 3
    assert web("vm", "edit").code == 2


TEXTS = st.text(max_size=12) | st.from_regex(r"\A[-+0-9.eExo:_ a-f]{1,8}\Z") | st.sampled_from(
    [
        "12e45", "0o17", "010", "1_0", "no", "~", "null", "<<", "1:30", "2026-01-01", ".5", "-.inf", ".nan", "0x1F",
        "a\n b\n", "52:54:00:12:34:56",
    ]
)  # fmt: skip
NUMBERS = st.integers(-(1 << 63), (1 << 64) - 1) | st.floats(allow_nan=False, allow_infinity=False)


@settings(deadline=None, max_examples=200)
@given(
    st.recursive(
        st.none() | st.booleans() | NUMBERS | TEXTS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
        max_leaves=8,
    )
)  # fmt: skip
def test_yaml_that_is_printed_reads_as_what_it_was(value):
    (read,) = parse_yaml(format_yaml({"value": value}))
    assert read == {"value": value}
    assert repr(read) == repr({"value": value})
