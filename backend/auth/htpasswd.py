"""Basic credentials against a file of Apache's `htpasswd`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from backend.auth.basic import CHALLENGE, UNKNOWN_USER, WRONG, Basic, is_basic, read_basic
from backend.auth.htpasswd_file import parse_groups, parse_users, verify
from backend.auth.protocol import API_VERSION, AuthRequest, CacheScope, Decision, fail
from backend.auth.tables import COMMON_SETTINGS, Table
from backend.auth.watched_files import WatchedFile
from backend.auth.workers import Workers
from backend.errors import KCError, TimedOutError

if TYPE_CHECKING:
    from backend.auth.context import AuthContext

_TTL: Final = 60.0
_LONGEST_TTL: Final = 3600.0
# A hash of usual cost takes a quarter of a second of one core: more at a time would leave none for the work.
_THREADS: Final = 2
_WAITING: Final = 32
_PATIENCE: Final = 1.8
_BUSY: Final = Decision("error", status=429, retry_after=1.0, reason="too many log-ins at once")


class Htpasswd:
    """Settings: `file`, `groupFile` (Apache's AuthGroupFile), `ttl` in seconds; paths from the configuration's folder.

    Both files are read again when they change. A user that is not in the file is left to the next authenticator.
    """

    api_version: int = API_VERSION
    cache_scope: CacheScope = "credential"
    challenges: tuple[str, ...] = (CHALLENGE,)

    def __init__(self, context: AuthContext, settings: Mapping[str, Any]) -> None:
        """Take the settings; the files need not be there yet."""
        table = Table(settings, f"auth.chain ({settings.get('name') or 'htpasswd'})")
        table.check_keys(COMMON_SETTINGS | {"file", "groupFile", "ttl"})
        self.name = table.text("name") or "htpasswd"
        file, group_file = table.text("file"), table.text("groupFile")
        if not file:
            raise table.refuse("file", "is missing", "name a file that Apache's htpasswd has made")
        self._ttl = table.number("ttl", _TTL, 0, _LONGEST_TTL)
        self._users = WatchedFile(context.paths.config / Path(file).expanduser(), parse_users)
        path = context.paths.config / Path(group_file).expanduser()
        self._groups = WatchedFile(path, parse_groups) if group_file else None
        self._workers = Workers(f"htpasswd {self.name}", threads=_THREADS, waiting=_WAITING)

    def accepts(self, request: AuthRequest) -> bool:
        """Return whether the credential is a Basic one."""
        return is_basic(request)

    async def decide(self, request: AuthRequest) -> Decision:
        """Say who it is; too many at once are told to come back, for an endless queue serves nobody."""
        credential = read_basic(request)
        if credential is None:
            return WRONG
        try:
            return await self._workers.run(lambda: self._judge(credential), _PATIENCE)
        except TimedOutError:
            return _BUSY
        except KCError as error:
            return fail(str(error))

    async def check_health(self) -> str:
        """Return why the files cannot be used; after `warning:` what in them is weak, or lets nobody in."""
        try:
            return await self._workers.run(self._inspect, _PATIENCE)
        except KCError as error:
            return str(error)

    async def close(self) -> None:
        """Let go of the threads."""
        self._workers.close()

    def _judge(self, credential: Basic) -> Decision:
        users = self._users.read()
        groups = self._groups.read() if self._groups else {}
        user = credential.user.encode()
        known = users.entries.get(user)
        # Whoever is not known takes as long as somebody else's password, and what comes of that does not matter.
        compared = known or users.usual
        matches = compared is not None and verify(compared, credential.password)
        if user not in users.entries:
            return UNKNOWN_USER
        if known is None or not matches:
            return WRONG
        return Decision("allow", subject=credential.user, groups=groups.get(credential.user, ()), ttl=self._ttl)

    def _inspect(self) -> str:
        users = self._users.read()
        if self._groups:
            self._groups.read()
        remarks = []
        if users.weak:
            remarks.append(f"{users.weak} of {len(users.entries)} users have a hash that is guessed fast (MD5, SHA-1)")
        if users.unusable:
            remarks.append(f"{users.unusable} of {len(users.entries)} users cannot come in: their hash is none of KC's")
        if remarks:
            remarks.append("htpasswd -B makes a good one")
        return f"warning: {'; '.join(remarks)}" if remarks else ""
