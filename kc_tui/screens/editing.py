"""A document in the user's own editor: nothing typed is lost, nothing changes before it was shown."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from textual.app import SuspendNotSupported

from backend.errors import FailedError, KCError
from backend.model.documents import Document
from backend.model.kinds import Kind
from backend.paths import write_atomically
from backend.service import Accepted, Preview, Service
from backend.text import sanitise
from kc_tui.commands import Subject
from kc_tui.dialogs.change import AGAIN, YES, ChangeDialog, ChangeQuestion, Part
from kc_tui.dialogs.confirm import ConfirmDialog, Question
from kc_tui.editor import find_editor, run_editor
from kc_tui.messages import ErrorOccurred
from kc_tui.screens.changing import describe_notice, is_overtaken
from kc_tui.state.document_text import Edited, read_text, write_text

if TYPE_CHECKING:
    from kc_tui.screens.changing import ChangingScreen

FOLDER: Final = "edits"


async def edit_document(screen: ChangingScreen, kind: Kind, subject: Subject) -> None:
    """Edit an object's document until it is written or left; a text that is not written is kept for the next time."""
    editing = _Editing(screen, kind, subject)
    try:
        await editing.open()
        while await editing.edit():
            if await editing.offer():
                return
    except KCError as error:
        screen.post_message(ErrorOccurred(error))


class _Editing:
    """One object's text on its way: `path` holds it until the change is made or nothing is left to keep."""

    def __init__(self, screen: ChangingScreen, kind: Kind, subject: Subject) -> None:
        self.screen = screen
        self.gateway = screen.session.gateway
        self.kind = kind
        self.subject = subject
        self.what = f"{kind.title} {subject.name}"
        self.path = screen.session.folder / FOLDER / f"{kind.command}-{Path(subject.uid).name}.yaml"
        self.original = ""
        self.text = ""

    async def open(self) -> None:
        """Put the text into its file: what was kept of the last time, else the document as it is now."""
        kind, name = self.kind.name, self.subject.name

        def prepare(service: Service) -> tuple[str, bool]:
            original = write_text(service.get(kind, name, observe=False), self.what)
            if self.path.exists():
                return original, True
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(self.path, original.encode())
            return original, False

        self.original, is_kept = await self.gateway.call(prepare)
        if is_kept:
            self.screen.app.notify("This is your text of the last time.", title=self.what, markup=False, timeout=4)

    async def edit(self) -> bool:
        """Lend the terminal to the editor; return whether there is a text that could be written."""
        status = self._lend_terminal()
        if status is None:
            await self._forget_if_same()
            return False
        self.text = await self.gateway.run(lambda: self.path.read_text("utf-8", "replace"))
        if status:
            await self._forget_if_same()
            self.screen.refuse(f"the editor ended with status {status}: nothing was changed")
            return False
        if self.text == self.original:
            await self._forget()
            self.screen.refuse("nothing was changed")
            return False
        return True

    def _lend_terminal(self) -> int | None:
        """Return the editor's status; None where the terminal cannot be lent, or there is no editor."""
        app = self.screen.app
        try:
            command = find_editor(os.environ)
            with app.suspend():
                status = run_editor(command, self.path)
        except SuspendNotSupported:
            self.screen.refuse(
                f"this terminal cannot be lent to an editor: kc {self.kind.command} edit does it in a shell"
            )
            return None
        except FailedError as error:
            self.screen.post_message(ErrorOccurred(error))
            return None
        app.refresh(layout=True)
        return status

    async def offer(self) -> bool:
        """Show what the text would change and write it; return whether the user is done with it."""
        while True:
            try:
                edited = read_text(self.text, self.what)
                preview = await self.gateway.preview(partial(self._look, edited))
                if not preview.changes:
                    await self._forget()
                    self.screen.refuse("nothing would change")
                    return True
                answer = await self._ask(preview, edited)
                if answer == AGAIN:
                    return False
                if answer != YES:
                    return self._keep()
                version = preview.before["version"] if preview.before is not None else 0
                accepted = await self.gateway.change(partial(self._write, edited, version))
            except KCError as error:
                if is_overtaken(error):
                    continue
                if not await self._show_error(error):
                    return self._keep()
                return False
            self.screen.take(accepted)
            await self._forget()
            self.screen.acted()
            return True

    def _wish(self, edited: Edited) -> Document:
        return {"kind": self.kind.name, "name": self.subject.name, **edited.parts}

    def _look(self, edited: Edited, service: Service) -> Preview:
        current = service.get(self.kind.name, self.subject.name, observe=False)
        return service.preview({**self._wish(edited), "version": current["version"]})

    def _write(self, edited: Edited, version: int, service: Service) -> Accepted:
        return service.update(self._wish(edited), if_version=version, message=edited.message)

    async def _ask(self, preview: Preview, edited: Edited) -> str | None:
        notice = describe_notice(preview, edited.version)
        part = Part(self.subject.name, preview.changes, preview.effects, notice)
        question = ChangeQuestion(f"Change {self.subject.name}?", "change", (part,), "edit again")
        answer: str | None = await self.screen.app.push_screen_wait(
            ChangeDialog(question, glyphs=self.screen.session.glyphs)
        )
        return answer

    async def _show_error(self, error: KCError) -> bool:
        """Say what is wrong with the text; return whether it is to be edited again."""
        self.screen.session.note(error)
        why = sanitise(f"{error.why}{f'. {error.hint}' if error.hint else ''}", 400)
        question = Question(
            f"{self.what} cannot be like that", why, "edit again", keep="leave; the text is kept", is_harmless=True
        )
        answer: bool | None = await self.screen.app.push_screen_wait(ConfirmDialog(question))
        return answer is True

    def _keep(self) -> bool:
        self.screen.app.notify("Your text is kept: edit it again to go on.", title=self.what, markup=False, timeout=4)
        return True

    async def _forget(self) -> None:
        await self.gateway.run(lambda: self.path.unlink(missing_ok=True))

    async def _forget_if_same(self) -> None:
        """Keep only what was typed."""
        if await self.gateway.run(lambda: self.path.read_text("utf-8", "replace")) == self.original:
            await self._forget()
