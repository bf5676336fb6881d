"""An etcd with TLS and users of its own: who may come in, and what those are told who may not."""

from __future__ import annotations

import base64
import json
import os
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conformance.test_store import make, names, put
from support.etcd_cluster import Cluster, ask, check_etcd

from backend.errors import DeniedError, KCError, RefusedError, UnreachableError
from backend.store.opening import open_store
from backend.store.protocol import EtcdOptions

PASSWORD = "correct horse"


def make_certificates(folder: Path) -> None:
    """Make a CA, a server certificate for 127.0.0.1, a client certificate, and another CA that nobody trusts."""
    openssl = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl += ["-days", "2"]
    for name in ("ca", "stranger"):
        run(folder, *openssl, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"]
    server = [
        "-addext",
        "subjectAltName=IP:127.0.0.1,DNS:localhost",
        "-addext",
        "extendedKeyUsage=serverAuth,clientAuth",
    ]
    run(folder, *openssl, "-subj", "/CN=server", *server, *signed, "-keyout", "server.key", "-out", "server.pem")
    client = ["-addext", "extendedKeyUsage=clientAuth", *signed]
    # The gateway of etcd takes no client's certificate with a CommonName.
    for name, subject in (("client", "/O=kc"), ("common", "/CN=kc")):
        run(folder, *openssl, "-subj", subject, *client, "-keyout", f"{name}.key", "-out", f"{name}.pem")


def run(folder: Path, *command: str) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=30)


class Guarded:
    """A cluster with TLS that asks for certificates and users, and what its operator would have to say to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cluster = Cluster(
            folder, 1, "--cert-file", str(folder / "server.pem"), "--key-file", str(folder / "server.key"),
            "--client-cert-auth", "--trusted-ca-file", str(folder / "ca.pem"), "--auth-token-ttl", "2",
            scheme="https",
        )  # fmt: skip
        self.url = self.cluster.url()

    def options(self, user: str = "kc", password: str = PASSWORD, **changed: str) -> EtcdOptions:
        files = {name: str(self.folder / f"{file}.pem") for name, file in (("ca", "ca"), ("certificate", "client"))}
        return EtcdOptions(**{**files, "key": str(self.folder / "client.key"), **changed}, user=user, password=password)

    def ask(self, path: str, token: str = "", **request: Any) -> dict[str, Any]:
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        context.load_cert_chain(self.folder / "client.pem", self.folder / "client.key")
        url = f"https://127.0.0.1:{self.cluster.members[0].port}/v3/{path}"
        asked = urllib.request.Request(url, json.dumps(request).encode(), {"Authorization": token} if token else {})
        with urllib.request.urlopen(asked, context=context, timeout=10) as answer:
            return json.loads(answer.read())

    def allow(self, role: str, prefix: str) -> None:
        start, end = prefix.encode(), prefix[:-1].encode() + b"0"
        permission = {"permType": "READWRITE", "key": code(start), "range_end": code(end)}
        self.ask("auth/role/add", name=role)
        self.ask("auth/role/grant", name=role, perm=permission)

    def add(self, user: str, role: str) -> None:
        self.ask("auth/user/add", name=user, password=PASSWORD)
        self.ask("auth/user/grant", user=user, role=role)


def code(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    check_etcd()
    folder = tmp_path_factory.mktemp("guarded")
    make_certificates(folder)
    one = Guarded(folder)
    try:
        one.cluster.start()
        one.ask("auth/role/add", name="root")
        one.add("root", "root")
        one.allow("kc", "/kc/")
        one.add("kc", "kc")
        one.allow("others", "/others/")
        one.add("stranger", "others")
        one.ask("auth/enable")
        yield one
    finally:
        one.cluster.stop()


def test_with_certificate_user_and_password_it_is_a_store_as_any(guarded: Guarded):
    store = open_store(guarded.url, etcd=guarded.options())
    assert store.url == guarded.url
    put(store, make())
    other = open_store(guarded.url.replace("etcds", "etcd"), etcd=guarded.options(), create=False)
    since = store.revision()
    assert names(other.list_documents("VM").items) == ["web"]
    put(other, make(spec={"cpus": 2}))
    (change,) = store.changes(since, wait=5)
    assert change.document["version"] == 2
    assert store.check(repair=True) == []
    other.close()
    store.close()


def test_a_token_that_has_run_out_is_renewed(guarded: Guarded):
    store = open_store(guarded.url, etcd=guarded.options())
    since = store.revision()
    assert store.changes(since, wait=4.5) == []  # longer than a token lives
    put(store, make("later"))
    guarded.cluster.stop()  # with it, it forgets all tokens
    guarded.cluster.start()
    put(store, make("latest"))
    assert names([change.document for change in store.changes(since)]) == ["later", "latest"]
    assert names([change.document for change in store.changes(store.revision() - 1, wait=5)]) == ["latest"]
    store.close()


@pytest.mark.parametrize(
    ("changed", "kind", "words"),
    [
        ({"password": "wrong"}, DeniedError, "neither this user nor this password"),
        ({"user": "nobody"}, DeniedError, "neither this user nor this password"),
        # Without a user, etcd takes its own gateway for one: by the CommonName of the server's certificate.
        ({"user": "", "password": ""}, DeniedError, "may not read and write"),
        ({"user": "stranger"}, DeniedError, "may not read and write"),
        ({"ca": "stranger.pem"}, UnreachableError, "not to be trusted"),
        ({"ca": ""}, UnreachableError, "not to be trusted"),
        ({"certificate": "", "key": ""}, DeniedError, "asks for a certificate"),
        ({"certificate": "stranger.pem", "key": "stranger.key"}, DeniedError, "asks for a certificate"),
        ({"certificate": "common.pem", "key": "common.key"}, DeniedError, "CommonName"),
        ({"ca": "missing.pem"}, RefusedError, "cannot be used"),
        ({"ca": "ca.key"}, RefusedError, "cannot be used"),
        ({"key": "stranger.key"}, RefusedError, "cannot be used"),
    ],
    ids=str,
)
def test_who_may_not_come_in_is_told_why(guarded: Guarded, changed: dict[str, str], kind: type[KCError], words: str):
    files = {
        name: str(guarded.folder / value) if value and name in ("ca", "certificate", "key") else value
        for name, value in changed.items()
    }
    with pytest.raises(kind, match=words) as raised:
        open_store(guarded.url, etcd=guarded.options(**files))
    assert raised.value.hint
    assert PASSWORD not in str(raised.value)


def test_the_wrong_scheme_is_told(guarded: Guarded, tmp_path: Path):
    with pytest.raises(UnreachableError, match="whether it speaks TLS"):
        open_store(guarded.url.replace("etcds", "etcd"))
    plain = Cluster(tmp_path, 1)
    plain.start()
    try:
        with pytest.raises(UnreachableError, match="whether it speaks TLS"):
            open_store(plain.url().replace("etcd:", "etcds:"))
        # A user is no harm where nobody asks for one.
        store = open_store(plain.url(), etcd=EtcdOptions(user="kc", password=PASSWORD))
        put(store, make())
        port = plain.members[0].port
        ask(port, "/v3/auth/user/add", {"name": "root", "password": PASSWORD})
        ask(port, "/v3/auth/role/add", {"name": "root"})
        ask(port, "/v3/auth/user/grant", {"user": "root", "role": "root"})
        assert "header" in ask(port, "/v3/auth/enable")
        with pytest.raises(DeniedError, match="asks for a user"):
            open_store(plain.url())
        with pytest.raises(DeniedError, match="neither this user"):
            put(store, make("b"))
        store.close()
    finally:
        plain.stop()


def test_the_password_is_taken_from_the_environment_of_kc(guarded: Guarded, tmp_path: Path):
    """From `config.toml` and KC_ETCD_PASSWORD to the document, as a user sets it up."""
    options = guarded.options()
    config = tmp_path / "config" / "config.toml"
    config.parent.mkdir()
    config.write_text(
        f'[etcd]\nca = "{options.ca}"\ncertificate = "{options.certificate}"\nkey = "{options.key}"\nuser = "kc"\n'
    )
    from backend.settings import load_settings

    environment = {**os.environ, "KC_HOME": str(tmp_path), "KC_STORE": guarded.url, "KC_ETCD_PASSWORD": PASSWORD}
    settings = load_settings(environment=environment)
    assert settings.paths.config_file == config
    store = open_store(settings.store_url, retentions=settings.retentions, etcd=settings.etcd)
    put(store, make("from-settings"))
    store.close()
