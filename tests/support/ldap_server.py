"""A slapd of a test's own, on loopback, with TLS by a CA of its own; and servers that do not answer."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from support.authenticating import running
from support.ssh_daemon import free_port

BASE = "dc=example,dc=org"
PEOPLE, GROUPS = f"ou=people,{BASE}", f"ou=groups,{BASE}"
ROOT_PASSWORD, SERVICE_PASSWORD = "root-s3cret", "service-s3cret"
PASSWORD = "alice-pä:ss"
_ENTRIES = f"""\
dn: {BASE}
objectClass: dcObject
objectClass: organization
o: Example

dn: {PEOPLE}
objectClass: organizationalUnit

dn: {GROUPS}
objectClass: organizationalUnit

dn: ou=own,{BASE}
objectClass: organizationalUnit

dn: cn=kc,{BASE}
objectClass: organizationalRole
objectClass: simpleSecurityObject
userPassword: {SERVICE_PASSWORD}

dn: uid=alice,{PEOPLE}
objectClass: inetOrgPerson
cn: Alice
sn: A
mail: alice@example.org
mail: shared@example.org
userPassword: {PASSWORD}

dn: uid=bob,{PEOPLE}
objectClass: inetOrgPerson
cn: Bob
sn: B
mail: shared@example.org
userPassword: bob-s3cret

dn: cn=ops,{GROUPS}
objectClass: groupOfNames
member: uid=alice,{PEOPLE}

dn: cn=readers,{GROUPS}
objectClass: groupOfNames
member: uid=alice,{PEOPLE}
member: uid=bob,{PEOPLE}

dn: cn=admins,ou=own,{BASE}
objectClass: groupOfNames
member: uid=bob,{PEOPLE}
"""


class Directory(NamedTuple):
    """Where a slapd listens; `ca` signed its certificate, `other_ca` did not."""

    url: str
    secure_url: str
    ca: Path
    other_ca: Path


def _openssl(*arguments: str, folder: Path) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)


def make_certificates(folder: Path) -> None:
    """Make two CAs, `ca.pem` and `other.pem`, and `server.pem` by the first one for 127.0.0.1."""
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for name in ("ca", "other"):
        _openssl(
            "req", "-x509", *key, "-days", "2", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem",
            folder=folder,
        )  # fmt: skip
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    _openssl("req", "-new", *key, "-subj", "/CN=server", "-keyout", "server.key", "-out", "server.csr", folder=folder)
    _openssl(
        "x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2",
        "-extfile", "names", "-out", "server.pem", folder=folder,
    )  # fmt: skip


@contextmanager
def slapd(folder: Path) -> Iterator[Directory]:
    """Run a slapd that takes anonymous binds with a name, as careless ones do, until the block ends."""
    program = shutil.which("slapd", path="/usr/sbin:/usr/bin")
    if program is None:
        pytest.fail("no slapd: make system WITH_TESTS=yes installs it")
    make_certificates(folder)
    (folder / "db").mkdir()
    configuration = folder / "slapd.conf"
    configuration.write_text(
        f"""\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
pidfile {folder}/pid
allow bind_anon_cred bind_anon_dn
TLSCACertificateFile {folder}/ca.pem
TLSCertificateFile {folder}/server.pem
TLSCertificateKeyFile {folder}/server.key
database mdb
suffix "{BASE}"
rootdn "cn=root,{BASE}"
rootpw {ROOT_PASSWORD}
directory {folder}/db
overlay memberof
access to attrs=userPassword by anonymous auth by * none
access to * by * read
"""
    )
    plain, secure = free_port(), free_port()
    directory = Directory(
        f"ldap://127.0.0.1:{plain}", f"ldaps://127.0.0.1:{secure}", folder / "ca.pem", folder / "other.pem"
    )
    command = [program, "-f", str(configuration), "-h", f"{directory.url} {directory.secure_url}", "-d", "0"]
    with running(command, plain, secure):
        subprocess.run(
            ["ldapadd", "-x", "-H", directory.url, "-D", f"cn=root,{BASE}", "-w", ROOT_PASSWORD],
            input=_ENTRIES.encode(), check=True, capture_output=True, timeout=30,
        )  # fmt: skip
        yield directory


@contextmanager
def tarpit() -> Iterator[int]:
    """Listen on a port of loopback, take every connection, and say nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield listener.getsockname()[1]


@contextmanager
def full_backlog() -> Iterator[int]:
    """Listen on a port of loopback whose queue is full: whoever connects is not even refused."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            client = stack.enter_context(socket.socket())
            client.settimeout(0)
            client.connect_ex(listener.getsockname())
        with socket.socket() as probe:
            probe.settimeout(0.5)
            with pytest.raises(TimeoutError):
                probe.connect(listener.getsockname())
        yield listener.getsockname()[1]
