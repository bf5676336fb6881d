"""Keys and whose they are: what is taken for a key, what of a file counts, and who is said to hold one."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from backend.auth.context import AuthContext
from backend.auth.protocol import AuthRequest, Client
from backend.auth.ssh_keys import SshKeys, add_key, find_key_file, parse_key, read_key_file, remove_key, watch_key_file
from backend.errors import ConflictError, NotFoundError, RefusedError
from backend.paths import Paths, find_paths


def make_key(folder: Path, kind: str = "ed25519", *options: str) -> str:
    """Return a public key that ssh-keygen has made, without its comment."""
    path = folder / f"key-{kind}-{'-'.join(options)}-{len(list(folder.iterdir()))}"
    command = ["ssh-keygen", "-q", "-t", kind, *options, "-N", "", "-C", "", "-f", str(path)]
    subprocess.run(command, check=True, timeout=60)
    return " ".join(path.with_suffix(path.suffix + ".pub").read_text().split()[:2])


def pack(*parts: bytes) -> str:
    return base64.b64encode(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).decode()


def request(fingerprint: str, transport: str = "ssh") -> AuthRequest:
    return AuthRequest("r1", "vm.read", Client(transport, ssh_fingerprint=fingerprint))


@pytest.fixture
def paths(home: Path) -> Paths:
    found = find_paths({"KC_HOME": str(home)})
    found.config.mkdir(parents=True, mode=0o700)
    return found


def make_authenticator(paths: Paths, **settings: Any) -> SshKeys:
    context = AuthContext(paths, cast("Any", None), cast("Any", None), cast("Any", None))
    return SshKeys(context, {"type": "ssh-keys", **settings})


@pytest.mark.parametrize(
    "options",
    [("ed25519",), ("ecdsa", "-b", "256"), ("ecdsa", "-b", "384"), ("ecdsa", "-b", "521"), ("rsa", "-b", "2048")],
    ids="".join,
)
def test_what_ssh_keygen_makes_is_taken_under_its_fingerprint(tmp_path: Path, options: tuple[str, ...]):
    public = make_key(tmp_path, *options)
    key = parse_key(f"{public} alice ops,night")
    assert (key.public, key.subject, key.groups) == (public, "alice", ("ops", "night"))
    listed = tmp_path / "one.pub"
    listed.write_text(public + "\n")
    said = subprocess.run(["ssh-keygen", "-lf", str(listed)], capture_output=True, text=True, check=True, timeout=30)
    assert key.fingerprint == said.stdout.split()[1]
    assert parse_key(key.line) == key


def test_keys_on_tokens_are_taken():
    point = b"\x04" + b"p" * 64
    for kind, parts in (
        ("sk-ssh-ed25519@openssh.com", (b"k" * 32, b"ssh:")),
        ("sk-ecdsa-sha2-nistp256@openssh.com", (b"nistp256", point, b"ssh:")),
    ):
        assert parse_key(f"{kind} {pack(kind.encode(), *parts)} alice").type == kind


def line_of(kind: str, *parts: bytes, who: str = "alice") -> str:
    return f"{kind} {pack(kind.encode(), *parts)} {who}".rstrip()


WHOLE = line_of("ssh-ed25519", b"k" * 32, who="")
UNSOUND = {
    "dsa": ("ssh-dss AAAA alice", "no kind of key"),
    "certificate": ("ssh-ed25519-cert-v01@openssh.com AAAA alice", "no kind of key"),
    "type-alone": ("ssh-ed25519", "no kind of key"),
    "no-base64": ("ssh-ed25519 !!!! alice", "no base64"),
    "other-inside": (f"ssh-ed25519 {pack(b'ssh-rsa', b'k' * 32)} alice", "another kind"),
    "short": (line_of("ssh-ed25519", b"k" * 31), "no whole Ed25519 key"),
    "more-inside": (line_of("ssh-ed25519", b"k" * 32, b"more"), "no whole Ed25519 key"),
    "cut": (f"{WHOLE[:-8]} alice", "cut short"),
    "no-subject": (WHOLE, "the subject"),
    "too-many-words": (f"{WHOLE} a b c", "the subject"),
    "odd-subject": (f"{WHOLE} alice,bob=", "no name"),
    "empty-group": (f"{WHOLE} alice ops,,x", "no name"),
    "control": (f"{WHOLE} \x1b[31malice", "no name"),
    "option": (f"restrict {WHOLE} alice", "options"),
    "command": (f'command="id" {WHOLE} alice', "options"),
    "rsa-1024": (line_of("ssh-rsa", b"\x01\x00\x01", b"\x00" + b"\xff" * 128), "2048"),
    "rsa-none": (line_of("ssh-rsa", b"\x01\x00\x01", b""), "2048"),
    "rsa-negative": (line_of("ssh-rsa", b"\x01\x00\x01", b"\xff" * 256), "2048"),
    "rsa-exponent": (line_of("ssh-rsa", b"\x02", b"\x00" + b"\xff" * 256), "exponent"),
    "rsa-half": (line_of("ssh-rsa", b"\x03"), "no whole RSA key"),
    "other-curve": (line_of("ecdsa-sha2-nistp256", b"nistp384", b"\x04" + b"p" * 96), "nistp256"),
    "packed-point": (line_of("ecdsa-sha2-nistp256", b"nistp256", b"\x02" + b"p" * 64), "point"),
    "no-application": (line_of("sk-ssh-ed25519@openssh.com", b"k" * 32, b""), "application"),
    "long": (f"ssh-ed25519 {'A' * 20000} alice", "one line"),
}


@pytest.mark.parametrize(("line", "why"), UNSOUND.values(), ids=UNSOUND)
def test_what_is_no_sound_key_is_refused(line: str, why: str):
    with pytest.raises(RefusedError, match=why):
        parse_key(line)


def test_a_bad_line_takes_nothing_but_itself(tmp_path: Path, paths: Paths):
    first, second = make_key(tmp_path), make_key(tmp_path)
    path = paths.config / "ssh-keys"
    path.write_text(f"# staff\n\n{first} alice\r\nssh-dss AAAA mallory\nrestrict {second} bob\n{second} bob\n")
    found = read_key_file(watch_key_file(path))
    assert [key.subject for key in found.keys] == ["alice", "bob"]
    assert [problem.partition(":")[0] for problem in found.problems] == ["line 4", "line 5"]


def test_a_key_of_two_is_nobody_s(tmp_path: Path, paths: Paths):
    public = make_key(tmp_path)
    path = paths.config / "ssh-keys"
    path.write_text(f"{public} alice\n{public} bob\n{public} carol\n")
    found = read_key_file(watch_key_file(path))
    assert found.keys == ()
    assert len(found.problems) == 2


@pytest.mark.parametrize("mode", [0o660, 0o602], ids=oct)
def test_a_file_that_others_may_write_counts_for_nothing(paths: Paths, mode: int):
    path = paths.config / "ssh-keys"
    path.write_text("")
    path.chmod(mode)
    with pytest.raises(RefusedError, match="others may write it"):
        read_key_file(watch_key_file(path))


def test_nor_does_one_in_a_folder_that_others_may_write(paths: Paths):
    path = paths.config / "ssh-keys"
    path.write_text("")
    paths.config.chmod(0o770)
    with pytest.raises(RefusedError, match="others may write it"):
        read_key_file(watch_key_file(path))


def test_keys_are_added_and_removed_whole_and_private(tmp_path: Path, paths: Paths):
    path = paths.config / "ssh-keys"
    alice = parse_key(make_key(tmp_path), "alice", ["ops"])
    bob = parse_key(make_key(tmp_path), "bob")
    add_key(path, alice)
    path.write_text("# kept\n" + path.read_text())
    add_key(path, bob)
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConflictError):
        add_key(path, alice._replace(subject="mallory"))
    assert remove_key(path, alice.fingerprint) == 1
    with pytest.raises(NotFoundError):
        remove_key(path, alice.fingerprint)
    assert path.read_text() == f"# kept\n{bob.line}\n"


def test_nothing_is_lost_where_several_change_it_at_once(tmp_path: Path, paths: Paths):
    path = paths.config / "ssh-keys"
    keys = [parse_key(make_key(tmp_path), f"user{number}") for number in range(8)]
    threads = [threading.Thread(target=add_key, args=(path, key)) for key in keys]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.subject for key in read_key_file(watch_key_file(path)).keys} == {key.subject for key in keys}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_root_adds_is_the_user_s(tmp_path: Path):
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    os.chown(home, 12345, 12345)
    path = home / "config" / "ssh-keys"
    add_key(path, parse_key(make_key(tmp_path), "alice"))
    assert {path.stat().st_uid, path.parent.stat().st_uid} == {12345}


async def test_it_says_who_and_leaves_what_to_the_grants(tmp_path: Path, paths: Paths):
    key = parse_key(make_key(tmp_path), "alice", ["ops"])
    add_key(paths.config / "ssh-keys", key)
    authenticator = make_authenticator(paths)
    decision = await authenticator.decide(request(key.fingerprint))
    assert (decision.outcome, decision.subject, decision.groups) == ("allow", "alice", ("ops",))
    assert decision.scopes is None
    assert authenticator.cache_scope == "none"
    assert (await authenticator.decide(request("SHA256:other"))).outcome == "abstain"
    assert await authenticator.check_health() == ""


async def test_a_change_of_the_file_counts_at_once(tmp_path: Path, paths: Paths):
    key = parse_key(make_key(tmp_path), "alice")
    path = paths.config / "ssh-keys"
    authenticator = make_authenticator(paths)
    assert (await authenticator.decide(request(key.fingerprint))).outcome == "abstain"
    for _ in range(5):
        add_key(path, key)
        assert (await authenticator.decide(request(key.fingerprint))).outcome == "allow"
        remove_key(path, key.fingerprint)
        assert (await authenticator.decide(request(key.fingerprint))).outcome == "abstain"
    add_key(path, key)
    path.chmod(0o666)
    assert (await authenticator.decide(request(key.fingerprint))).outcome == "error"
    assert "others may write it" in await authenticator.check_health()


def test_only_keys_that_sshd_has_seen_are_its_business(paths: Paths):
    authenticator = make_authenticator(paths)
    assert authenticator.accepts(request("SHA256:x"))
    assert not authenticator.accepts(request(""))
    assert not authenticator.accepts(request("SHA256:x", "tcp"))


def test_the_file_may_be_another(paths: Paths, tmp_path: Path):
    assert find_key_file(paths, {}) == paths.config / "ssh-keys"
    assert find_key_file(paths, {"chain": [{"type": "peer"}]}) == paths.config / "ssh-keys"
    chain = [{"type": "peer"}, {"type": "ssh-keys", "file": "staff"}]
    assert find_key_file(paths, {"chain": chain}) == paths.config / "staff"
    other = str(tmp_path / "keys")
    assert find_key_file(paths, {"chain": [{"type": "ssh-keys", "file": other}]}) == Path(other)
    with pytest.raises(RefusedError, match="colour"):
        make_authenticator(paths, colour="red")
    with pytest.raises(RefusedError, match="file"):
        make_authenticator(paths, file=7)
