"""Whom the kernel names at the other end of the socket, and what they may do."""

import os
import pwd
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.authenticators import from_peer, make_context

from backend.auth.peer import Peer
from backend.auth.protocol import EVERYTHING, AuthRequest, Client
from backend.auth.protocol import Peer as Process
from backend.errors import RefusedError

OWN = os.geteuid()
NOBODY = pwd.getpwnam("nobody").pw_uid


def peer(folder: Path, **settings: Any) -> Peer:
    return Peer(make_context(folder), {"type": "peer", **settings})


async def test_own_user_and_root_may_do_everything(tmp_path: Path) -> None:
    for uid in {OWN, 0}:
        decision = await peer(tmp_path).decide(from_peer(uid))
        assert (decision.subject, decision.scopes) == (pwd.getpwuid(uid).pw_name, EVERYTHING)
        assert decision.detail == f"pid 4711, uid {uid}, gid {uid}"


async def test_others_are_nobody_until_they_are_named_and_then_have_their_grants(tmp_path: Path) -> None:
    assert not peer(tmp_path).accepts(from_peer(NOBODY))
    for user in ("nobody", f"uid:{NOBODY}"):
        decision = await peer(tmp_path, users=[user]).decide(from_peer(NOBODY))
        assert (decision.subject, decision.scopes) == ("nobody", None)


async def test_who_may_do_everything_can_be_said(tmp_path: Path) -> None:
    authenticator = peer(tmp_path, everything=["nobody"])
    assert not authenticator.accepts(from_peer(0))
    assert (await authenticator.decide(from_peer(NOBODY))).scopes == EVERYTHING
    assert not peer(tmp_path, everything=[]).accepts(from_peer(OWN))


@pytest.mark.parametrize(
    "request_",
    [
        replace(from_peer(OWN), client=Client("unix")),
        replace(from_peer(OWN), client=Client("tcp", "127.0.0.1", Process(1, OWN, OWN))),
        replace(from_peer(OWN), client=Client("ssh", "", Process(1, OWN, OWN))),
        replace(from_peer(OWN), credential=b"Bearer x"),
        from_peer(4_000_000),
    ],
    ids=["no peer", "tcp", "ssh", "a credential", "another user"],
)
async def test_nobody_else_is_let_in(tmp_path: Path, request_: AuthRequest) -> None:
    authenticator = peer(tmp_path)
    assert not authenticator.accepts(request_)
    assert (await authenticator.decide(request_)).outcome == "abstain"


async def test_a_number_without_a_name_is_one(tmp_path: Path) -> None:
    decision = await peer(tmp_path, users=["uid:4000000"]).decide(from_peer(4_000_000))
    assert decision.subject == "uid:4000000"


@pytest.mark.parametrize("user", ["nobody-has-this-name", "uid:x", "uid:", "uid:-1", "-1", "x uid:0"])
def test_users_that_there_are_not_are_refused(tmp_path: Path, user: str) -> None:
    with pytest.raises(RefusedError, match="there is no such user"):
        peer(tmp_path, users=[user])
