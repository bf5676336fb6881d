"""KC behind reverse proxies, unchanged, that speak TLS and HTTP/2: all that a remote KC does passes through them."""

from __future__ import annotations

import hashlib
import logging
import re
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from support.api_server import ApiServer, bearer, running_server
from support.authenticating import wait_until
from support.caddy import run_caddy
from support.kc import run_kc
from support.nginx import run_nginx
from support.ssh_daemon import free_port

from backend.errors import DeniedError, NotFoundError, UnreachableError
from backend.local.initialising import MACHINE_TYPES
from backend.remote import uploads
from backend.remote.address import parse_address
from backend.remote.options import RemoteOptions
from backend.remote.service import RemoteService

CONFIG = '[auth]\ntrustedProxies = ["127.0.0.2", "unix"]\n'
"""A proxy that is believed comes from 127.0.0.2, or over the unix socket; all else comes from 127.0.0.1."""
NGINX_TLS = """
ssl_certificate {folder}/{name}.pem; ssl_certificate_key {folder}/{name}.key; client_max_body_size 0;
location / {{
    proxy_pass http://{kc}; proxy_bind 127.0.0.2; proxy_http_version 1.1; proxy_request_buffering off;
    proxy_set_header Host $http_host; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $upgrading; proxy_read_timeout 1h;
}}
"""
NGINX_MAP = "map $http_upgrade $upgrading { default upgrade; '' ''; }"
CADDY_TLS = "tls {folder}/server.pem {folder}/server.key\nreverse_proxy unix/{socket}"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a CA, and its certificates for this machine (`server`, `other`) and another (`elsewhere`)."""
    folder = tmp_path_factory.mktemp("certificates")
    request = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj"

    def make(name: str, *more: str) -> None:
        command = [*request.split(), f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem", *more]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=30)

    make("ca")
    for name, place in (("server", "IP:127.0.0.1"), ("other", "IP:127.0.0.1"), ("elsewhere", "DNS:kc.example")):
        signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"]
        make(name, *signed, "-addext", f"subjectAltName={place}")
    return folder


class Front(NamedTuple):
    """A KC behind a proxy; `log` is the proxy's own."""

    url: str
    kc: ApiServer
    log: Path
    ca: Path

    def open(self, folder: Path, token: str = "") -> RemoteService:
        """Return a client by way of the proxy."""
        credential = f"Bearer {token or self.kc.god}"
        options = RemoteOptions(parse_address(self.url), folder, find_credential=lambda: credential, ca=str(self.ca))
        return RemoteService(options)


@pytest.fixture(scope="module")
def kc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    with running_server(tmp_path_factory.mktemp("kc"), config=CONFIG) as server:
        server.make_vm("ours", tenant="acme")
        server.make_vm("theirs", tenant="other")
        yield server


def nginx_lines(kc: ApiServer, certificates: Path, name: str = "server") -> str:
    return NGINX_TLS.format(folder=certificates, name=name, kc=kc.url.removeprefix("http://"))


@pytest.fixture(scope="module", params=["nginx", "caddy"])
def front(
    request: pytest.FixtureRequest, kc: ApiServer, certificates: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("front")
    if request.param == "nginx":
        running = run_nginx(folder, nginx_lines(kc, certificates), listen="ssl http2", http=NGINX_MAP)
    else:
        running = run_caddy(folder, CADDY_TLS.format(folder=certificates, socket=kc.socket), scheme="https")
    with running as port:
        yield Front(f"https://127.0.0.1:{port}", kc, folder / "access.log", certificates / "ca.pem")


@pytest.fixture
def remote(front: Front, tmp_path: Path) -> Iterator[RemoteService]:
    service = front.open(tmp_path)
    yield service
    service.close()


def test_lists_go_over_http2(front: Front, remote: RemoteService) -> None:
    assert [item["name"] for item in remote.list_documents("VM").items] == ["ours", "theirs"]
    lines = [line for line in front.log.read_text().splitlines() if "/v1/vms?" in line]
    assert lines
    assert all("HTTP/2.0" in line for line in lines)
    client = remote.transport._client(streaming=False)
    answer = client.get("/v1/vms", headers=bearer(front.kc.acme))
    assert (answer.http_version, answer.headers["kc-api"]) == ("HTTP/2", "1")
    assert [item["name"] for item in answer.json()["items"]] == ["ours"]


def test_errors_come_through_as_kc_tells_them(front: Front, tmp_path: Path) -> None:
    limited = front.open(tmp_path, front.kc.acme)
    with pytest.raises(NotFoundError, match="no such VM"):
        limited.get("VM", "theirs")
    with pytest.raises(DeniedError, match=r"vm\.pause"):
        limited.act("ours", "pause")
    limited.close()
    stranger = front.open(tmp_path, "kcg_" + "A" * 49)
    with pytest.raises(DeniedError):
        stranger.list_documents("VM")
    with pytest.raises(DeniedError):
        stranger.console("ours")
    stranger.close()


def test_a_console_passes_both_ways(remote: RemoteService) -> None:
    stream = remote.console("ours")
    stream.write(b"hello from far away\r")
    said = b""

    def has_answered() -> bool:
        nonlocal said
        said += stream.read(0.2) or b""
        return b"hello from far away\r\n# " in said

    wait_until(has_answered, "the guest answers")
    stream.close()


def test_changes_are_told_as_they_come(front: Front, remote: RemoteService, tmp_path: Path) -> None:
    since = remote.list_documents("MachineType", limit=1).revision
    feed = remote.watch(["MachineType"], since=since)
    # Whatever a proxy would hold back until there is more of it: nothing comes after this but signs of life.
    assert next(feed) is None
    name = f"type-{tmp_path.name}".replace("_", "-")[:40].strip("-")
    front.kc.service.create({"kind": "MachineType", "name": name, "spec": MACHINE_TYPES["tiny"]})
    event = next(event for event in feed if event is not None)
    assert (event.type, event.document["name"]) == ("created", name)
    assert next(feed) is None
    feed.close()  # type: ignore[attr-defined]


def test_an_upload_passes_in_parts(
    front: Front, remote: RemoteService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "PART_BYTES", 1 << 20)
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(range(256)) * 12_288 + front.url.encode().ljust(512))
    name = "disk-" + front.url.rpartition(":")[2]
    accepted = remote.upload_image(name, path, metadata={}, declared={"format": "raw"})
    assert accepted.operation is not None
    assert remote.wait(accepted.operation["name"], timeout=30)["status"]["state"] == "succeeded"
    digest = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    assert front.kc.service.get("Image", name)["spec"]["digest"] == digest
    assert sum("PATCH" in line for line in front.log.read_text().splitlines()) == 4


def test_where_a_request_began_is_believed_of_the_proxy_alone(front: Front, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "kc.requests")
    spoofed = {**bearer(front.kc.acme), "X-Forwarded-For": "192.0.2.66, 127.0.0.2", "X-Real-IP": "192.0.2.67"}
    through = httpx.HTTPTransport(http2=True, local_address="127.0.0.9", verify=_trust(front.ca))
    with httpx.Client(transport=through, base_url=front.url, headers=spoofed) as client:
        asked = client.get("/v1/vms")
    direct = httpx.get(f"{front.kc.url}/v1/vms", headers=spoofed, trust_env=False)
    assert (asked.status_code, direct.status_code) == (200, 200)
    with front.kc.client() as god:
        for answer, address in ((asked, "127.0.0.9"), (direct, "127.0.0.1")):
            known = answer.headers["x-request-id"]

            def find_entries(known: str = known) -> set[str]:
                found = god.get("/v1/audit", params={"selector": f"requestId={known}"}).json()["items"]
                return {entry["metadata"]["client"] for entry in found}

            def find_lines(known: str = known) -> set[str]:
                lines = [record.__dict__.get("fields", {}) for record in caplog.records]
                return {line["client"] for line in lines if line.get("requestId") == known}

            wait_until(lambda: find_entries() and find_lines(), "it is in the audit trail and in the log")
            assert (find_entries(), find_lines()) == ({address}, {address})
        assert "192.0.2." not in god.get("/v1/audit?limit=1000").text


def test_nobody_comes_in_as_the_proxy(front: Front) -> None:
    with httpx.Client(base_url=front.url, verify=_trust(front.ca), trust_env=False) as client:
        for headers in ({}, {"X-Forwarded-For": ""}, {"Connection": "close, X-Forwarded-For"}, {"Remote-User": "root"}):
            assert client.get("/v1/session", headers=headers).status_code == 401, headers


def _trust(authority: Path) -> Any:
    return ssl.create_default_context(cafile=str(authority))


# --- certificates


def test_a_server_that_cannot_be_verified_is_pinned_and_held_to(
    kc: ApiServer, certificates: Path, tmp_path: Path
) -> None:
    home, port = tmp_path / "client", free_port()

    def proxy(name: str) -> Any:
        return run_nginx(
            tmp_path / name, nginx_lines(kc, certificates, name), listen="ssl http2", http=NGINX_MAP, port=port
        )

    def run(*arguments: str) -> Any:
        return run_kc(home, *arguments, timeout=60, KC_AUTH_HEADER=f"Bearer {kc.god}")

    url = f"https://127.0.0.1:{port}"
    command = ["openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", str(certificates / "elsewhere.pem")]
    known = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.partition("=")[2]
    with proxy("elsewhere"):
        unasked = run("profile", "add", "lab", "--url", url)
        assert unasked.status == 2, unasked.stderr
        shown = re.search(r"--fingerprint (SHA256:\S+)", unasked.stderr)
        assert shown is not None, unasked.stderr
        added = run("profile", "add", "lab", "--url", url, "--fingerprint", known.strip())
        assert added.status == 0, added.stderr
        assert shown[1] in (home / "config" / "config.toml").read_text()
        assert run("login", "lab", "--file").status == 0
        # From here on it is the file that has the credential.
        listed = run_kc(home, "--profile", "lab", "vm", "list", "-o", "name", timeout=60)
        assert (listed.status, listed.stdout.split()) == (0, ["ours", "theirs"]), listed.stderr
    with proxy("other"):
        changed = run("--profile", "lab", "vm", "list")
        assert changed.status == 5, changed.stderr
        assert "not the one that was pinned" in changed.stderr
        log = (tmp_path / "other" / "access.log").read_text()
        assert log == ""
        vouched = run("profile", "add", "rack", "--url", url, "--ca", str(certificates / "ca.pem"))
        assert vouched.status == 0, vouched.stderr
        listed = run("--profile", "rack", "vm", "list", "-o", "name")
        assert (listed.status, listed.stdout.split()) == (0, ["ours", "theirs"]), listed.stderr


def test_a_certificate_for_another_name_is_not_taken(kc: ApiServer, certificates: Path, tmp_path: Path) -> None:
    lines = nginx_lines(kc, certificates, "elsewhere")
    with run_nginx(tmp_path / "proxy", lines, listen="ssl http2", http=NGINX_MAP) as port:
        front = Front(f"https://127.0.0.1:{port}", kc, tmp_path, certificates / "ca.pem")
        remote = front.open(tmp_path)
        with pytest.raises(UnreachableError, match="certificate is not to be trusted"):
            remote.list_documents("VM")
        with pytest.raises(UnreachableError, match="certificate is not to be trusted"):
            remote.console("ours")
        remote.close()
        assert (tmp_path / "proxy" / "access.log").read_text() == ""
