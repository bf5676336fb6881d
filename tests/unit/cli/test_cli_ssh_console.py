"""`kc ssh-console`, the lines that sshd is told, and what of the command line there is for a visitor."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.memory_service import MemoryService

from kc_tui.cli.commands import NOUNS, Command, load_commands, walk_commands
from kc_tui.cli.confinement import SERVED
from kc_tui.cli.main import build_parser, run
from kc_tui.cli.ssh_lines import build_command, build_line
from kc_tui.cli.ssh_shell import build_environment, choose_terminal
from kc_tui.cli.ssh_visit import split_command
from kc_tui.cli.sshd_config import SETTINGS, write_config, write_wrapper
from kc_tui.idleness import Idleness
from kc_tui.visitor import Visitor

SERVICE_NOUNS = {"serve", "profile", "login", "logout", "ssh-console", "auth", "completion"}


@pytest.fixture
def public(tmp_path: Path) -> Path:
    path = tmp_path / "id"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bob", "-f", str(path)], check=True, timeout=30
    )
    return path.with_suffix(".pub")


def visit(service: MemoryService, *words: str) -> int:
    visitor = Visitor("alice", lambda: service, Idleness(0))
    return run(words, lambda _settings, *, operate=True: service, visitor=visitor)


def kc_json(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    capsys.readouterr()
    assert run([*words, "-o", "json"]) == 0
    return json.loads(capsys.readouterr().out)


# --- keys and lines


def test_keys_are_added_listed_and_removed(
    home: Path, public: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("KC_HOME", str(home))
    assert kc_json(capsys, "ssh-console", "keys")["items"] == []
    [key] = kc_json(capsys, "ssh-console", "keys", "--add", str(public), "--subject", "alice", "--group", "ops")[
        "items"
    ]
    assert (key["subject"], key["groups"], key["type"]) == ("alice", ["ops"], "ssh-ed25519")
    assert run(["ssh-console", "keys", "--add", public.read_text(), "--subject", "bob"]) == 4
    capsys.readouterr()
    assert run(["ssh-console", "keys"]) == 0
    assert "nobody may do anything yet" in capsys.readouterr().err
    assert kc_json(capsys, "ssh-console", "keys", "--remove", key["fingerprint"])["items"] == []
    assert run(["ssh-console", "keys", "--remove", key["fingerprint"]]) == 3
    assert run(["ssh-console", "keys", "--subject", "alice"]) == 2
    # Without --subject it is whose the comment says.
    assert kc_json(capsys, "ssh-console", "keys", "--add", str(public))["items"][0]["subject"] == "bob"


def test_sshd_is_told_one_command_for_a_known_key_and_nothing_otherwise(
    home: Path, public: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("KC_HOME", str(home))
    kc_json(capsys, "ssh-console", "keys", "--add", str(public), "--subject", "alice")
    fingerprint = kc_json(capsys, "ssh-console", "keys")["items"][0]["fingerprint"]
    kind, blob, _comment = public.read_text().split()
    assert run(["__ssh-keys", "kc", fingerprint, kind, blob]) == 0
    line = capsys.readouterr().out
    assert line.startswith('restrict,pty,command="exec ')
    assert line.endswith(f'" {kind} {blob}\n')
    assert f"--fingerprint {fingerprint}" in line
    assert f"--place=KC_HOME={home}" in line
    for words in (("SHA256:other", kind, blob), (fingerprint, kind, "AAAA"), (fingerprint, "ssh-rsa", blob)):
        assert run(["__ssh-keys", "kc", *words]) == 0
        assert capsys.readouterr() == ("", "")
    (home / "config" / "ssh-keys").chmod(0o666)
    assert run(["__ssh-keys", "kc", fingerprint, kind, blob]) == 0
    assert capsys.readouterr() == ("", "")


def test_what_sshd_asks_imports_neither_screens_nor_hosts(home: Path):
    code = (
        "import sys; from kc_tui.cli.main import run; run(['__ssh-keys', 'kc', 'SHA256:x', 'ssh-ed25519', 'AAAA']);"
        "print(sorted({'textual', 'libvirt', 'pydantic', 'asyncio', 'cryptography', 'tinydb'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "KC_HOME": str(home)},
    )  # fmt: skip
    assert done.stdout == "[]\n"


def test_a_line_holds_whatever_is_in_a_path():
    line = build_line("ssh-ed25519 AAAA", build_command("SHA256:x", ['KC_HOME=/a "b" \\c $(id)']))
    assert line.count('"') - line.count('\\"') == 2
    inner = line[line.index('"') + 1 : line.rindex('"')].replace('\\"', '"').replace("\\\\", "\\")
    echoed = subprocess.run(
        ["sh", "-c", inner.replace("exec ", "printf '%s\\n' ", 1)],
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    assert echoed.stdout.splitlines()[-1] == '--place=KC_HOME=/a "b" \\c $(id)'


# --- the configuration


def test_every_setting_of_sshd_has_a_reason_above_it():
    text = write_config("kc", "/usr/local/libexec/kc-ssh-keys")
    lines = text.splitlines()
    assert "Match User kc" in lines
    assert lines[-1] == "Match all"
    assert SETTINGS[0][2]
    for keyword in ("PermitTunnel no", "DisableForwarding yes", "TrustedUserCAKeys none", "PermitUserRC no"):
        assert lines[lines.index(f"    {keyword}") - 1].startswith("    # ")


def test_it_is_printed_with_the_program_that_goes_with_it(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("KC_HOME", str(home))
    printed = kc_json(capsys, "ssh-console", "print", "--user", "console", "--keys-command", "/opt/keys")
    assert "Match User console\n" in printed["config"]
    assert "AuthorizedKeysCommand /opt/keys %u %f %t %k" in printed["config"]
    assert f"KC_HOME={home}; export KC_HOME" in printed["wrapper"]
    assert run(["ssh-console", "print", "--user", "a\nb"]) == 2


def test_the_program_of_sshd_quotes_what_it_exports(tmp_path: Path):
    path = tmp_path / "wrapper"
    path.write_text(write_wrapper(["KC_HOME=/a b;$(id)"]).replace("exec ", 'printf "%s\\n" "$KC_HOME" #', 1))
    done = subprocess.run(["sh", str(path)], capture_output=True, text=True, check=True, timeout=10)
    assert done.stdout == "/a b;$(id)\n"


def make_system(folder: Path, more: str = "") -> Path:
    """Make as much of a Debian system as installing touches."""
    ssh = folder / "etc" / "ssh"
    (ssh / "sshd_config.d").mkdir(parents=True)
    (folder / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\nops:x:0:0::/:/bin/sh\n")
    (folder / "etc" / "shadow").write_text("root:*:1::::::\n")
    (folder / "etc" / "group").write_text("root:x:0:\nlibvirt:x:64:\n")
    (folder / "etc" / "gshadow").write_text("root:*::\nlibvirt:!::\n")
    (folder / "etc" / "login.defs").write_text("SYS_UID_MIN 100\nSYS_UID_MAX 999\nSYS_GID_MIN 100\nSYS_GID_MAX 999\n")
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(ssh / "host")]
    subprocess.run(command, check=True, timeout=30)
    (ssh / "sshd_config").write_text(f"{more}HostKey {ssh}/host\nInclude {ssh}/sshd_config.d/*.conf\n")
    return folder


def test_a_dry_run_says_all_and_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    system = make_system(tmp_path / "system")
    before = sorted(path for path in system.rglob("*"))
    assert run(["ssh-console", "install", "--root", str(system), "--dry-run"]) == 0
    said = capsys.readouterr().err
    for words in ("useradd", "usermod", "kc-ssh-keys", "kc.conf"):
        assert words in said
    assert sorted(path for path in system.rglob("*")) == before


def test_who_is_not_root_gets_the_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert run(["ssh-console", "install", "--root", str(make_system(tmp_path / "system"))]) == 5
    said = capsys.readouterr().err
    assert "only root can do it" in said
    assert "useradd" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root installs")
def test_installing_is_safe_to_repeat_and_undone_where_sshd_would_do_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    system = make_system(tmp_path / "system")
    first = kc_json(capsys, "ssh-console", "install", "--root", str(system))
    assert len(first["steps"]) == 5
    assert kc_json(capsys, "ssh-console", "install", "--root", str(system))["steps"] == []
    entry = next(line for line in (system / "etc/passwd").read_text().splitlines() if line.startswith("kc:"))
    assert entry.endswith(":/var/lib/kc:/bin/sh")
    assert "kc:*:" in (system / "etc/shadow").read_text()
    assert "libvirt:x:64:kc" in (system / "etc/group").read_text()
    assert (system / "usr/local/libexec/kc-ssh-keys").stat().st_mode & 0o777 == 0o755
    config = system / "etc/ssh/sshd_config.d/kc.conf"
    config.unlink()
    whole = system / "etc/ssh/sshd_config"
    whole.write_text("Match User kc\n    PermitTunnel yes\nMatch all\n" + whole.read_text())
    assert run(["ssh-console", "install", "--root", str(system)]) == 4
    assert "PermitTunnel is yes for kc" in capsys.readouterr().err
    assert not config.exists()
    whole.write_text("Nonsense yes\n")
    assert run(["ssh-console", "install", "--root", str(system)]) == 8
    assert "kc.conf was not written" in capsys.readouterr().err
    assert run(["ssh-console", "install", "--root", str(system), "--user", "ops"]) == 8


# --- the environment and the words


def test_the_environment_is_built_from_nothing():
    given = {"LC_ALL": "x", "LD_PRELOAD": "x", "TERM": "\x1b]0;x\x07", "SSH_CONNECTION": "1 2 3 4", "PYTHONPATH": "x"}
    built = build_environment(given, ["KC_HOME=/srv/kc"])
    assert set(built) == {"PATH", "LANG", "HOME", "USER", "LOGNAME", "TERM", "KC_HOME", "SSH_CONNECTION"}
    assert built["TERM"] == "xterm-256color"


@pytest.mark.parametrize(
    ("name", "chosen"),
    [("xterm", "xterm"), ("tmux-256color", "tmux-256color"), ("xterm-kitty", "xterm-kitty"), ("dumb", "dumb"),
     ("", "xterm-256color"), ("xterm\n", "xterm-256color"), ("../../x", "xterm-256color"), ("XTERM", "xterm-256color")],
    ids=["xterm", "tmux", "kitty", "dumb", "none", "newline", "path", "upper"],
)  # fmt: skip
def test_a_terminal_is_one_that_is_known(name: str, chosen: str):
    assert choose_terminal(name) == chosen


def test_words_are_split_and_nothing_more():
    assert split_command("kc vm list -l 'tenant=a b'") == ["vm", "list", "-l", "tenant=a b"]
    assert split_command("vm show $(id) `id` ; id\nid > x") == [
        "vm", "show", "$(id)", "`id`", ";", "id", "id", ">", "x"
    ]  # fmt: skip


# --- what there is for a visitor


def test_each_command_is_decided_upon():
    """A command that is new is served to nobody until somebody has thought about it."""
    served_in_part = {noun: entry for noun, entry in NOUNS.items() if entry.summary and noun in SERVED}
    refused = {
        f"{noun} {verb}".strip()
        for noun, entry in served_in_part.items()
        for verb in load_commands(entry)
        if verb not in SERVED[noun]
    }
    assert refused == {
        *(f"{kind} edit" for kind in ("vm", "image", "network", "type", "token")),
        "vm viewer", "store show", "store copy", "token attenuate", "token inspect",
    }  # fmt: skip
    assert {noun for noun, entry in NOUNS.items() if entry.summary} - set(SERVED) <= SERVICE_NOUNS


def test_every_argument_that_names_a_file_says_so():
    for noun, entry in NOUNS.items():
        for path, command in walk_commands(noun, entry):
            if not isinstance(command, Command) or noun not in SERVED:
                continue
            parser = build_parser(path, command)
            for action in parser._actions:
                if isinstance(action.metavar, str) and ("FILE" in action.metavar or "DIR" in action.metavar):
                    assert action.dest in parser.files, f"{path} {action.metavar}"


@pytest.mark.parametrize(
    "line",
    ["vm edit web", "vm viewer web", "store copy a b", "profile list", "completion bash", "__resume",
     "ssh-console keys", "--profile x vm list", "vm list --profile x", "__ssh-shell --fingerprint x"],
    ids=str,
)  # fmt: skip
def test_what_is_of_the_machine_is_denied(line: str, capsys: pytest.CaptureFixture[str]):
    service = MemoryService()
    service.add_vm("web")
    assert visit(service, *line.split()) == 5
    assert capsys.readouterr().out == ""


def test_what_a_visitor_is_told_of_is_what_there_is(capsys: pytest.CaptureFixture[str]):
    assert visit(MemoryService(), "--help") == 0
    root = capsys.readouterr().out
    assert "ssh-console" not in root
    assert visit(MemoryService(), "vm", "--help") == 0
    assert "viewer" not in capsys.readouterr().out


def test_a_file_is_refused_and_a_text_is_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, home: Path
):
    monkeypatch.setenv("KC_HOME", str(home))
    create = ("vm", "create", "web", "--image", "starter", "--type", "tiny", "--no-network")
    assert visit(MemoryService(), *create, "--ssh-key", "/etc/passwd") == 2
    assert visit(MemoryService(), *create, "--ssh-key", "ssh-ed25519 AAAA") in (0, 3)
    assert visit(MemoryService(), *create, "--user-data", "/etc/passwd") == 2
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"#cloud-config\n")))
    assert visit(MemoryService(), *create, "--user-data", "-") in (0, 3)
    assert "there are no files over SSH" in capsys.readouterr().err
