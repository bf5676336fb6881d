"""Where credentials are kept: in keyrings that can be trusted with them, or in a file that is asked for."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from backend import credentials
from backend.credentials import FILE_NAME, Credentials
from backend.errors import FailedError, RefusedError
from backend.paths import find_paths

ORIGIN = "https://lab.example.org"
SECRET = "Bearer kct_canary"


class Vault:
    """A keyring that works."""

    viable: ClassVar[bool] = True
    kept: ClassVar[dict[tuple[str, str], str]] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.kept[service, username]


class Null(Vault):
    """Takes everything and keeps nothing, as keyring's own null backend."""

    def set_password(self, service: str, username: str, password: str) -> None:
        pass


class Hanging(Vault):
    def set_password(self, service: str, username: str, password: str) -> None:
        time.sleep(30)


class Broken(Vault):
    def set_password(self, service: str, username: str, password: str) -> None:
        raise OSError("no session bus \x1b[31m")


class Absent(Vault):
    viable = False


def install(monkeypatch: pytest.MonkeyPatch, kind: type[Vault]) -> None:
    """Have one keyring on the machine, at a place of its own."""
    module = ModuleType("rings.Vault")
    module.Keyring = kind  # type: ignore[attr-defined]
    kind.__module__ = "rings.Vault.x"
    Vault.kept.clear()
    monkeypatch.setitem(sys.modules, "rings", ModuleType("rings"))
    monkeypatch.setitem(sys.modules, "rings.Vault", module)
    monkeypatch.setattr(credentials, "KEYRINGS", ("rings.Vault.Keyring",))
    monkeypatch.delenv("PYTHON_KEYRING_BACKEND", raising=False)


@pytest.fixture
def kept(tmp_path: Path) -> Credentials:
    return Credentials(find_paths({"KC_HOME": str(tmp_path)}))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config" / FILE_NAME


def test_a_keyring_that_works_has_it_and_the_file_does_not(
    kept: Credentials, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, Vault)
    assert "keyring" in kept.keep("lab", ORIGIN, SECRET, in_file=False)
    assert kept.find("lab", ORIGIN) == SECRET
    assert SECRET not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert kept.remove("lab")
    assert Vault.kept == {}
    assert not file.exists()
    assert not kept.remove("lab")


@pytest.mark.parametrize(("kind", "why"), [(Null, "did not keep"), (Broken, "no session bus"), (Absent, "none here")])
def test_a_keyring_that_cannot_be_used_is_refused_plainly(
    kept: Credentials, file: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Vault], why: str
) -> None:
    install(monkeypatch, kind)
    with pytest.raises(FailedError, match=why) as raised:
        kept.keep("lab", ORIGIN, SECRET, in_file=False)
    assert "--file" in raised.value.hint
    assert "\x1b" not in str(raised.value)
    assert not file.exists()


def test_a_keyring_that_hangs_is_given_up_after_two_seconds(
    kept: Credentials, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, Hanging)
    monkeypatch.setattr(credentials, "LIMIT_SECONDS", 0.2)
    started = time.monotonic()
    with pytest.raises(FailedError, match="did not answer"):
        kept.keep("lab", ORIGIN, SECRET, in_file=False)
    assert time.monotonic() - started < 2
    assert not file.exists()


@pytest.mark.parametrize("wish", ["keyring.backends.null.Keyring", "keyrings.alt.file.PlaintextKeyring"])
def test_the_environment_cannot_name_a_keyring_that_is_not_trusted(
    kept: Credentials, monkeypatch: pytest.MonkeyPatch, wish: str
) -> None:
    install(monkeypatch, Vault)
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", wish)
    with pytest.raises(FailedError, match="none here"):
        kept.keep("lab", ORIGIN, SECRET, in_file=False)


def test_without_a_session_bus_the_real_keyrings_say_no_soon(
    kept: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR", "DISPLAY", "PYTHON_KEYRING_BACKEND"):
        monkeypatch.delenv(name, raising=False)
    started = time.monotonic()
    with pytest.raises(FailedError):
        kept.keep("lab", ORIGIN, SECRET, in_file=False)
    assert time.monotonic() - started < 3


def test_no_keyring_is_asked_where_none_has_anything(kept: Credentials, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_keyring() -> Any:
        raise AssertionError

    monkeypatch.setattr(credentials, "open_keyring", open_keyring)
    assert kept.find("lab", ORIGIN) == ""
    kept.keep("lab", ORIGIN, SECRET, in_file=True)
    assert kept.find("lab", ORIGIN) == SECRET


def test_a_credential_is_for_the_server_that_it_was_given_for(kept: Credentials) -> None:
    kept.keep("lab", ORIGIN, SECRET, in_file=True)
    assert kept.find("lab", "https://evil.example.org") == ""
    assert kept.find("other", ORIGIN) == ""


def test_a_secret_that_is_gone_from_the_keyring_is_said(kept: Credentials, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, Vault)
    kept.keep("lab", ORIGIN, SECRET, in_file=False)
    Vault.kept.clear()
    with pytest.raises(FailedError, match="no credential") as raised:
        kept.find("lab", ORIGIN)
    assert raised.value.hint == "kc login lab"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_file_that_others_can_read_is_refused(kept: Credentials, file: Path, mode: int) -> None:
    kept.keep("lab", ORIGIN, SECRET, in_file=True)
    file.chmod(mode)
    with pytest.raises(RefusedError, match="others can read it"):
        kept.find("lab", ORIGIN)


def test_a_link_in_the_place_of_the_file_is_refused(kept: Credentials, file: Path, tmp_path: Path) -> None:
    kept.keep("lab", ORIGIN, SECRET, in_file=True)
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RefusedError):
        kept.find("lab", ORIGIN)


def test_a_damaged_file_is_refused_without_showing_what_is_in_it(kept: Credentials, file: Path) -> None:
    kept.keep("lab", ORIGIN, SECRET, in_file=True)
    file.write_text(file.read_text() + "canary = = kct_canary\n")
    with pytest.raises(RefusedError) as raised:
        kept.find("lab", ORIGIN)
    assert "canary" not in str(raised.value)


def test_any_text_survives_the_file(kept: Credentials) -> None:
    value = "Bearer \"quoted\" \\ \x7f ü 'x' # no comment"
    kept.keep("lab", ORIGIN, value, in_file=True)
    kept.keep("rack", ORIGIN, "other", in_file=True)
    assert kept.find("lab", ORIGIN) == value
    assert kept.find("rack", ORIGIN) == "other"
