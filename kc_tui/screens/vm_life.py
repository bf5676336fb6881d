"""What is done to a VM as a whole: snapshots, copies, names, drift, adoption, and looks at its screen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from textual import work

from backend.errors import FailedError, KCError
from backend.model.documents import Document
from backend.model.kinds import VM
from backend.service import Accepted, Service
from backend.text import sanitise
from kc_tui.commands import Context, Subject
from kc_tui.messages import ErrorOccurred
from kc_tui.screens.object_verbs import bind_act, name_subjects
from kc_tui.screens.vm_parts import Values, VMPartVerbs
from kc_tui.state.lines import Line


class VMLifeVerbs(VMPartVerbs):
    """The verbs upon VMs as a whole."""

    async def look_at(self, subject: Subject) -> Document | None:
        """Return a VM with all that the host tells of it; an error is told."""
        try:
            return await self.session.gateway.look_at(VM.name, subject.name)
        except KCError as error:
            self.post_message(ErrorOccurred(error))
            return None

    async def make(self, change: Callable[[Service], Accepted]) -> None:
        """Make one change and show it; raise KCError."""
        self.take(await self.session.gateway.change(change))

    def names_taken(self) -> frozenset[str]:
        """Return the names that VMs and foreign domains have."""
        return frozenset(str(item.get("name", "")) for item in self.session.inventory.documents(VM.name))

    # --- snapshots

    @work(exclusive=True, group="life")
    async def do_vm_snapshot(self, context: Context) -> None:
        """Take a snapshot of what is selected."""
        from kc_tui.dialogs.form import Form  # noqa: PLC0415 - when it is needed
        from kc_tui.state.form_field import FormField  # noqa: PLC0415
        from kc_tui.state.vm_wishes import complain_about_snapshot  # noqa: PLC0415

        left = list(context.subjects)

        async def make(values: Values) -> None:
            parameters = {key: value for key, value in values.items() if value}
            await self.make_rest(left, lambda subject: bind_act(subject.name, "snapshot", parameters))

        fields = (
            FormField("snapshot", "Name", hint="empty: KC gives it one", complain=complain_about_snapshot),
            FormField("description", "Description"),
        )
        if await self.fill_in(Form(f"Take a snapshot of {name_subjects(left)}?", "take it", make, fields)):
            self.acted()

    async def _choose_snapshot(self, subject: Subject, verb: str) -> tuple[Document, Mapping[str, Any]] | None:
        """Return the VM and the one of its snapshots that the user chooses."""
        from kc_tui.dialogs.choose import Choice  # noqa: PLC0415 - when it is needed
        from kc_tui.state.vm_parts import describe_snapshot, snapshots_of  # noqa: PLC0415

        document = await self.look_at(subject)
        if document is None:
            return None
        found = {str(item.get("name", "")): item for item in snapshots_of(document)}
        if not found:
            self.refuse(f"{subject.name} has no snapshot")
            return None
        choices = [Choice(name, name, describe_snapshot(item)) for name, item in found.items()]
        chosen = await self.choose(f"Which snapshot of {subject.name} do you want to {verb}?", choices)
        return None if chosen is None else (document, found[chosen])

    @work(exclusive=True, group="life")
    async def do_vm_restore_snapshot(self, context: Context) -> None:
        """Bring a VM back to a snapshot, after it was shown what becomes of it."""
        from kc_tui.dialogs.change import Part, draw_parts  # noqa: PLC0415 - when it is needed
        from kc_tui.dialogs.form import Form  # noqa: PLC0415
        from kc_tui.state.vm_parts import describe_restoring  # noqa: PLC0415
        from kc_tui.widgets.line_view import Layout  # noqa: PLC0415

        subject = context.subjects[0]
        chosen = await self._choose_snapshot(subject, "restore")
        if chosen is None:
            return
        document, snapshot = chosen
        name = str(snapshot.get("name", ""))

        async def look(_values: Values) -> Layout:
            changes = await self.session.gateway.compare(VM.name, subject.name, snapshot.get("version"))
            part = Part(subject.name, changes, describe_restoring(document, snapshot))
            return lambda width: draw_parts((part,), width, self.session.glyphs, is_short=True)

        async def make(_values: Values) -> None:
            await self.make(bind_act(subject.name, "restore-snapshot", {"snapshot": name}))

        if await self.fill_in(Form(f"Bring {subject.name} back to {name}?", "restore", make, look=look)):
            self.acted()

    @work(exclusive=True, group="life")
    async def do_vm_delete_snapshot(self, context: Context) -> None:
        """Delete a snapshot that the user chooses."""
        from kc_tui.dialogs.confirm import ConfirmDialog, Question  # noqa: PLC0415 - when it is needed

        subject = context.subjects[0]
        chosen = await self._choose_snapshot(subject, "delete")
        if chosen is None:
            return
        name = str(chosen[1].get("name", ""))
        text = "The VM stays as it is; there is no way back to this snapshot any more."
        if not await self.app.push_screen_wait(ConfirmDialog(Question(f"Delete snapshot {name}?", text, "delete"))):
            return
        try:
            await self.make(bind_act(subject.name, "delete-snapshot", {"snapshot": name}))
        except KCError as error:
            self.post_message(ErrorOccurred(error))
        self.acted()

    # --- copies and names

    @work(exclusive=True, group="life")
    async def do_vm_clone(self, context: Context) -> None:
        """Make another VM like the one that is selected."""
        from kc_tui.dialogs.form import Form  # noqa: PLC0415 - when it is needed
        from kc_tui.state.create_vm import complain_about_name  # noqa: PLC0415
        from kc_tui.state.form_field import FormField  # noqa: PLC0415

        name = context.subjects[0].name

        async def make(values: Values) -> None:
            new, start = values["name"], values["start"] == "true"
            await self.make(lambda service: service.clone(name, new, start=start))

        complain = partial(complain_about_name, taken=self.names_taken())
        fields = (
            FormField("name", "Name", f"{name}-2", complain=complain),
            FormField("start", "Start it", "false", ("true", "false"), {"true": "yes", "false": "no"}),
        )
        text = "It gets copies of the disks, and a uid, MACs and a host name of its own."
        if await self.fill_in(Form(f"Clone {name}?", "clone", make, fields, text=text)):
            self.acted()

    @work(exclusive=True, group="life")
    async def do_vm_rename(self, context: Context) -> None:
        """Give the VM another name."""
        from kc_tui.dialogs.form import Form  # noqa: PLC0415 - when it is needed
        from kc_tui.state.create_vm import complain_about_name  # noqa: PLC0415
        from kc_tui.state.form_field import FormField  # noqa: PLC0415

        subject = context.subjects[0]

        async def make(values: Values) -> None:
            version = subject.version
            await self.make(lambda service: service.rename(subject.name, values["name"], if_version=version))

        complain = partial(complain_about_name, taken=self.names_taken() - {subject.name})
        field = FormField("name", "Name", subject.name, complain=complain)
        text = "Its uid, disks and addresses stay. The domain of one that runs keeps its name until its next start."
        if await self.fill_in(Form(f"Rename {subject.name}?", "rename", make, (field,), text=text)):
            self.acted()

    # --- drift and adoption

    @work(exclusive=True, group="life")
    async def do_vm_reconcile(self, context: Context) -> None:
        """Show what somebody else changed on the host, and make the host match the documents again."""
        from kc_tui.dialogs.change import Part, draw_parts  # noqa: PLC0415 - when it is needed
        from kc_tui.dialogs.form import Form  # noqa: PLC0415
        from kc_tui.state.vm_parts import EFFECT_OF_RECONCILING, drift_changes  # noqa: PLC0415
        from kc_tui.widgets.line_view import Layout  # noqa: PLC0415

        parts = []
        for subject in context.subjects:
            document = await self.look_at(subject)
            if document is not None and (changes := drift_changes(document)):
                parts.append(Part(subject.name, changes, [EFFECT_OF_RECONCILING]))
        if not parts:
            self.refuse(f"{name_subjects(context.subjects)}: the host is as the document says")
            return

        async def look(_values: Values) -> Layout:
            return lambda width: draw_parts(parts, width, self.session.glyphs)

        async def make(_values: Values) -> None:
            await self.make_rest(parts, lambda part: bind_act(part.name, "reconcile"))

        whom = parts[0].name if len(parts) == 1 else f"{len(parts)} VMs"
        if await self.fill_in(Form(f"Make {whom} as documented?", "mend", make, look=look)):
            self.acted()

    @work(exclusive=True, group="life")
    async def do_vm_adopt(self, context: Context) -> None:
        """Take a foreign domain under management, after it was shown what would be managed and what not."""
        from kc_tui.dialogs.form import Form  # noqa: PLC0415 - when it is needed
        from kc_tui.state.create_vm import complain_about_name  # noqa: PLC0415
        from kc_tui.state.form_field import FormField  # noqa: PLC0415
        from kc_tui.state.vm_parts import draw_adoption, suggest_name  # noqa: PLC0415
        from kc_tui.widgets.line_view import Layout  # noqa: PLC0415

        subject = context.subjects[0]
        glyphs = self.session.glyphs

        async def look(values: Values) -> Layout:
            adoption = await self.session.gateway.preview_adoption(subject.uid, values["name"])

            def draw(width: int) -> Sequence[Line]:
                return draw_adoption(adoption.managed, adoption.untouched, width, glyphs)

            return draw

        async def make(values: Values) -> None:
            await self.make(lambda service: service.adopt(subject.uid, name=values["name"]))

        taken = self.names_taken() - {subject.name}
        name = FormField("name", "Name", suggest_name(subject.name), complain=partial(complain_about_name, taken=taken))
        if await self.fill_in(Form(f"Adopt {subject.name}?", "adopt", make, (name,), look)):
            self.acted()

    # --- looks at the screen

    @work(exclusive=True, group="life")
    async def do_vm_viewer(self, context: Context) -> None:
        """Tell where the VM's screen is, and the command that shows it."""
        from kc_tui.dialogs.message import MessageDialog, Report  # noqa: PLC0415 - when it is needed

        subject = context.subjects[0]
        document = await self.look_at(subject)
        if document is None:
            return
        address = str(document.get("status", {}).get("display") or "")
        if not address:
            self.refuse(f"{subject.name} has no screen that could be seen")
            return
        command = f"kc vm viewer {subject.name}"
        what = f"The screen of {subject.name}"
        why = f"it is at {address}"
        hint = f"in a shell on your desktop: {command}"
        await self.app.push_screen_wait(MessageDialog(Report(what, why, hint, copied=command, is_error=False)))

    @work(exclusive=True, group="life")
    async def do_vm_screenshot(self, context: Context) -> None:
        """Write a picture of the VM's screen to a file."""
        from kc_tui.dialogs.form import Form  # noqa: PLC0415 - when it is needed
        from kc_tui.state.form_field import FormField  # noqa: PLC0415

        name, gateway = context.subjects[0].name, self.session.gateway

        async def make(values: Values) -> None:
            picture = await gateway.call(lambda service: service.screenshot(name))
            await gateway.run(lambda: _write_new(values["file"], picture))

        field = FormField("file", "File", f"~/{name}.png", hint="a PNG", complain=_complain_about_file)
        if await self.fill_in(Form(f"Write the screen of {name} to a file?", "write", make, (field,))):
            self.app.notify("The picture is written.", title=name, markup=False, timeout=3)


def _complain_about_file(text: str) -> str:
    return "" if text and not text.endswith("/") else "the name of a file is wanted"


def _write_new(path: str, content: bytes) -> None:
    """Write a file that is not there yet; a home folder that is not known is a RuntimeError of pathlib's."""
    try:
        with Path(path).expanduser().open("xb") as file:
            file.write(content)
    except FileExistsError:
        raise FailedError(f"file {sanitise(path, 200)}", "there is such a file already") from None
    except (OSError, RuntimeError) as error:
        why = sanitise(getattr(error, "strerror", None) or str(error), 200).lower()
        raise FailedError(f"file {sanitise(path, 200)}", why) from error
