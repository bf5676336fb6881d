"""What the gateway tells the application; each message carries plain values that no thread changes any more."""

from __future__ import annotations

from enum import StrEnum

from textual.message import Message

from backend.errors import KCError
from backend.service import Event


class Link(StrEnum):
    """How KC stands to what it manages: `STALE` still shows what it knew last."""

    CONNECTING = "connecting"
    LIVE = "live"
    STALE = "stale"


class DocumentsChanged(Message):
    """Documents changed, by this KC or by another; at most one event for each document, the newest."""

    def __init__(self, events: tuple[Event, ...]) -> None:
        super().__init__()
        self.events = events


class FeedChanged(Message):
    """The feed of changes began, broke or came back; `why` is one line for a person.

    After a break the lists have to be asked for anew: what changed meanwhile is not told again.
    """

    def __init__(self, link: Link, why: str = "") -> None:
        super().__init__()
        self.link = link
        self.why = why


class ErrorOccurred(Message):
    """Something that the user asked for went wrong: it is told, and kept in the activity list."""

    def __init__(self, error: KCError) -> None:
        super().__init__()
        self.error = error


class OpenConsole(Message):
    """The user wants the console of a VM."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


class OpenObject(Message):
    """The user wants to see all about an object, on a page of its screen."""

    def __init__(self, kind: str, uid: str, page: str = "") -> None:
        super().__init__()
        self.kind = kind
        self.uid = uid
        self.page = page


class OpenHistory(Message):
    """The user wants the versions of an object, one that was deleted too (`uid` is then that of none there is)."""

    def __init__(self, kind: str, name: str, uid: str) -> None:
        super().__init__()
        self.kind = kind
        self.name = name
        self.uid = uid


class MastheadWanted(Message):
    """A screen came to the front and wants the lines at its top."""


class ShowObject(Message):
    """The cursor is to stand on an object in its section's list."""

    def __init__(self, kind: str, uid: str) -> None:
        super().__init__()
        self.kind = kind
        self.uid = uid
