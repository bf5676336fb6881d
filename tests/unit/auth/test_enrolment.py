"""Enrolments: what is made, in force, removed, and that nobody is shown what is secret in them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyotp
import pytest
from support.authenticating import make_context
from support.memory_kc import make_service

from backend.actor import Actor, acting_as
from backend.auth.enrolment import Enrolments, open_enrolments
from backend.auth.keys import MasterKey
from backend.errors import ConflictError, NotFoundError, RefusedError
from backend.local.initialising import MACHINE_TYPES
from backend.settings import load_settings
from backend.store.opening import open_store
from backend.store.protocol import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    settings = load_settings(environment={"KC_HOME": str(tmp_path)})
    opened = open_store(settings.store_url, retentions=settings.retentions)
    yield opened
    opened.close()


@pytest.fixture
def enrolments(store: Store, tmp_path: Path) -> Enrolments:
    return Enrolments(store, MasterKey(tmp_path / "data" / "auth.key"))


def enrol(enrolments: Enrolments, subject: str) -> str:
    invitation = enrolments.begin(subject)
    enrolments.activate(subject, pyotp.TOTP(invitation.secret).now())
    return invitation.secret


def test_an_invitation_has_what_an_app_needs(enrolments: Enrolments) -> None:
    invitation = enrolments.begin("alice@example.org")
    parts = urlsplit(invitation.uri)
    assert (parts.scheme, parts.netloc, parts.path) == ("otpauth", "totp", "/KC:alice%40example.org")
    query = {key: values[0] for key, values in parse_qs(parts.query).items()}
    assert query.pop("secret") == invitation.secret
    assert query.pop("issuer") == "KC"
    # What is left out has the value that apps take without it.
    assert query.items() <= {"algorithm": "SHA1", "digits": "6", "period": "30"}.items()
    assert len(invitation.secret) == 32
    assert invitation.secret not in repr(invitation)
    assert enrolments.begin("bob").secret != invitation.secret


def test_it_counts_for_nothing_before_a_good_code(enrolments: Enrolments) -> None:
    totp = pyotp.TOTP(enrolments.begin("alice").secret)
    assert not enrolments.use("alice", totp.now())
    wrong = f"{(int(totp.now()) + 1) % 1_000_000:06d}"
    with pytest.raises(RefusedError, match="the code is wrong"):
        enrolments.activate("alice", wrong, now=0)
    assert [entry.active for entry in enrolments.list_all()] == [False]
    assert len(enrolments.activate("alice", totp.now())) == 10
    with pytest.raises(ConflictError, match="in use already"):
        enrolments.activate("alice", totp.now())


def test_an_enrolment_that_was_only_begun_is_begun_again(enrolments: Enrolments) -> None:
    old, new = enrolments.begin("alice"), enrolments.begin("alice")
    now = time.time()
    with pytest.raises(RefusedError):
        enrolments.activate("alice", pyotp.TOTP(old.secret).at(now), now=now)
    enrolments.activate("alice", pyotp.TOTP(new.secret).at(now), now=now)
    with pytest.raises(ConflictError, match="kc auth otp remove alice"):
        enrolments.begin("alice")


def test_a_removed_enrolment_may_be_made_anew_and_the_old_codes_are_worth_nothing(enrolments: Enrolments) -> None:
    old = pyotp.TOTP(enrol(enrolments, "alice"))
    enrolments.remove("alice")
    assert enrolments.list_all() == []
    assert not enrolments.use("alice", old.at(time.time() + 30))
    with pytest.raises(NotFoundError):
        enrolments.remove("alice")
    enrol(enrolments, "alice")
    assert not enrolments.use("alice", old.at(time.time() + 30))


def test_the_list_says_who_and_since_when(enrolments: Enrolments) -> None:
    enrol(enrolments, "bob")
    enrolments.begin("alice")
    found = enrolments.list_all()
    assert [(each.subject, each.active, each.recovery_codes) for each in found] == [
        ("alice", False, 0),
        ("bob", True, 10),
    ]
    assert found[0].used_at == ""
    assert found[1].used_at


@pytest.mark.parametrize("subject", ["", "a:b", "x" * 201, "a\x1b[2Jb", "a\nb", "a\u202eb"])
def test_a_subject_that_no_credential_can_have_is_refused(enrolments: Enrolments, subject: str) -> None:
    with pytest.raises(RefusedError):
        enrolments.begin(subject)


@pytest.mark.parametrize("subject", ["alice", "Grüße", "a/b c", "cn=a,dc=b", "x" * 200])
def test_any_printable_subject_is_taken(enrolments: Enrolments, subject: str) -> None:
    secret = enrol(enrolments, subject)
    assert enrolments.use(subject, pyotp.TOTP(secret).at(time.time() + 30))


def test_who_did_it_is_written_down(enrolments: Enrolments, store: Store) -> None:
    with acting_as(Actor("root-of-all")):
        enrolments.begin("alice")
    document = store.find("Enrolment", "alice")
    assert document is not None
    assert document["updatedBy"] == "root-of-all"


# --- secrets


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_seeds_and_codes_are_not_in_the_store_and_old_ones_go(
    enrolments: Enrolments, store: Store, tmp_path: Path
) -> None:
    invitation = enrolments.begin("alice")
    totp = pyotp.TOTP(invitation.secret)
    codes = enrolments.activate("alice", totp.now())
    written = everything_in(tmp_path) + json.dumps(list(store.dump())).encode()
    assert invitation.secret.encode() not in written
    assert totp.byte_secret() not in written
    assert not [code for code in codes if code.encode() in written]
    document = store.find("Enrolment", "alice")
    assert document is not None
    assert len(store.history("Enrolment", document["uid"])) == 1
    enrolments.remove("alice")
    kept = [version.document["spec"] for version in store.history("Enrolment", document["uid"]) if version.document]
    assert [(spec["seed"], spec["recovery"]) for spec in kept] == [("", [])]


def test_no_list_feed_or_command_of_the_service_shows_an_enrolment(tmp_path: Path) -> None:
    service = make_service(tmp_path)
    events = service.watch()
    assert next(events) is None
    context = make_context(tmp_path, service.store)
    enrol(Enrolments(service.store, context.key), "alice")
    service.create({"kind": "MachineType", "name": "after", "spec": MACHINE_TYPES["tiny"]})
    assert [event.document["name"] for event in (next(events),) if event] == ["after"]
    for ask in (
        service.list_documents,
        lambda kind: service.get(kind, "alice"),
        lambda kind: service.history(kind, "alice"),
    ):
        with pytest.raises(NotFoundError):
            ask("Enrolment")
    with pytest.raises(NotFoundError):
        service.watch(["Enrolment"])


def test_an_export_with_the_key_brings_enrolments_back(enrolments: Enrolments, store: Store, tmp_path: Path) -> None:
    totp = pyotp.TOTP(enrol(enrolments, "alice"))
    other = make_service(tmp_path / "other")
    assert other.load(store.dump())
    code = totp.at(time.time() + 30)
    with pytest.raises(RefusedError, match="does not open it"):
        Enrolments(other.store, MasterKey(tmp_path / "other" / "auth.key")).use("alice", code)
    assert Enrolments(other.store, MasterKey(tmp_path / "data" / "auth.key")).use("alice", code)


def test_the_settings_name_store_and_key(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.toml").write_text(f'[auth]\nkeyFile = "{tmp_path}/elsewhere.key"\n')
    settings: Any = load_settings(environment={"KC_HOME": str(tmp_path)})
    enrolments, store = open_enrolments(settings)
    secret = enrol(enrolments, "alice")
    store.close()
    assert (tmp_path / "elsewhere.key").exists()
    enrolments, store = open_enrolments(settings)
    assert enrolments.use("alice", pyotp.TOTP(secret).at(time.time() + 30))
    store.close()
