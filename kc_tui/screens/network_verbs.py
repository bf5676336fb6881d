"""What can be done to networks, from their list and from the page of one alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from textual import work

from backend.errors import KCError
from backend.model.documents import Document
from backend.model.kinds import NETWORK
from backend.service import Accepted, Service
from kc_tui.commands import BarEntry, Context
from kc_tui.messages import ErrorOccurred, ShowObject
from kc_tui.screens.object_verbs import ObjectVerbs, name_subjects
from kc_tui.state.lines import Line

_MENDING = "what is missing or different on the host is put right; running VMs stay joined where that can be"
_TOPOLOGY = "network.topology"


class NetworkVerbs(ObjectVerbs):
    """The verbs of networks; `command_context` says upon which."""

    def list_ways(self) -> tuple[BarEntry, ...]:
        """Return the way to the topology, too; on other screens its key works unseen."""
        keymap: Any = getattr(self.app, "keymap", None)
        if keymap is None:
            return super().list_ways()
        label, word = keymap.label(_TOPOLOGY), keymap.registry[_TOPOLOGY].label
        return (*super().list_ways(), BarEntry(_TOPOLOGY, label, word, 5))

    async def do_network_create(self, _context: Context) -> None:
        """Open the wizard for a new network, before the next key is read: it may be the wizard's already."""
        from kc_tui.wizards.create_network import CreateNetworkWizard  # noqa: PLC0415 - when it is wanted

        await self.app.push_screen(CreateNetworkWizard(self.session), self._show_made)

    async def do_network_change(self, context: Context) -> None:
        """Open the wizard on the one network that is selected."""
        from kc_tui.wizards.create_network import CreateNetworkWizard  # noqa: PLC0415 - when it is wanted

        subject = context.subjects[0]
        document = self.session.inventory.get(NETWORK.name, subject.uid)
        if document is None:
            self.refuse(f"{subject.name} is gone")
            return
        await self.app.push_screen(CreateNetworkWizard(self.session, document))

    def _show_made(self, document: Document | None) -> None:
        if document is not None:
            self.post_message(ShowObject(NETWORK.name, str(document.get("uid", ""))))

    @work(exclusive=True, group="mend")
    async def do_network_reconcile(self, context: Context) -> None:
        """Show what is wrong on the host, and make it match the documents again."""
        from kc_tui.dialogs.change import Part, draw_parts  # noqa: PLC0415 - when it is needed
        from kc_tui.dialogs.form import Form  # noqa: PLC0415
        from kc_tui.state.networks import list_problems  # noqa: PLC0415
        from kc_tui.widgets.line_view import Layout  # noqa: PLC0415

        wrong: dict[str, Sequence[str]] = {}
        for subject in context.subjects:
            try:
                document = await self.session.gateway.look_at(NETWORK.name, subject.name)
            except KCError as error:
                self.post_message(ErrorOccurred(error))
                continue
            if problems := [message for message, _ in list_problems(document)]:
                wrong[subject.name] = problems
        if not wrong:
            self.refuse(f"{name_subjects(context.subjects)}: the host is as the document says")
            return
        parts = [Part(name, (), [_MENDING], " ".join(f"{text}." for text in told)) for name, told in wrong.items()]
        left = list(wrong)

        def draw(width: int) -> list[Line]:
            return draw_parts(parts, width, self.session.glyphs)

        async def look(_values: object) -> Layout:
            return draw

        async def make(_values: object) -> None:
            await self.make_rest(left, _bind_reconcile)

        whom = left[0] if len(left) == 1 else f"{len(left)} networks"
        if await self.fill_in(Form(f"Make {whom} as documented?", "mend", make, look=look)):
            self.acted()


def _bind_reconcile(name: str) -> Callable[[Service], Accepted]:
    return lambda service: service.act_on_network(name, "reconcile")
