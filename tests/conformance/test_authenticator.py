"""What every authenticator must do, whatever it asks; rigs are in `support.authenticator_rigs`."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.authenticator_rigs import RIGS, Rig
from support.authenticators import REQUEST

from backend.auth.claims import MAXIMUM_CREDENTIAL
from backend.auth.protocol import AuthRequest, Client, Decision
from backend.text import sanitise

ODD_CREDENTIALS = {
    "empty": b"",
    "blank": b" ",
    "scheme alone": b"Basic",
    "scheme and blank": b"Basic ",
    "no base64": b"Basic !!!!",
    "half base64": b"Basic YWxpY2U",
    "no colon": b"Basic YWxpY2U=",
    "empty user": b"Basic Og==",
    "NUL": b"Basic AAAAAA==",
    "not UTF-8": b"Basic //86//8=",
    "binary": bytes(range(256)),
    "line feed": b"Bearer a\r\nRemote-User: root",
    "bearer of nothing": b"Bearer ",
    "odd scheme": b"\xff\xfe x",
    "colons": b"Basic Ojo6Ojo6",
    "a token that is none": b"Bearer kcg_",
    "a limited token that is none": b"Bearer kct_AAAA",
    "longest": b"Basic " + b"QUFB" * ((MAXIMUM_CREDENTIAL - 6) // 4),
    "longest bearer": b"Bearer " + b"a" * (MAXIMUM_CREDENTIAL - 7),
}


@pytest.fixture(params=sorted(RIGS))
async def rig(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Rig]:
    with RIGS[request.param](tmp_path) as made:
        yield made
        await made.authenticator.close()


def requests(rig: Rig) -> list[AuthRequest]:
    odd = [replace(REQUEST, credential=credential) for credential in ODD_CREDENTIALS.values()]
    return [request for request in (rig.good, rig.wrong, rig.foreign, *odd) if request is not None]


async def test_it_lets_in_who_has_the_right_credential(rig: Rig) -> None:
    decision = await rig.authenticator.decide(rig.good)
    assert decision.outcome == "allow"
    assert decision.subject
    assert decision.subject == sanitise(decision.subject)


async def test_it_refuses_a_wrong_credential_without_saying_that_it_cannot_tell(rig: Rig) -> None:
    if rig.wrong is None:
        assert not rig.authenticator.accepts(replace(rig.good, client=Client("tcp", "192.0.2.1")))
        return
    assert rig.authenticator.accepts(rig.wrong)
    decision = await rig.authenticator.decide(rig.wrong)
    assert decision.outcome in ("challenge", "deny")
    assert decision.scopes in (None, ())
    assert decision.reason


async def test_it_claims_its_own_alone(rig: Rig) -> None:
    assert rig.authenticator.accepts(rig.good)
    assert not rig.authenticator.accepts(rig.foreign)
    assert not rig.authenticator.accepts(replace(REQUEST, client=Client("tcp")))
    assert not rig.authenticator.accepts(replace(REQUEST, credential=b"Negotiate YWJj"))


async def test_claiming_changes_nothing(rig: Rig) -> None:
    first = [rig.authenticator.accepts(request) for request in requests(rig)]
    for _ in range(3):
        assert [rig.authenticator.accepts(request) for request in requests(rig)] == first
    assert (await rig.authenticator.decide(rig.good)).allowed


@pytest.mark.parametrize("credential", ODD_CREDENTIALS.values(), ids=ODD_CREDENTIALS)
async def test_what_is_no_credential_lets_nobody_in_and_raises_nothing(rig: Rig, credential: bytes) -> None:
    request = replace(REQUEST, credential=credential)
    if rig.authenticator.accepts(request):
        decision = await rig.authenticator.decide(request)
        assert isinstance(decision, Decision)
        assert decision.outcome in ("abstain", "challenge", "deny")


async def test_no_credential_reaches_a_log_or_an_answer(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = set()
    told = []
    for request in (rig.good, rig.wrong):
        if request is None or not request.credential:
            continue
        secrets |= {request.credential.decode(), request.parameters.decode()}
        told.append(repr(request))
        told.append(repr(await rig.authenticator.decide(request)))
    text = "\n".join([caplog.text, *told, repr(rig.authenticator)])
    assert [secret for secret in secrets if secret in text] == []


async def test_it_is_well_and_has_a_name(rig: Rig) -> None:
    assert not (health := await rig.authenticator.check_health()) or health.startswith("warning:")
    assert rig.authenticator.name
    assert rig.authenticator.cache_scope in ("none", "credential", "request")
