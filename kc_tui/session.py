"""What all screens of one run share: the seam to the service, what is known, what is remembered, what went wrong."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final

from backend.errors import KCError
from backend.model.documents import Document, name_of
from backend.model.kinds import IMAGE, MACHINE_TYPE, NETWORK, OPERATION, VM
from backend.paths import write_atomically
from backend.service import Accepted, Event
from backend.text import sanitise
from kc_tui.gateway import Gateway
from kc_tui.messages import Link
from kc_tui.state import remembered as memory
from kc_tui.state.draft import Draft
from kc_tui.state.glyphs import Glyphs
from kc_tui.state.inventory import Inventory
from kc_tui.state.operations import Notice, shorten
from kc_tui.state.remembered import Remembered
from kc_tui.state.samples import UsageBook

_MOST_NOTICES: Final = 200
_log = logging.getLogger(__name__)


_CONFINED: Final = {
    "object.edit": "there is no editor here: kc edit does it in a shell of your own",
    "vm.screenshot": "there is no place for files here: kc vm screenshot does it in a shell of your own",
}


@dataclass(frozen=True, slots=True)
class LinkState:
    """How KC stands to what it manages; `since` is when it got so, in Unix seconds, `why` what is in the way."""

    link: Link = Link.CONNECTING
    since: float = 0.0
    why: str = ""


class Session:
    """Shared state; used on the event loop's thread only.

    `host` is the name that the header shows, `folder` where things are remembered, `clock` gives Unix seconds,
    `grace_hours` is how long the trash keeps things. `refusals` are the reasons why nobody
    may do something in this session, by command id.
    """

    ERRORS: ClassVar[str] = "errors"
    """Stands among the kinds of changed documents where an error was told."""

    def __init__(
        self,
        gateway: Gateway,
        remembered: Remembered,
        *,
        folder: Path,
        host: str,
        glyphs: Glyphs,
        clock: Callable[[], float] = time.time,
        grace_hours: float = 24.0,
    ) -> None:
        self.gateway = gateway
        self.refusals: Mapping[str, str] = {}
        self.folder = folder
        self.grace_hours = grace_hours
        self.remembered = remembered
        self.host = host
        self.glyphs = glyphs
        self.clock = clock
        self.inventory = Inventory()
        self.usages = UsageBook()
        self.notices: list[Notice] = []
        self.link_state = LinkState(since=clock())
        self.has_observed = False
        self.finished_drafts: dict[str, Draft] = {}
        self._file = folder / memory.FILE_NAME
        self._notice_count = 0
        self._saved = remembered

    def confine(self) -> None:
        """Take away what reaches the machine that KC runs on: programs and files of the user's choice."""
        self.refusals = _CONFINED

    # --- what is known

    def set_link(self, link: Link, why: str = "") -> bool:
        """Note how KC stands to what it manages; return whether that is news."""
        if (self.link_state.link, self.link_state.why) == (link, why):
            return False
        since = self.link_state.since if self.link_state.link is link else self.clock()
        self.link_state = LinkState(link, since, why)
        return True

    def operation_on(self, document: Document) -> Mapping[str, Any] | None:
        """Return, in short form, the operation that works on an object."""
        operation = self.inventory.operation_on(str(document.get("uid", "")))
        if operation is not None:
            return shorten(operation)
        if OPERATION.name in self.inventory.loaded:
            return None
        told = document.get("status", {}).get("operation")
        return told if isinstance(told, dict) else None

    def take_accepted(self, accepted: Accepted) -> None:
        """Know at once what a change made; the feed tells the same a moment later."""
        made = [document for document in (accepted.document, accepted.operation) if document is not None]
        known = self.inventory.get(str(accepted.document.get("kind", "")), str(accepted.document.get("uid", "")))
        # A known object's live state is newer than what the answer has of it.
        self.inventory.apply(Event(0, "updated", item) for item in made if item is not accepted.document or not known)

    def users_of(self, kind: str) -> dict[str, list[str]]:
        """Return the names of the VMs that use each object of a kind, by the object's name."""
        users: dict[str, list[str]] = {}
        for vm in self.inventory.documents(VM.name):
            spec = vm.get("spec", {})
            names = {
                IMAGE.name: lambda spec=spec: [name_of(spec.get("image")), name_of(spec.get("cdrom"))],
                MACHINE_TYPE.name: lambda spec=spec: [name_of(spec.get("type"))],
                NETWORK.name: lambda spec=spec: [name_of(nic.get("network")) for nic in spec.get("nics", [])],
            }[kind]()
            for name in set(names) - {""}:
                users.setdefault(name, []).append(str(vm.get("name", "")))
        return {name: sorted(found) for name, found in users.items()}

    def note(self, error: KCError) -> Notice:
        """Keep an error for the activity list."""
        self._notice_count += 1
        notice = Notice(
            self._notice_count,
            self.clock(),
            sanitise(error.what, 200),
            sanitise(error.why, 500),
            sanitise(error.hint, 300),
        )
        self.notices = [*self.notices[-_MOST_NOTICES + 1 :], notice]
        return notice

    # --- what is remembered

    def remember(self, remembered: Remembered) -> None:
        """Keep other things for the next time; `save` writes them."""
        self.remembered = remembered

    @property
    def needs_saving(self) -> bool:
        """Whether something is not in the file yet."""
        return self.remembered != self._saved

    def restore_draft(self, uid: str) -> bool:
        """Bring the draft of a VM back whose creation failed, unless another one is under way; return whether it is."""
        draft = self.finished_drafts.pop(uid, None)
        if draft is None or not self.remembered.draft.is_empty:
            return False
        self.remembered = replace(self.remembered, draft=draft)
        return True

    def save(self) -> None:
        """Write what is remembered; what cannot be written is lost, and no reason to stop."""
        remembered = self.remembered
        if remembered == self._saved:
            return
        try:
            write_atomically(self._file, memory.dump(remembered))
        except (OSError, KCError) as error:
            _log.warning("%s: %s", self._file, error)
        self._saved = remembered


def load_remembered(folder: Path) -> Remembered:
    """Return what an earlier run remembered in a folder; nothing where there is nothing to read."""
    try:
        return memory.load((folder / memory.FILE_NAME).read_bytes())
    except OSError:
        return Remembered()
