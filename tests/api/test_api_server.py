"""The server's sockets, certificates and end."""

from __future__ import annotations

import datetime as dt
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
import time
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.api_server import running_server

from backend.api.listeners import bind_tcp, bind_unix, parse_address
from backend.api.logs import configure_logs, remove_logs
from backend.api.tls import Tls, TlsFiles
from backend.errors import ConflictError, NotFoundError, RefusedError, UsageError


def make_certificate(folder: Path, name: str) -> TlsFiles:
    """Write a certificate of its own signature, and its key; the name tells it from others."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = TlsFiles(str(folder / "kc.crt"), str(folder / "kc.key"))
    Path(files.certificate).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    Path(files.key).write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


# --- the unix socket


@pytest.mark.parametrize("mask", [0o000, 0o077])
@pytest.mark.parametrize("mode", [0o660, 0o600])
def test_the_socket_has_its_mode_whatever_the_mask(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        listener = bind_unix(tmp_path / "kc.sock", mode=mode)
    finally:
        assert os.umask(before) == mask
    assert stat.S_IMODE((tmp_path / "kc.sock").stat().st_mode) == mode
    listener.close()
    assert not (tmp_path / "kc.sock").exists()


def test_a_socket_that_was_left_is_removed_and_one_in_use_is_not(tmp_path: Path) -> None:
    path = tmp_path / "kc.sock"
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    first = bind_unix(path)
    first.socket.listen()
    with pytest.raises(ConflictError):
        bind_unix(path)
    first.close()
    bind_unix(path).close()


def test_what_others_listen_on_or_keep_there_stays(tmp_path: Path) -> None:
    path = tmp_path / "kc.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(ConflictError, match="something listens"):
            bind_unix(path)
    path.unlink()
    path.write_text("mine")
    with pytest.raises(ConflictError, match="something else"):
        bind_unix(path)
    assert path.read_text() == "mine"
    with pytest.raises(NotFoundError):
        bind_unix(tmp_path / "other.sock", group="no-such-group")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_the_kernel_says_who_is_at_the_other_end(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for folder in (tmp_path.parent, tmp_path.parent.parent):
        folder.chmod(folder.stat().st_mode | 0o011)
    with running_server(tmp_path) as server:
        assert stat.S_IMODE(server.socket.stat().st_mode) == 0o660
        request = "GET /v1/session HTTP/1.1\\r\\nHost: kc\\r\\nConnection: close\\r\\n\\r\\n"
        program = (
            "import os, socket, sys\n"
            "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "line = socket.socket(socket.AF_UNIX)\n"
            f"line.connect({str(server.socket)!r})\n"
            f"line.sendall(b'{request}')\n"
            "print(line.recv(65536).split()[1].decode())\n"
        )
        closed = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30
        )
        assert "PermissionError" in closed.stderr
        server.socket.chmod(0o666)
        opened = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
        assert opened.stdout.strip() == "401"


# --- TCP and TLS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("[::1]:8470", ("::1", 8470)),
        (":1", ("", 1)),
        ("localhost:0", ("localhost", 0)),
    ],
)
def test_addresses_are_read(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize("text", ["", "80", "host", "::1:80", "h:99999", "h:x", "h:1:2"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_address(text)


def test_credentials_never_cross_a_network_in_the_clear_unasked() -> None:
    with pytest.raises(UsageError, match="in the clear"):
        bind_tcp("0.0.0.0:0", is_secure=False, is_insecure=False)
    for listener in (
        *bind_tcp("0.0.0.0:0", is_secure=True, is_insecure=False),
        *bind_tcp("0.0.0.0:0", is_secure=False, is_insecure=True),
    ):
        listener.close()
    (taken,) = bind_tcp("127.0.0.1:0", is_secure=False, is_insecure=False)
    taken.socket.listen()
    port = taken.socket.getsockname()[1]
    with pytest.raises(ConflictError):
        bind_tcp(f"127.0.0.1:{port}", is_secure=False, is_insecure=False)
    taken.close()


def peer_name(port: int, context: ssl.SSLContext) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line, context.wrap_socket(line) as secured:
        found = secured.getpeercert(binary_form=True)
        assert found is not None
        return x509.load_der_x509_certificate(found).subject.public_bytes()


def test_a_certificate_is_renewed_while_connections_stay(tmp_path: Path) -> None:
    files = make_certificate(tmp_path, "old")
    tls = Tls(files)
    anyone = ssl.create_default_context()
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    trusting = ssl.create_default_context(cafile=files.certificate)
    with running_server(tmp_path, tls=tls) as server:
        port = int(server.url.rpartition(":")[2])
        assert b"old" in peer_name(port, anyone)
        with httpx.Client(base_url=server.url, verify=trusting, trust_env=False) as client:
            assert client.get("/healthz").status_code == 200
            make_certificate(tmp_path, "new")
            assert tls.reload()
            assert b"new" in peer_name(port, anyone)
            # The connection that is open goes on: another would not be trusted.
            assert client.get("/healthz").status_code == 200
        Path(files.key).write_text("broken")
        assert not tls.reload()
        assert b"new" in peer_name(port, anyone)
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSVersion.TLSv1_1"):
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(ssl.SSLError):
            peer_name(port, old)
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(server.url.replace("https", "http"), trust_env=False)


def test_a_certificate_that_will_not_do_is_refused(tmp_path: Path) -> None:
    files = make_certificate(tmp_path, "a")
    with pytest.raises(UsageError):
        Tls(TlsFiles(files.certificate, ""))
    with pytest.raises(RefusedError):
        Tls(TlsFiles(files.certificate, str(tmp_path / "missing")))
    Path(files.key).write_text("no key")
    with pytest.raises(RefusedError):
        Tls(files)


# --- the log


def test_the_log_has_no_secret_and_no_control_character(tmp_path: Path) -> None:
    handler = configure_logs(str(tmp_path / "log"))
    try:
        with running_server(tmp_path) as server, server.client() as client:
            client.get("/v1/vms/%1b%5d52;c;x%07?selector=password%3Dhunter2")
            client.get("/v1/vms", headers={"Cookie": "hunter3"})
            with server.client("hunter4") as wrong:
                wrong.get("/v1/vms")
            secrets = [server.god, server.acme]
    finally:
        remove_logs(handler)
    text = (tmp_path / "log").read_text()
    assert '"route": "/v1/vms/{name}"' in text
    assert '"status": 401' in text
    for secret in (*secrets, "hunter", "\x1b", "\\u001b"):
        assert secret not in text


# --- the whole command


def start(home: Path, *arguments: str) -> tuple[subprocess.Popen[str], list[str]]:
    """Start `kc serve`, and return it with the lines that it says until it listens."""
    environment = {**{k: v for k, v in os.environ.items() if not k.startswith("KC_")}, "KC_HOME": str(home)}
    process = subprocess.Popen(
        [sys.executable, "-m", "kc_tui", "serve", *arguments],
        env={**environment, "KC_LIBVIRT_URI": "test:///default"}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    said = []
    timer = threading.Timer(30, process.kill)
    timer.start()
    while not any("listening on" in line for line in said):
        line = process.stderr.readline()
        assert line, said
        said.append(line)
    timer.cancel()
    return process, said


def test_serve_listens_says_how_to_get_in_and_ends_in_good_order(tmp_path: Path) -> None:
    process, said = start(
        tmp_path, "--listen", "127.0.0.1:0", "--unix", str(tmp_path / "s"), "--log", str(tmp_path / "log")
    )
    url = next(word.rstrip(",") for line in said for word in line.split() if word.startswith("http"))
    assert process.stderr is not None
    assert "kc token create" in process.stderr.readline()
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(tmp_path / "s")), base_url="http://kc") as client:
        with client.stream("GET", "/v1/watch") as events:
            lines = events.iter_lines()
            assert next(lines) == ":"
            assert httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
            at = time.monotonic()
            process.send_signal(signal.SIGTERM)
            assert [line for line in lines if line][-1] == ": end"
        assert process.wait(20) == 0
    assert time.monotonic() - at < 10
    assert not (tmp_path / "s").exists()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/healthz", trust_env=False)
    process.stderr.close()


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    process, said = start(tmp_path, "--listen", "127.0.0.1:0", "--log", str(tmp_path / "log"))
    url = next(word.rstrip(",") for line in said for word in line.split() if word.startswith("http"))
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as slow:
        # Half a body: whoever sends it is waited for, but not after a second signal.
        slow.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n")
        assert slow.recv(65536).startswith(b"HTTP/1.1 200")
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        assert process.wait(8) == 0
    assert process.stderr is not None
    process.stderr.close()


def test_serve_refuses_what_is_not_safe(tmp_path: Path) -> None:
    environment = {**os.environ, "KC_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "kc_tui", "serve", "--listen", "0.0.0.0:0"],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "in the clear" in done.stderr
