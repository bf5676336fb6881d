"""The master key: made once whoever is first, refused where others can read it, and what follows from it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from backend.auth.keys import KEY_BYTES, MasterKey, open_master_key
from backend.errors import FailedError, RefusedError
from backend.settings import load_settings

_RACER = """
import sys
from pathlib import Path
from backend.auth.keys import MasterKey
sys.stdin.readline()
print(MasterKey(Path(sys.argv[1])).derive("race", "").hex(), flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "auth.key"


def test_nothing_is_made_before_the_key_is_needed(path: Path) -> None:
    key = MasterKey(path)
    assert not path.parent.exists()
    key.derive("token", "a")
    status = path.stat()
    assert (status.st_size, stat.S_IMODE(status.st_mode)) == (KEY_BYTES, 0o600)
    assert list(path.parent.iterdir()) == [path]
    assert path.read_bytes().hex() not in repr(key)


def test_what_follows_from_the_key_is_hkdf_of_purpose_and_name(path: Path) -> None:
    key = MasterKey(path)
    found = key.derive("token", "some-uid")
    info = b"\0\0\0\5kc/v1\0\0\0\5token\0\0\0\x08some-uid"
    assert found == HKDFExpand(SHA256(), 32, info).derive(path.read_bytes())
    assert found == MasterKey(path).derive("token", "some-uid")
    pairs = [("token", "some-uid"), ("toke", "nsome-uid"), ("tokensome-uid", ""), ("", "tokensome-uid"), ("seal", "")]
    assert len({key.derive(*pair) for pair in pairs}) == len(pairs)


def test_what_is_sealed_opens_with_the_same_key_and_name_alone(path: Path, tmp_path: Path) -> None:
    key = MasterKey(path)
    sealed = key.seal(b"seed of alice", bound_to="alice")
    assert b"seed" not in sealed
    assert sealed != key.seal(b"seed of alice", bound_to="alice")
    assert MasterKey(path).open(sealed, bound_to="alice") == b"seed of alice"
    assert key.open(key.seal(b"")) == b""
    for wrong, name in (
        (sealed, "bob"), (sealed[:-1], "alice"), (b"\2" + sealed[1:], "alice"), (b"", "alice"), (sealed[:9], "alice"),
        (sealed[:-1] + bytes([sealed[-1] ^ 1]), "alice"),
    ):  # fmt: skip
        with pytest.raises(RefusedError):
            key.open(wrong, bound_to=name)
    with pytest.raises(RefusedError, match="does not open"):
        MasterKey(tmp_path / "other" / "auth.key").open(sealed, bound_to="alice")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o601], ids=oct)
def test_a_key_that_others_can_get_at_is_refused(path: Path, mode: int) -> None:
    MasterKey(path).derive("token", "a")
    path.chmod(mode)
    with pytest.raises(RefusedError, match="others can get at it") as caught:
        MasterKey(path).derive("token", "a")
    assert "chmod 600" in caught.value.hint
    path.chmod(0o400)
    MasterKey(path).derive("token", "a")


def test_a_key_of_another_user_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    MasterKey(path).derive("token", "a")
    owner = path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(RefusedError, match=f"another user \\(uid {owner}\\)"):
        MasterKey(path).derive("token", "a")


@pytest.mark.parametrize("size", [0, KEY_BYTES - 1, KEY_BYTES + 1])
def test_a_key_of_another_length_is_refused_and_left_alone(path: Path, size: int) -> None:
    path.parent.mkdir()
    path.touch(0o600)
    path.write_bytes(b"k" * size)
    with pytest.raises(RefusedError, match="32 bytes"):
        MasterKey(path).derive("token", "a")
    assert path.read_bytes() == b"k" * size


@pytest.mark.timeout(20)
def test_what_is_no_file_is_refused_at_once(path: Path) -> None:
    path.parent.mkdir()
    os.mkfifo(path, 0o600)
    with pytest.raises(RefusedError, match="not a file"):
        MasterKey(path).derive("token", "a")
    path.unlink()
    path.mkdir()
    with pytest.raises(RefusedError, match="not a file"):
        MasterKey(path).derive("token", "a")


def test_a_folder_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FailedError):
        MasterKey(tmp_path / "file" / "auth.key").derive("token", "a")


def test_the_settings_may_name_another_file(tmp_path: Path) -> None:
    environment = {"KC_HOME": str(tmp_path)}
    assert open_master_key(load_settings(environment=environment)).path == tmp_path / "data" / "auth.key"
    config = tmp_path / "config" / "config.toml"
    config.parent.mkdir()
    config.write_text('[auth]\nkeyFile = "/etc/kc/auth.key"\n')
    assert open_master_key(load_settings(environment=environment)).path == Path("/etc/kc/auth.key")
    config.write_text("[auth]\nkeyFile = 3\n")
    with pytest.raises(RefusedError, match="keyFile"):
        open_master_key(load_settings(environment=environment))


@pytest.mark.timeout(60)
def test_eight_processes_at_once_agree_on_one_key(path: Path) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", _RACER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(8)
    ]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    found = {racer.communicate(timeout=50)[0].strip() for racer in racers}
    assert [racer.returncode for racer in racers] == [0] * 8
    assert found == {MasterKey(path).derive("race", "").hex()}
    assert list(path.parent.iterdir()) == [path]
