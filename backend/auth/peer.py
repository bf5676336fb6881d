"""The process at the other end of KC's unix socket: the kernel says which user it is, and nobody can pretend.

KC's own user and root may do everything: they could read the store and the socket's memory anyway.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from backend.auth.protocol import ABSTAIN, API_VERSION, EVERYTHING, AuthRequest, CacheScope, Decision
from backend.auth.tables import COMMON_SETTINGS, Table

if TYPE_CHECKING:
    from backend.auth.context import AuthContext


class Peer:
    """Settings: `everything`, the users who may do everything (KC's own and root); `users`, who may what grants say.

    Users are named, or `uid:NUMBER`; they are looked up once, for a directory service may be slow. Whoever sends a
    credential is judged by that alone: a proxy that runs as one of these users hands on those of others.
    """

    api_version: int = API_VERSION
    cache_scope: CacheScope = "none"

    def __init__(self, context: AuthContext, settings: Mapping[str, Any]) -> None:
        """Take the settings; raise RefusedError for a user that there is not."""
        del context
        table = Table(settings, "auth.chain (peer)")
        table.check_keys(COMMON_SETTINGS | {"everything", "users"})
        self.name = table.text("name") or "peer"
        self._users: dict[int, Decision] = {}
        for user in table.texts("users"):
            uid, name = _find_user(table, "users", user)
            self._users[uid] = Decision("allow", subject=name)
        for user in table.texts("everything", (f"uid:{os.geteuid()}", "uid:0")):
            uid, name = _find_user(table, "everything", user)
            self._users[uid] = Decision("allow", subject=name, scopes=EVERYTHING)

    def accepts(self, request: AuthRequest) -> bool:
        """Return whether it came over the unix socket, from one of the users, without a credential."""
        client = request.client
        if client.transport != "unix" or client.peer is None or request.credential:
            return False
        return client.peer.uid in self._users

    async def decide(self, request: AuthRequest) -> Decision:
        """Say who it is."""
        peer = request.client.peer
        if peer is None or not self.accepts(request):
            return ABSTAIN
        return replace(self._users[peer.uid], detail=f"pid {peer.pid}, uid {peer.uid}, gid {peer.gid}")

    async def check_health(self) -> str:
        """Return nothing: there is nothing that could fail."""
        return ""

    async def close(self) -> None:
        """Do nothing: nothing is held."""


def _find_user(table: Table, key: str, user: str) -> tuple[int, str]:
    """Return a user's number and name; raise RefusedError for one that there is not."""
    head, _, number = user.rpartition("uid:")
    if head == "" and number.isdecimal() and len(number) <= 10 and user.startswith("uid:"):  # noqa: PLR2004 - of 2^32
        uid = int(number)
        try:
            return uid, pwd.getpwuid(uid).pw_name
        except KeyError:  # a container may run as somebody whom its files do not know
            return uid, user
    try:
        return pwd.getpwnam(user).pw_uid, user
    except KeyError as error:
        raise table.refuse(key, f"names {user!r}, and there is no such user", "name users of this machine") from error
