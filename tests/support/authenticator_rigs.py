"""The real authenticators, for the conformance suite: whoever writes another one adds it to `RIGS`."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pyotp

from backend.auth.basic import write_basic
from backend.auth.both import All
from backend.auth.enrolment import Enrolments
from backend.auth.forward import Forward
from backend.auth.htpasswd import Htpasswd
from backend.auth.keys import MasterKey
from backend.auth.otp import Otp
from backend.auth.peer import Peer
from backend.auth.protocol import Authenticator, AuthRequest, Client, Decision
from backend.auth.ssh_keys import SshKeys, parse_key
from backend.auth.tokens import Tokens, mint_session
from support.authenticators import (
    REQUEST,
    AuthServer,
    Scripted,
    basic,
    bearer,
    from_peer,
    make_context,
    serve_auth,
)

NOW = 1_800_000_000
PASSWORD = "correct horse"


class Rig(NamedTuple):
    """A real authenticator with a request that it lets in, one that it claims and refuses, and one that is not its own.

    `wrong` is None where whatever is claimed is right (the kernel vouches for it).
    """

    authenticator: Authenticator
    good: AuthRequest
    wrong: AuthRequest | None
    foreign: AuthRequest


@contextmanager
def _peer(folder: Path) -> Iterator[Rig]:
    authenticator = Peer(make_context(folder), {"type": "peer"})
    yield Rig(authenticator, from_peer(0), None, from_peer(4_000_000))


def _check_basic(headers: Mapping[str, str]) -> tuple[int, dict[str, str]]:
    good = write_basic("alice", PASSWORD.encode()).decode()
    return (200, {"Remote-User": "alice"}) if headers.get("Authorization") == good else (401, {})


@contextmanager
def _forward(folder: Path) -> Iterator[Rig]:
    with serve_auth(AuthServer(_check_basic)) as server:
        authenticator = Forward(make_context(folder), {"type": "forward", "url": server.url})
        good, wrong = basic("alice", PASSWORD), basic("alice", "battery staple")
        yield Rig(authenticator, good, wrong, bearer("kcg_" + "x" * 43))


def _check(secret: str) -> Callable[[AuthRequest], Decision]:
    good = write_basic("alice", secret.encode())
    wrong = Decision("challenge", challenges=('Basic realm="KC"',), reason="wrong user or password")
    return lambda request: Decision("allow", subject="alice") if request.credential == good else wrong


@contextmanager
def _all(folder: Path) -> Iterator[Rig]:
    parts = {"htpasswd": Scripted(_check(PASSWORD), "basic"), "otp": Scripted(_check("123456"), "basic")}
    context = make_context(folder, lambda table: parts[table["type"]])
    authenticator = All(context, {"type": "all", "of": [{"type": "htpasswd"}, {"type": "otp"}]})
    yield Rig(authenticator, basic("alice", f"{PASSWORD}123456"), basic("alice", f"{PASSWORD}654321"), bearer("x"))


@contextmanager
def _htpasswd(folder: Path) -> Iterator[Rig]:
    context = make_context(folder)
    file = context.paths.config / "users"
    subprocess.run(["htpasswd", "-bcB", file, "alice", PASSWORD], check=True, capture_output=True)
    authenticator = Htpasswd(context, {"type": "htpasswd", "file": "users"})
    yield Rig(authenticator, basic("alice", PASSWORD), basic("alice", "battery staple"), bearer("x"))


@contextmanager
def _otp(folder: Path) -> Iterator[Rig]:
    context = make_context(folder)
    enrolments = Enrolments(context.store, context.key)
    totp = pyotp.TOTP(enrolments.begin("alice").secret)
    enrolments.activate("alice", totp.at(NOW - 300), now=NOW - 300)
    authenticator = Otp(context, {"type": "otp"})
    authenticator.clock = lambda: NOW
    # Far enough from what the clock's drift allows.
    right = {totp.at(NOW + seconds) for seconds in (-60, -30, 0, 30, 60)}
    wrong = next(code for number in range(10) if (code := f"{number:06d}") not in right)
    yield Rig(authenticator, basic("alice", totp.at(NOW)), basic("alice", wrong), bearer("x"))


@contextmanager
def _tokens(folder: Path) -> Iterator[Rig]:
    context = make_context(folder)
    alice = Decision("allow", subject="alice")
    secret, _ = mint_session(context.store, context.key, alice)
    forged, _ = mint_session(context.store, MasterKey(folder / "another"), alice)
    yield Rig(Tokens(context, {"type": "tokens"}), bearer(secret), bearer(forged), basic("alice", PASSWORD))


@contextmanager
def _ssh_keys(folder: Path) -> Iterator[Rig]:
    context = make_context(folder)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "key"], check=True, timeout=30)
    line = " ".join((folder / "key.pub").read_text().split()[:2])
    file = context.paths.config / "ssh-keys"
    file.write_text(f"{line} alice\n")
    file.chmod(0o600)
    fingerprint = parse_key(line, "alice").fingerprint
    good = replace(REQUEST, client=Client("ssh", "192.0.2.7", ssh_fingerprint=fingerprint))
    yield Rig(SshKeys(context, {"type": "ssh-keys"}), good, None, bearer("x"))


RIGS: dict[str, Callable[[Path], AbstractContextManager[Rig]]] = {
    "peer": _peer,
    "forward": _forward,
    "all": _all,
    "htpasswd": _htpasswd,
    "otp": _otp,
    "tokens": _tokens,
    "ssh-keys": _ssh_keys,
}
"""Each makes, in a folder of its own, a context manager that gives a `Rig`."""
