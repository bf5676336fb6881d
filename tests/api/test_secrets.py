"""Canaries through a whole scenario of real processes: in no log, trail, message, process list, document or report."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pyotp
import pytest
from rich.pretty import pretty_repr
from support import memory_command
from support.app import make_app, running, until
from support.boot_sector import make_disk
from support.canaries import Canaries, watching_processes
from support.ssh_daemon import free_port
from support.world import Lab

from backend.api.gate import Head
from backend.auth.basic import read_basic, write_basic
from backend.auth.keys import MasterKey
from backend.auth.protocol import AuthRequest, Client, Decision
from backend.remote.address import parse_address
from backend.remote.options import RemoteOptions
from backend.remote.sessions import Grant
from backend.settings import load_settings
from kc_tui.cli.reporting import report_internal_error

PROGRAM = str(Path(memory_command.__file__))
TOKEN = re.compile(rb"kc[gts]_[A-Za-z0-9_-]{16,}")
CONFIG = """
[[auth.chain]]
type = "tokens"
[[auth.chain]]
type = "peer"
[[auth.chain]]
type = "all"
name = "staff"
of = [{ type = "htpasswd", file = "staff" }, { type = "otp" }]
[[auth.chain]]
type = "ldap"
url = "ldap://127.0.0.1:PORT"
startTls = false
[auth.chain.search]
base = "dc=example,dc=org"
filter = "(uid={user})"
bindDn = "cn=kc,dc=example,dc=org"
passwordFile = "ldap-password"

[[auth.grants]]
subject = "alice"
actions = ["*"]
"""


@dataclass
class Scene:
    """What the scenario left behind."""

    server: Path
    client: Path
    log: Path
    canaries: Canaries
    said: list[str] = field(default_factory=list)
    answers: list[httpx.Response] = field(default_factory=list)
    processes: set[bytes] = field(default_factory=set)
    openapi: str = ""
    metrics: str = ""
    export: bytes = b""


def run(home: Path, *arguments: str, stdin: str = "", program: tuple[str, ...] = ("-m", "kc_tui")) -> Any:
    """Return what a `kc` command left, after its end."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("KC_")}
    return subprocess.run(
        [sys.executable, *program, *arguments], input=stdin, capture_output=True, text=True, timeout=60, check=False,
        env={**environment, "KC_HOME": str(home), "KC_LIBVIRT_URI": "test:///default"},
    )  # fmt: skip


@contextmanager
def spawned(home: Path, *arguments: str, program: tuple[str, ...] = ("-m", "kc_tui")) -> Iterator[Any]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("KC_")}
    process = subprocess.Popen(
        [sys.executable, *program, *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**environment, "KC_HOME": str(home), "KC_LIBVIRT_URI": "test:///default"},
    )  # fmt: skip
    timer = threading.Timer(120, process.kill)
    timer.start()
    try:
        yield process
    finally:
        timer.cancel()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=40)


def furnish(scene: Scene) -> None:
    """Write what the server is configured with."""
    config, canaries = scene.server / "config", scene.canaries
    config.mkdir(parents=True)
    (config / "config.toml").write_text(CONFIG.replace("PORT", str(free_port())))
    password = config / "ldap-password"
    password.write_text(canaries.make("LDAP bind password") + "\n")
    password.chmod(0o600)
    subprocess.run(
        ["htpasswd", "-icB", str(config / "staff"), "alice"], input=canaries.make("password"), text=True, check=True,
        capture_output=True,
    )  # fmt: skip
    (config / "staff").chmod(0o600)
    (scene.server / "crash-secret").write_text(canaries.make("crash"))
    (scene.client / "files").mkdir(parents=True)
    data = f"#cloud-config\nwrite_files: [{{path: /k, content: {canaries.make('user-data')}}}]\n"
    (scene.client / "files" / "user-data").write_text(data)
    (scene.client / "files" / "disk").write_bytes(make_disk() + bytes(1 << 20))


def enrol(scene: Scene) -> str:
    """Give alice codes, and return the next one."""
    made = json.loads(run(scene.server, "auth", "otp", "enrol", "alice", "-o", "json").stdout)
    totp, now = pyotp.TOTP(scene.canaries.add("OTP seed", made["secret"])), time.time()
    done = run(scene.server, "auth", "otp", "enrol", "alice", "--code", totp.at(now - 30))
    assert done.returncode == 0, done.stderr
    for number, code in enumerate(done.stdout.split()):
        scene.canaries.add(f"recovery code {number}", code)
    return str(totp.at(now))


def log_in(scene: Scene, url: str, code: str) -> None:
    canaries = scene.canaries
    made = run(scene.server, "token", "create", "root", "--god", "--expires", "1d")
    god = canaries.add("god token", made.stdout.strip())
    for name in ("lab", "desk", "small", "bad"):
        told = run(scene.client, "profile", "add", name, "--url", url)
        assert told.returncode == 0, told.stderr
    wrong = f"kcg_{canaries.make('wrong token')}"
    commands = [
        (0, ["login", "lab", "--stdin", "--file"], god),
        (0, ["login", "desk", "--user", "alice", "--otp", "--stdin", "--file"], f"{canaries['password']}\n{code}\n"),
        (5, ["login", "bad", "--stdin", "--file"], wrong),
        (5, ["login", "bad", "--user", "alice", "--stdin", "--file"], canaries.make("wrong password")),
        (6, ["login", "bad", "--user", "bob", "--stdin", "--file"], f"{canaries.make('password for LDAP')}123456"),
        (5, ["login", "bad", "--stdin", "--file"], f"kct_{canaries.make('wrong macaroon')}"),
        (8, ["login", "bad", "--stdin", "--file"], f"{canaries.make('unsendable')}\x01"),
    ]
    for status, arguments, secret in commands:
        done = run(scene.client, *arguments, stdin=secret)
        assert done.returncode == status, (arguments, done.stderr)
        scene.said += [done.stdout, done.stderr]
    kept = (scene.client / "config" / "credentials.toml").read_text()
    (session,) = re.findall(r"kcs_[A-Za-z0-9_-]+", kept)
    canaries.add("session token", session)


def use_it(scene: Scene) -> None:
    """Do by commands what people do."""
    files, canaries = scene.client / "files", scene.canaries
    made = run(scene.client, "--profile", "lab", "token", "create", "ci", "--allow", "vm.*", "-l", "tenant=acme")
    limited = canaries.add("limited token", made.stdout.strip())
    scene.said.append(made.stderr)
    narrow = run(scene.client, "token", "attenuate", "-", "--allow", "vm.read", stdin=limited)
    canaries.add("narrower token", narrow.stdout.strip())
    scene.said.append(narrow.stderr)
    kept = run(scene.client, "login", "small", "--stdin", "--file", stdin=canaries["narrower token"])
    assert kept.returncode == 0, kept.stderr
    create = ("vm", "create", "web", "--image", "starter", "--network", "default", "--type", "tiny",
              "--user-data", str(files / "user-data"), "--meta", "tenant=acme")  # fmt: skip
    with spawned(scene.client, "--profile", "desk", "watch", "op", "token", "network"):
        for status, profile, arguments in (
            (0, "desk", create), (0, "lab", ("vm", "list")), (0, "small", ("vm", "list", "-o", "json", "-l", "name=x")),
            (5, "small", ("vm", "stop", "web")), (4, "desk", create),
            (0, "lab", ("image", "upload", str(files / "disk"), "--name", "mine")),
            (0, "lab", ("op", "list", "-o", "json")), (0, "lab", ("token", "list", "-o", "json")),
            (0, "lab", ("audit", "list", "-o", "json")), (0, "lab", ("auth", "check", "--action", "vm.read")),
        ):  # fmt: skip
            done = run(scene.client, "--profile", profile, *arguments)
            assert done.returncode == status, (arguments, done.stderr)
            scene.said += [done.stdout, done.stderr]
    listed = run(scene.server, "auth", "list", "-o", "json")
    assert "ldap" in listed.stdout, listed.stderr
    scene.said += [listed.stdout, listed.stderr]


def misuse_it(scene: Scene, url: str) -> None:
    """Send what fails, and gather what is said of it."""
    canaries = scene.canaries
    god = canaries["god token"]
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {god}"}, trust_env=False, timeout=20) as client:
        crashed = client.get("/v1/vms/web/screenshot")
        assert crashed.status_code == 500, crashed.text
        long = {"credential": f"Bearer {god}" + "x" * 9000, "action": "vm.read"}
        scene.answers += [
            crashed,
            client.get("/v1/vms", params={"token": god}),
            client.get("/v1/vms", params={"selector": f"a={god}("}),
            client.get("/v1/vms/absent", headers={"Cookie": god, "X-Api-Key": god}),
            client.post("/v1/auth/explain", json=long),
            client.post("/v1/auth/explain", json={"credential": f"Bearer {god}", "action": "vm.read"}),
            client.get("/v1/session"),
            client.get("/v1/operations", params={"all": "true"}),
            client.get("/v1/tokens", params={"all": "true"}),
            client.get("/v1/audit", params={"limit": 500}),
        ]
        for credential in (f"Bearer {god}x", f"Bearer {god[:-1]}", f"Basic {god}", f"Digest {god}", god):
            scene.answers.append(client.get("/v1/networks", headers={"Authorization": credential}))
        scene.openapi, scene.metrics = client.get("/openapi.json").text, client.get("/metrics").text


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("secrets")
    scene = Scene(folder / "server", folder / "client", folder / "log.jsonl", Canaries())
    furnish(scene)
    code = enrol(scene)
    serve = ("serve", "--listen", "127.0.0.1:0", "--unix", str(folder / "s"), "--log", str(scene.log))
    with watching_processes(str(folder)) as scene.processes:
        with spawned(scene.server, *serve, program=(PROGRAM,)) as process:
            line = process.stderr.readline()
            (url,) = re.findall(r"http://[0-9.:]+", line)
            log_in(scene, url, code)
            use_it(scene)
            misuse_it(scene, url)
        assert process.returncode == 0
    done = run(scene.server, "export", str(folder / "export"))
    assert done.returncode == 0, done.stderr
    scene.export = (folder / "export").read_bytes()
    return scene


def test_the_log_tells_of_everything_and_no_secret(scene: Scene) -> None:
    text = scene.log.read_text()
    assert '"internal error"' in text
    assert '"error": "ValueError"' in text
    assert "memory_command.py" in text
    assert '"status": 401' in text
    assert scene.canaries.find(text) == []
    assert not TOKEN.search(text.encode())


def test_the_audit_trail_tells_who_and_no_secret(scene: Scene) -> None:
    (trail,) = (path for path in scene.server.rglob("audit") if path.is_dir())
    text = b"".join(path.read_bytes() for path in trail.iterdir())
    assert b'"alice"' in text
    assert b'"token:root"' in text
    assert b"ldap" in text
    assert scene.canaries.find(text) == []
    assert not TOKEN.search(text)


def test_commands_say_no_secret(scene: Scene) -> None:
    assert len(scene.said) > 20
    assert [scene.canaries.find(text) for text in scene.said if scene.canaries.find(text)] == []


def test_answers_say_no_secret(scene: Scene) -> None:
    assert {answer.status_code for answer in scene.answers} >= {200, 400, 401, 404, 500}
    for answer in scene.answers:
        told = answer.text + str(answer.headers)
        assert scene.canaries.find(told) == [], (str(answer.url.path), told[:2000])
    assert scene.canaries.find(scene.openapi + scene.metrics) == []
    assert not TOKEN.search(scene.openapi.encode())


def test_no_process_shows_a_secret_to_others(scene: Scene) -> None:
    assert any(b"\0serve\0" in told for told in scene.processes)
    assert any(b"\0watch\0" in told for told in scene.processes)
    assert any(b"\0login\0" in told for told in scene.processes)
    assert [scene.canaries.find(told) for told in scene.processes if scene.canaries.find(told)] == []


def test_the_store_has_nothing_that_lets_anybody_in(scene: Scene) -> None:
    # What a customer writes into a VM is theirs, and is in its document.
    assert scene.canaries.find(scene.export) == ["user-data"]
    assert scene.canaries.find_in_files(scene.server / "data", but=["user-data"]) == {}
    assert b"web" in scene.export
    assert b"ci" in scene.export


def test_files_of_the_client_keep_credentials_in_one_place(scene: Scene) -> None:
    found = scene.canaries.find_in_files(scene.client)
    kept = {"god token", "session token", "narrower token"}
    assert {name: set(whats) for name, whats in found.items()} == {
        "config/credentials.toml": kept,
        "files/user-data": {"user-data"},
    }
    assert stat.S_IMODE((scene.client / "config" / "credentials.toml").stat().st_mode) == 0o600


def test_files_of_the_server_have_only_what_was_put_there(scene: Scene) -> None:
    found = scene.canaries.find_in_files(scene.server, but=["user-data"])
    assert found == {"config/ldap-password": ["LDAP bind password"], "crash-secret": ["crash"]}
    for path in scene.server.rglob("*.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_is_said_of_objects_has_none_of_their_secrets(tmp_path: Path) -> None:
    canaries = Canaries()
    secret = canaries.make("secret")
    request = AuthRequest("1", "vm.read", Client("tcp"), write_basic("alice", secret.encode()))
    environment = {"KC_HOME": str(tmp_path), "KC_AUTH_HEADER": f"Bearer {secret}", "KC_ETCD_PASSWORD": secret}
    settings = load_settings(environment=environment)
    options = RemoteOptions(parse_address("http://127.0.0.1:1"), tmp_path, find_credential=lambda: secret)
    assert settings.auth_header.endswith(secret)
    objects = [
        request, Decision("allow", "alice"), read_basic(request), settings, settings.etcd, options,
        Head(secret.encode(), "GET", "/", "h"), Grant(secret, ""), MasterKey(tmp_path / "key"),
    ]  # fmt: skip
    for each in objects:
        assert canaries.find(repr(each) + str(each) + pretty_repr(each) + f"{[each]!r}") == [], type(each)


async def test_a_report_of_a_crash_has_no_credential(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    canaries = Canaries()
    token = canaries.add("token", f"kcg_{'A' * 8}{canaries.make('part')[7:]}")
    password = canaries.make("password")

    def crash() -> None:
        request = AuthRequest("1", "vm.read", Client("tcp"), write_basic("alice", password.encode()))
        header = f"Bearer {token}"
        msg = f"header {header!r} of {request} is none"
        raise ValueError(msg)

    app = make_app(Lab(tmp_path))
    with pytest.raises(ValueError, match="is none"):  # noqa: PT012 - it is raised when the app has ended
        async with running(app) as pilot:
            app.call_later(crash)
            await until(pilot, lambda: app._exception is not None, "it crashes")
    assert app.crash_report is not None
    report = app.crash_report.read_text()
    assert "in crash" in report
    assert canaries.find(report) == []
    assert canaries.find(caplog.text) == []
    await asyncio.to_thread(app.session.gateway.join)


def test_nor_has_what_a_command_leaves_of_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    canaries = Canaries()
    token = canaries.add("token", f"kct_{canaries.make('part')}")
    header = canaries.make("header")
    monkeypatch.setenv("KC_HOME", str(tmp_path))
    monkeypatch.delenv("KC_DEBUG", raising=False)
    error = ValueError(f"no header: Bearer {header}, {{'token': '{token}'}}")
    for arguments in (["kc", "vm", "list"], ["kc", "vm", "list", "-o", "json"]):
        monkeypatch.setattr(sys, "argv", arguments)
        report_internal_error(ValueError, error, None)
        said = capsys.readouterr().err
        assert "ValueError: no header" in said
        assert canaries.find(said) == []
    assert "ValueError" in (tmp_path / "cache" / "last-error.txt").read_text()
    assert canaries.find_in_files(tmp_path) == {}


def test_a_canary_is_found_in_whatever_form() -> None:
    canaries = Canaries()
    secret, seed = canaries.make("secret"), canaries.add("seed", "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP")
    for before in ("", "a:", "alice:", "bob:x"):
        assert canaries.find(b"x" + write_basic("alice", f"{before}{secret}".encode()) + b"x") == ["secret"]
    assert canaries.find(secret.encode().hex() + " " + seed.lower()) == ["secret", "seed"]
    assert canaries.find(b"\0" + base64.b32decode(seed) + b"\0") == ["seed"]
    assert canaries.find("nothing of the kind") == []
