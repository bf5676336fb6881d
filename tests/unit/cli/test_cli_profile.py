"""`kc profile`: tables come and go, everything else in config.toml stays; servers are trusted on purpose alone."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Result
from support.fake_kc import Reply, answering, make_certificate, serving_context

from kc_tui.cli.main import run

Cli = Callable[..., Result]
CONFIG = """# my settings

[ui]
theme = "dusk"  # the good one

# the rack in the cellar
[profiles.rack]
libvirt = "qemu+ssh://rack/system"

[keys]   # and keys
"app.quit" = ["q"]
"""


@pytest.fixture
def cli(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.setenv("KC_HOME", str(tmp_path))
    for name in ("KC_PROFILE", "KC_URL", "KC_AUTH_HEADER", "KC_LIBVIRT_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.stdin", None)

    def call(*arguments: str) -> Result:
        capsys.readouterr()
        code = run(arguments)
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config" / "config.toml"
    path.parent.mkdir()
    path.write_text(CONFIG)
    return path


def read(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text())


def test_a_profile_is_added_and_all_else_stays(cli: Cli, config: Path) -> None:
    assert cli("profile", "add", "lab", "--url", "unix:/run/kc/kc.sock").code == 0
    assert config.read_text() == CONFIG + '\n[profiles.lab]\nurl = "unix:/run/kc/kc.sock"\n'
    assert config.stat().st_mode & 0o777 == 0o600


def test_a_first_profile_makes_the_file(cli: Cli, tmp_path: Path) -> None:
    assert cli("profile", "add", "rack", "--libvirt", "qemu+ssh://rack/system").code == 0
    assert read(tmp_path / "config" / "config.toml") == {"profiles": {"rack": {"libvirt": "qemu+ssh://rack/system"}}}
    listed = cli("profile", "list", "-o", "json").json()["items"]
    assert [(item["name"], item["isUsed"]) for item in listed] == [("local", True), ("rack", False)]


def test_adding_and_removing_leaves_the_file_as_it_was(cli: Cli, config: Path) -> None:
    cli("profile", "add", "lab", "--url", "unix:/run/kc.sock", "--header", "X-Token")
    assert read(config)["profiles"]["lab"] == {"url": "unix:/run/kc.sock", "header": "X-Token"}
    assert cli("profile", "remove", "lab").code == 0
    assert config.read_text() == CONFIG


def test_removing_one_in_the_middle_keeps_the_comment_of_what_follows(cli: Cli, config: Path) -> None:
    config.write_text(CONFIG.replace("\n[keys]", "\n# keys follow\n[keys]"))
    assert cli("profile", "remove", "rack").code == 0
    text = config.read_text()
    assert "rack/system" not in text
    assert "# keys follow\n[keys]   # and keys" in text
    assert text.startswith('# my settings\n\n[ui]\ntheme = "dusk"  # the good one\n')
    assert read(config).keys() == {"ui", "keys"}


def test_a_profile_is_used_from_then_on_and_its_removal_brings_the_local_one_back(cli: Cli, config: Path) -> None:
    assert cli("profile", "use", "rack").code == 0
    assert config.read_text() == CONFIG.replace("\n[ui]", '\nprofile = "rack"\n[ui]')
    config.write_text(config.read_text().replace('profile = "rack"', "profile = 'rack'  # usually"))
    assert cli("profile", "use", "local").code == 0
    assert 'profile = "local"  # usually\n' in config.read_text()
    cli("profile", "use", "rack")
    done = cli("profile", "remove", "rack")
    assert "profile local is used" in done.err
    assert read(config)["profile"] == "local"


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('profiles = { rack = { libvirt = "x" } }\n', ("remove", "rack")),
        ('profiles.rack.libvirt = "x"\n', ("remove", "rack")),
        ('[profiles.rack]\nlibvirt = """\n[ui]\n"""\n', ("remove", "rack")),
        ('profiles = { rack = { libvirt = "x" } }\n', ("add", "lab", "--libvirt", "test:///default")),
        ('text = """\nprofile = "a"\n"""\n', ("use", "local")),
    ],
)
def test_what_cannot_be_changed_safely_is_left_alone(
    cli: Cli, config: Path, text: str, arguments: tuple[str, ...]
) -> None:
    config.write_text(text)
    done = cli("profile", *arguments)
    assert done.code == 8
    assert "editor" in done.err
    assert config.read_text() == text


def test_a_link_to_the_file_stays_one(cli: Cli, config: Path, tmp_path: Path) -> None:
    config.rename(tmp_path / "dotfile")
    config.symlink_to(tmp_path / "dotfile")
    assert cli("profile", "use", "rack").code == 0
    assert config.is_symlink()
    assert "rack" in (tmp_path / "dotfile").read_text()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("use", "none"), 3),
        (("remove", "none"), 3),
        (("remove", "local"), 3),
        (("add", "rack", "--libvirt", "x"), 4),
        (("add", "local", "--libvirt", "x"), 8),
        (("add", "a.b", "--libvirt", "x"), 8),
        (("add", "lab"), 2),
        (("add", "lab", "--libvirt", "x", "--url", "https://lab"), 2),
        (("add", "lab", "--url", "ftp://lab"), 8),
        (("add", "lab", "--url", "https://alice:canary@lab"), 8),
        (("add", "lab", "--url", "http://lab.example.org"), 8),
        (("add", "lab", "--url", "unix:/x", "--header", "a b"), 8),
        (("add", "lab", "--url", "https://lab", "--fingerprint", "SHA256:zz"), 8),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    cli: Cli, config: Path, arguments: tuple[str, ...], code: int
) -> None:
    done = cli("profile", *arguments)
    assert done.code == code, done.err
    assert config.read_text() == CONFIG
    assert "canary" not in done.err


def test_plain_http_to_another_machine_is_asked_for_by_name(cli: Cli, config: Path) -> None:
    assert cli("profile", "add", "lab", "--url", "http://lab.example.org", "--insecure").code == 0
    assert read(config)["profiles"]["lab"] == {"url": "http://lab.example.org", "insecure": True}


def test_a_certificate_that_nobody_vouches_for_is_shown_and_pinned_when_asked_for(
    cli: Cli, config: Path, tmp_path: Path
) -> None:
    context = serving_context(make_certificate(tmp_path / "tls"))
    with answering(lambda _asked: Reply({}), context) as server:
        refused = cli("profile", "add", "lab", "--url", server.url)
        assert refused.code == 2
        fingerprint = next(line for line in refused.err.splitlines() if line.startswith("SHA256:"))
        assert config.read_text() == CONFIG
        assert cli("profile", "add", "lab", "--url", server.url, "--fingerprint", fingerprint).code == 0
        assert server.asked == []
    assert read(config)["profiles"]["lab"] == {"url": server.url, "fingerprint": fingerprint}


def test_a_certificate_that_an_authority_vouches_for_is_not_pinned(cli: Cli, config: Path, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path / "tls")
    with answering(lambda _asked: Reply({}), serving_context(certificate)) as server:
        assert cli("profile", "add", "lab", "--url", server.url, "--ca", str(certificate)).code == 0
    assert read(config)["profiles"]["lab"] == {"url": server.url, "ca": str(certificate)}


def test_a_server_that_is_not_there_is_not_added(cli: Cli, config: Path) -> None:
    with answering(lambda _asked: Reply({})) as server:
        url = server.url.replace("http", "https")
    assert cli("profile", "add", "lab", "--url", url).code == 6
    assert config.read_text() == CONFIG
