"""`kc serve` as a process: its end, its sudden end, its sockets, certificates and settings while it runs."""

from __future__ import annotations

import base64
import hashlib
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.guest_vm import wait_until
from support.kc import Result, run_kc
from support.serving_kc import ServingKc

from backend.store.opening import open_store

pytestmark = pytest.mark.timeout(180)

NO_HOST = "test:///default"
HELD = Path(__file__).parents[1] / "support" / "held_kc.py"
# What systemd does: the sockets are the descriptors from 3 on, and the variables name the process.
ACTIVATOR = """
import fcntl, os, sys
count = int(sys.argv[1])
given = [fcntl.fcntl(int(text), fcntl.F_DUPFD_CLOEXEC, 100) for text in sys.argv[2 : 2 + count]]
for number, descriptor in enumerate(given):
    os.dup2(descriptor, 3 + number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(count))
os.execv(sys.executable, [sys.executable, *sys.argv[2 + count :]])
"""
Start = Callable[..., ServingKc]


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    """Starts servers on the test's home, which are gone after it."""
    started: list[ServingKc] = []

    def run(*arguments: str, **more: Any) -> ServingKc:
        started.append(ServingKc(home, *arguments, KC_LIBVIRT_URI=NO_HOST, **more))
        return started[-1]

    yield run
    for server in started:
        server.end(signal.SIGKILL)


def call(home: Path, *arguments: str, **environment: str) -> Result:
    return run_kc(home, *arguments, KC_LIBVIRT_URI=NO_HOST, timeout=60, **environment)


def make_god(home: Path) -> str:
    made = call(home, "token", "create", "god", "--god", "--expires", "1h")
    assert made.status == 0, made.stderr
    return made.stdout.strip()


def over_socket(path: Path) -> httpx.Client:
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://kc", timeout=20)


# --- operations at the end


class Held:
    """A server in which the making of a network stands still for as long as `hold` is there."""

    def __init__(self, home: Path, start: Start, *arguments: str) -> None:
        self.home = home
        self.hold = home.with_name("hold")
        self.hold.touch()
        path = home.with_name("s")
        program = (sys.executable, str(HELD), str(self.hold))
        paths = os.pathsep.join([str(HELD.parents[2]), *sys.path])
        self.server = start("--unix", str(path), *arguments, program=program, PYTHONPATH=paths)
        with over_socket(path) as client:
            spec = {"uplink": "isolated", "ipv4": {"subnet": "10.99.1.0/24", "mode": "dhcp"}}
            answer = client.post("/v1/networks", json={"kind": "Network", "name": "lab", "spec": spec})
        assert answer.status_code == 202, answer.text
        self.operation = answer.headers["Location"].rpartition("/")[2]
        wait_until(self.hold.with_suffix(".reached").exists, "the operation has begun", 20)

    def state(self) -> str:
        """Return how the operation stands, by the store alone: no other kc is to take it up."""
        store = open_store(f"tinydb:{self.home}/data/kc.db", create=False)
        try:
            found = store.find("Operation", self.operation)
            assert found is not None
            return str(found["status"]["state"])
        finally:
            store.close()

    def has_ended_well(self) -> bool:
        return self.state() == "succeeded"


def test_what_runs_when_the_server_is_told_to_end_ends_first(home: Path, start: Start) -> None:
    held = Held(home, start)
    held.server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not home.with_name("s").exists(), "it listens no more", 20)
    assert held.state() == "running"
    assert held.server.process.poll() is None
    held.hold.unlink()
    said = held.server.end(0)
    assert held.server.process.returncode == 0
    assert "in the background" not in said
    assert held.state() == "succeeded"


def test_what_takes_longer_is_handed_over_and_ends(home: Path, start: Start) -> None:
    held = Held(home, start, "--drain", "0.5")
    said = held.server.end()
    assert held.server.process.returncode == 0
    assert "1 operations go on in the background" in said
    # The step never came to its end in the server: who has it now does not stand still.
    assert held.hold.exists()
    wait_until(held.has_ended_well, held.state, 30)


def test_a_second_signal_ends_it_at_once_and_the_operation_goes_on(home: Path, start: Start) -> None:
    held = Held(home, start, "--drain", "60")
    held.server.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not home.with_name("s").exists(), "it listens no more", 20)
    begun = time.monotonic()
    said = held.server.end()
    assert time.monotonic() - begun < 8
    assert held.server.process.returncode == 0
    assert "go on in the background" in said
    wait_until(held.has_ended_well, held.state, 30)


def test_a_server_that_was_killed_leaves_its_operation_to_the_next(home: Path, start: Start) -> None:
    held = Held(home, start)
    held.server.end(signal.SIGKILL)
    assert held.state() == "running"
    # The socket of the dead one is in nobody's way.
    assert home.with_name("s").exists()
    start("--unix", str(home.with_name("s")))
    wait_until(held.has_ended_well, held.state, 30)
    with over_socket(home.with_name("s")) as client:
        found = client.get("/v1/networks/lab").json()
    assert "operation" not in found["status"]


def test_a_socket_on_which_a_server_lives_is_left_alone(home: Path, start: Start) -> None:
    path = home.with_name("s")
    start("--unix", str(path))
    refused = call(home, "serve", "--unix", str(path))
    assert refused.status == 4
    assert "another server listens there" in refused.stderr
    with over_socket(path) as client:
        assert client.get("/healthz").status_code == 200


# --- certificates


def make_certificate(folder: Path, file: str, name: str) -> tuple[str, str]:
    """Write a certificate of its own signature and its key; return their paths."""
    certificate, key = f"{folder}/{file}.crt", f"{folder}/{file}.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    return certificate, key


def served_name(port: int) -> str:
    """Return the name in the certificate that a new connection gets."""
    pem = ssl.get_server_certificate(("127.0.0.1", port), timeout=10)
    command = ["openssl", "x509", "-noout", "-subject"]
    return subprocess.run(command, input=pem, check=True, capture_output=True, text=True, timeout=30).stdout


def test_a_new_certificate_is_served_and_open_connections_stay(home: Path, start: Start, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "kc", "first")
    server = start("--listen", "127.0.0.1:0", "--tls-cert", certificate, "--tls-key", key)
    trusting = ssl.create_default_context(cafile=certificate)
    with httpx.Client(base_url=server.url, verify=trusting, trust_env=False) as client:
        assert client.get("/healthz").status_code == 200
        make_certificate(tmp_path, "kc", "second")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "second" in served_name(server.port), "the second is served", 2)
        # Without a signal, too, in a while.
        make_certificate(tmp_path, "kc", "third")

        def is_third() -> bool:
            # A connection that rests for five seconds is given up by either side, and another would not be trusted.
            assert client.get("/healthz").status_code == 200
            return "third" in served_name(server.port)

        wait_until(is_third, "the third is served", 10)
        assert client.get("/healthz").status_code == 200
    Path(key).write_text("broken")
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "the certificate before it stays" in server.log.read_text(), "it says so", 5)
    assert "third" in served_name(server.port)


def test_a_clients_certificate_is_checked_counts_and_is_audited(home: Path, start: Start, tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path, "kc", "server")
    ours, strange = make_certificate(tmp_path, "ours", "ours"), make_certificate(tmp_path, "strange", "strange")
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(Path(ours[0]).read_text())).digest()
    fingerprint = f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"
    limited = call(home, "token", "create", "ci", "--allow", "vm.read", "--expires", "1h").stdout.strip()
    bound = call(home, "token", "attenuate", limited, "--bound", f"tls:{fingerprint}")
    assert bound.status == 0, bound.stderr
    server = start(
        *("--listen", "127.0.0.1:0", "--tls-cert", certificate, "--tls-key", key, "--tls-client-ca", ours[0])
    )

    def ask(token: str, pair: tuple[str, str] | None) -> int:
        context = ssl.create_default_context(cafile=certificate)
        if pair is not None:
            context.load_cert_chain(*pair)
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.get(f"{server.url}/v1/vms", headers=headers, verify=context, trust_env=False).status_code

    assert ask(limited, None) == 200
    assert ask(bound.stdout.strip(), ours) == 200
    assert ask(bound.stdout.strip(), None) == 401
    with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError, httpx.ConnectError)):
        ask(limited, strange)
    server.end()
    items = call(home, "audit", "list", "-l", "transport=tls", "-o", "json").json()["items"]
    told = {(item["metadata"]["outcome"], item["metadata"].get("fingerprint", "")) for item in items}
    assert ("allow", fingerprint) in told
    assert ("allow", "") in told
    assert all(outcome != "allow" or found in ("", fingerprint) for outcome, found in told)


# --- settings

_CONFIG = """
[[auth.chain]]
type = "htpasswd"
file = "users"

[[auth.grants]]
subject = "alice"
actions = ["type.read"]
"""


def test_settings_that_change_take_effect_and_broken_ones_do_not(home: Path, start: Start) -> None:
    made = call(home, "type", "create", "bit", "--cpus", "1", "--memory", "128", "--disk", "1")
    assert made.status == 0, made.stderr
    folder = home / "config"
    folder.mkdir(exist_ok=True)
    users = str(folder / "users")
    subprocess.run(["htpasswd", "-cbB", "-C", "4", users, "alice", "red"], check=True, capture_output=True, timeout=30)
    (folder / "config.toml").write_text(_CONFIG)
    server = start("--listen", "127.0.0.1:0")

    def ask(user: str, password: str) -> int | list[str]:
        url = f"{server.url}/v1/machine-types"
        answer = httpx.get(url, auth=(user, password), trust_env=False, timeout=20)
        return [item["name"] for item in answer.json()["items"]] if answer.is_success else answer.status_code

    assert (ask("alice", "red"), ask("bob", "blue")) == (["bit"], 401)
    subprocess.run(["htpasswd", "-bB", "-C", "4", users, "bob", "blue"], check=True, capture_output=True, timeout=30)
    wait_until(lambda: ask("bob", "blue") == [], "bob is known, and sees nothing", 10)
    more = f'{_CONFIG}\n[[auth.grants]]\nsubject = "bob"\nactions = ["type.read"]\n'
    (folder / "config.toml").write_text(more)
    wait_until(lambda: ask("bob", "blue") == ["bit"], "the new grant counts", 10)

    def has_refused(times: int) -> bool:
        return bool(ask("bob", "blue")) and server.log.read_text().count("are not taken") >= times

    for times, broken in enumerate((more.replace('"htpasswd"', '"nothing"'), more + "[[auth", ""), 1):
        (folder / "config.toml").write_text(broken)
        wait_until(partial(has_refused, times), "the log says that the settings are not taken", 10)
        assert (ask("alice", "red"), ask("bob", "blue"), ask("bob", "red")) == (["bit"], ["bit"], 401)
        if broken:
            listed = call(home, "auth", "list")
            assert listed.status == 8
            assert "config.toml" in listed.stderr
            assert listed.stderr.count("\n") == 1
    (folder / "config.toml").write_text(_CONFIG)
    wait_until(lambda: ask("bob", "blue") == [], "the grant is taken back", 10)
    assert ask("alice", "red") == ["bit"]
    assert call(home, "auth", "list").status == 0


# --- systemd


def activate(listeners: Sequence[socket.socket], home: Path, start: Start, *arguments: str, **more: str) -> ServingKc:
    descriptors = tuple(listener.fileno() for listener in listeners)
    words = [str(len(descriptors)), *map(str, descriptors), "-m", "kc_tui"]
    return start(*arguments, program=(sys.executable, "-c", ACTIVATOR, *words), keep=descriptors, **more)


def test_sockets_of_systemd_are_served_and_it_is_told(home: Path, start: Start, tmp_path: Path) -> None:
    god = make_god(home)
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told,
    ):
        unix.bind(str(tmp_path / "u"))
        unix.listen()
        told.bind(str(tmp_path / "n"))
        told.settimeout(20)
        # Who comes before the server is there has but to wait.
        early = socket.create_connection(tcp.getsockname(), timeout=20)
        early.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        server = activate([tcp, unix], home, start, NOTIFY_SOCKET=str(tmp_path / "n"))
        assert early.recv(65536).startswith(b"HTTP/1.1 200")
        early.close()
        assert told.recv(100) == b"READY=1"
        assert server.port == tcp.getsockname()[1]
        headers = {"Authorization": f"Bearer {god}"}
        assert httpx.get(f"{server.url}/v1/vms", headers=headers, trust_env=False).status_code == 200
        with over_socket(tmp_path / "u") as client:
            assert client.get("/v1/vms").status_code == 200
        server.end()
        assert told.recv(100) == b"STOPPING=1"
        assert server.process.returncode == 0
        # It is systemd's.
        assert (tmp_path / "u").exists()


def test_a_socket_of_systemd_on_a_network_wants_tls_as_well(home: Path, start: Start) -> None:
    with socket.create_server(("0.0.0.0", 0)) as tcp:
        with pytest.raises(AssertionError, match="in the clear"):
            activate([tcp], home, start)
        assert activate([tcp], home, start, "--insecure").port == tcp.getsockname()[1]
