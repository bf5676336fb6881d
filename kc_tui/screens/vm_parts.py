"""What changes a VM's parts: NICs, disks, the CD-ROM drive, size and machine type."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from textual import work

from backend.errors import KCError
from backend.model.documents import Document, name_of
from backend.model.kinds import IMAGE, MACHINE_TYPE, NETWORK, VM
from kc_tui.commands import Context, Subject
from kc_tui.messages import ErrorOccurred
from kc_tui.screens.changing import Proposal, propose_update
from kc_tui.screens.object_verbs import ObjectVerbs, name_subjects
from kc_tui.state.vms import hardware_of

if TYPE_CHECKING:
    from kc_tui.dialogs.choose import Choice
    from kc_tui.state.fields import Field
    from kc_tui.state.form_field import FormField

Values = Mapping[str, str]


def propose_all(subjects: Sequence[Subject], wish: Callable[[Document], Document]) -> list[Proposal]:
    """Return the proposals to give each VM the spec that is wished for."""
    return [propose_update(VM.name, subject.name, subject.version, wish) for subject in subjects]


class VMPartVerbs(ObjectVerbs):
    """The verbs that change what a VM consists of; what they would do is shown before they do it."""

    async def choose(self, title: str, choices: Sequence[Choice]) -> str | None:
        """Return the id of what the user chooses; the only one that can be chosen is not asked for."""
        from kc_tui.dialogs.choose import ChooseDialog  # noqa: PLC0415 - when it is needed

        if len(choices) == 1 and not choices[0].refusal:
            return choices[0].id
        dialog = ChooseDialog(title, choices, glyphs=self.session.glyphs)
        chosen: str | None = await self.app.push_screen_wait(dialog)
        return chosen

    def document_of(self, subject: Subject) -> Document:
        """Return the VM that a subject is, as it is known now."""
        return self.session.inventory.get(VM.name, subject.uid) or {}

    def spec_of(self, subject: Subject) -> dict[str, Any]:
        """Return the spec of the VM that a subject is."""
        spec: dict[str, Any] = self.document_of(subject).get("spec", {})
        return spec

    def _sorted(self, kind: str) -> list[Document]:
        return sorted(self.session.inventory.documents(kind), key=lambda item: str(item.get("name", "")))

    # --- NICs

    @work(exclusive=True, group="parts")
    async def do_vm_add_nic(self, context: Context) -> None:
        """Add a NIC on a network that the user chooses."""
        from kc_tui.dialogs.choose import Choice  # noqa: PLC0415 - when it is needed
        from kc_tui.state.create_vm import describe_addressing  # noqa: PLC0415
        from kc_tui.state.draft import Nic  # noqa: PLC0415
        from kc_tui.state.nic_options import list_fields, take_values  # noqa: PLC0415
        from kc_tui.state.vm_wishes import add_nic  # noqa: PLC0415

        subjects = context.subjects
        networks = {str(item.get("name", "")): item for item in self._sorted(NETWORK.name)}
        if not networks:
            self.refuse("there is no network yet: n in section 3 makes one")
            return
        choices = [Choice(name, name, describe_addressing(Nic(name), item)) for name, item in networks.items()]
        network = await self.choose("Which network is the NIC on?", choices)
        if network is None:
            return
        nic = Nic(network)

        def propose(values: Values) -> list[Proposal]:
            return propose_all(subjects, partial(add_nic, nic=take_values(nic, values)))

        fields = list_fields(networks[network], nic, is_one=len(subjects) == 1)
        await self.ask_in_form(f"Add a NIC on {network} to {name_subjects(subjects)}?", "add", fields, propose)

    @work(exclusive=True, group="parts")
    async def do_vm_change_nic(self, context: Context) -> None:
        """Change addresses, guards and rates of a NIC that the user chooses."""
        from kc_tui.state.nic_options import list_fields, read_nic, take_values  # noqa: PLC0415 - when it is needed
        from kc_tui.state.vm_wishes import change_nic  # noqa: PLC0415

        subject = context.subjects[0]
        nic_id = await self._choose_nic(subject, "be changed")
        if nic_id is None:
            return
        before: Document = next((nic for nic in self.spec_of(subject)["nics"] if nic.get("id") == nic_id), {})
        nic = read_nic(before)
        network = self.session.inventory.find(NETWORK.name, nic.network) or {}

        def propose(values: Values) -> list[Proposal]:
            return propose_all([subject], partial(change_nic, nic_id=nic_id, nic=take_values(nic, values)))

        title = f"Change {nic_id} of {subject.name}, on {nic.network}?"
        await self.ask_in_form(title, "change", list_fields(network, nic), propose)

    async def _choose_nic(self, subject: Subject, what: str) -> str | None:
        """Return the id of the NIC that the user chooses."""
        from kc_tui.dialogs.choose import Choice  # noqa: PLC0415 - when it is needed
        from kc_tui.state.vm_wishes import name_nics  # noqa: PLC0415

        nics = name_nics(self.spec_of(subject))
        if not nics:
            self.refuse(f"{subject.name} has no NIC")
            return None
        choices = [Choice(id_, id_, f"{network}  {mac}", search=mac) for id_, network, mac in nics]
        return await self.choose(f"Which NIC of {subject.name} is to {what}?", choices)

    @work(exclusive=True, group="parts")
    async def do_vm_remove_nic(self, context: Context) -> None:
        """Remove a NIC that the user chooses."""
        from kc_tui.state.vm_wishes import remove_nic  # noqa: PLC0415 - when it is needed

        subject = context.subjects[0]
        nic = await self._choose_nic(subject, "go")
        if nic is not None:
            proposals = propose_all([subject], partial(remove_nic, nic_id=nic))
            await self.ask_and_change(f"Remove {nic} from {subject.name}?", "remove", proposals)

    # --- disks

    @work(exclusive=True, group="parts")
    async def do_vm_add_disk(self, context: Context) -> None:
        """Add an empty disk."""
        from kc_tui.state.form_field import FormField  # noqa: PLC0415
        from kc_tui.state.vm_wishes import add_disk, complain_about_size  # noqa: PLC0415 - when it is needed

        subjects = context.subjects

        def propose(values: Values) -> list[Proposal]:
            return propose_all(subjects, partial(add_disk, size_gib=int(values["size"])))

        size = FormField("size", "Size", "10", unit="GiB", hint="an empty disk", complain=complain_about_size)
        await self.ask_in_form(f"Add a disk to {name_subjects(subjects)}?", "add", [size], propose)

    @work(exclusive=True, group="parts")
    async def do_vm_grow_disk(self, context: Context) -> None:
        """Make a disk that the user chooses larger."""
        from kc_tui.state.form_field import FormField  # noqa: PLC0415
        from kc_tui.state.vm_wishes import complain_about_size, grow_disk  # noqa: PLC0415 - when it is needed

        subject = context.subjects[0]
        disk, least = await self._choose_disk(subject, "grow", is_root_one=True)
        if disk is None:
            return

        def propose(values: Values) -> list[Proposal]:
            return propose_all([subject], partial(grow_disk, disk_id=disk, size_gib=int(values["size"])))

        complain = partial(complain_about_size, least=least)
        hint = f"it has {least} GiB, and cannot shrink"
        size = FormField("size", "Size", str(least), unit="GiB", hint=hint, complain=complain)
        await self.ask_in_form(f"Grow {disk} of {subject.name}?", "grow", [size], propose)

    @work(exclusive=True, group="parts")
    async def do_vm_remove_disk(self, context: Context) -> None:
        """Remove a disk that the user chooses; the first one goes with the VM alone."""
        from kc_tui.state.vm_wishes import remove_disk  # noqa: PLC0415 - when it is needed

        subject = context.subjects[0]
        disk, _ = await self._choose_disk(subject, "remove", is_root_one=False)
        if disk is not None:
            proposals = propose_all([subject], partial(remove_disk, disk_id=disk))
            await self.ask_and_change(f"Remove {disk} from {subject.name}?", "remove", proposals)

    async def _choose_disk(self, subject: Subject, verb: str, *, is_root_one: bool) -> tuple[str | None, int]:
        """Return the id of the disk that the user chooses, and its size in GiB."""
        from kc_tui.dialogs.choose import Choice  # noqa: PLC0415 - when it is needed
        from kc_tui.state.vm_wishes import ROOT, disk_sizes  # noqa: PLC0415

        sizes = disk_sizes(self.spec_of(subject), hardware_of(self.document_of(subject)))
        if not is_root_one:
            sizes.pop(ROOT, None)
        if not sizes:
            self.refuse(f"{subject.name} has no disk beside its first")
            return None, 0
        choices = [Choice(disk, disk, f"{size} GiB") for disk, size in sizes.items()]
        disk = await self.choose(f"Which disk of {subject.name} do you want to {verb}?", choices)
        return disk, sizes[disk] if disk is not None else 0

    # --- the CD-ROM drive

    @work(exclusive=True, group="parts")
    async def do_vm_insert_disc(self, context: Context) -> None:
        """Put an image that the user chooses into the CD-ROM drive."""
        from kc_tui.dialogs.choose import Choice  # noqa: PLC0415 - when it is needed
        from kc_tui.state.vm_wishes import insert_disc  # noqa: PLC0415

        subjects = context.subjects
        choices = []
        for image in self._sorted(IMAGE.name):
            name, spec = str(image.get("name", "")), image.get("spec", {})
            is_raw = spec.get("format") == "raw"
            refusal = "" if is_raw else f"it is {spec.get('format')}; a CD is raw, an ISO file"
            choices.append(Choice(name, name, str(spec.get("title", "")), refusal=refusal))
        if not choices:
            self.refuse("there is no image yet: kc image upload takes yours")
            return
        image_name = await self.choose("Which image is the CD?", choices)
        if image_name is not None:
            title = f"Put {image_name} into the drive of {name_subjects(subjects)}?"
            await self.ask_and_change(title, "insert", propose_all(subjects, partial(insert_disc, image=image_name)))

    @work(exclusive=True, group="parts")
    async def do_vm_eject_disc(self, context: Context) -> None:
        """Take the CD out of the drive."""
        from kc_tui.state.vm_wishes import insert_disc  # noqa: PLC0415 - when it is needed

        subjects = [subject for subject in context.subjects if self.spec_of(subject).get("cdrom")]
        if not subjects:
            self.refuse("there is no CD in the drive")
            return
        title = f"Take the CD out of {name_subjects(subjects)}?"
        await self.ask_and_change(title, "eject", propose_all(subjects, partial(insert_disc, image=None)))

    # --- size and machine type

    @work(exclusive=True, group="parts")
    async def do_vm_resize(self, context: Context) -> None:
        """Change the parameters of the machine type, in the version that the VMs have of it."""
        subjects = context.subjects
        references = [self.spec_of(subject).get("type", {}) for subject in subjects]
        if any(reference != references[0] for reference in references):
            self.refuse("these VMs are of different machine types: resize those of one at a time")
            return
        machine_type = await self._find_type(references[0])
        if machine_type is None:
            return
        from kc_tui.state.fields import make_fields  # noqa: PLC0415 - when it is needed
        from kc_tui.state.resizing import read_changes, read_texts  # noqa: PLC0415
        from kc_tui.state.vm_wishes import set_parameters  # noqa: PLC0415

        fields = make_fields(machine_type.get("spec", {}))
        if not fields:
            self.refuse(f"machine type {machine_type.get('name', '')} leaves nothing to choose: move to another one")
            return
        now = read_texts(fields, self.spec_of(subjects[0]).get("parameters", {}))

        def propose(values: Values) -> list[Proposal]:
            return propose_all(subjects, partial(set_parameters, values=read_changes(fields, now, values)))

        shown = [_parameter_field(field, now[field.name]) for field in fields]
        await self.ask_in_form(f"Resize {name_subjects(subjects)}?", "resize", shown, propose)

    async def _find_type(self, reference: Mapping[str, Any]) -> Document | None:
        """Return the machine type that a VM is pinned to, as it was at that version."""
        name, version = name_of(reference), reference.get("version") or None
        try:
            return await self.session.gateway.call(
                lambda service: service.get(MACHINE_TYPE.name, name, observe=False, version=version), lane="store"
            )
        except KCError as error:
            self.post_message(ErrorOccurred(error))
            return None

    @work(exclusive=True, group="parts")
    async def do_vm_move(self, context: Context) -> None:
        """Move to another machine type, or to a newer version of the same."""
        from kc_tui.dialogs.choose import Choice, ChooseDialog  # noqa: PLC0415 - when it is needed
        from kc_tui.state.resizing import describe_type  # noqa: PLC0415
        from kc_tui.state.vm_wishes import move_to_type  # noqa: PLC0415

        subjects = context.subjects
        present = self.spec_of(subjects[0]).get("type", {}) if len(subjects) == 1 else {}
        arch = str(hardware_of(self.document_of(subjects[0])).get("arch", ""))
        types = {str(item.get("uid", "")): item for item in self._sorted(MACHINE_TYPE.name)}
        choices = []
        for uid, item in types.items():
            size, hint, refusal = describe_type(item, present, arch)
            choices.append(Choice(uid, str(item.get("name", "")), size, hint, refusal=refusal))
        choices.sort(key=lambda choice: bool(choice.refusal))
        title = f"Which machine type is {name_subjects(subjects)} to have?"
        chosen: str | None = await self.app.push_screen_wait(ChooseDialog(title, choices, glyphs=self.session.glyphs))
        if chosen is not None:
            machine_type = types[chosen]
            proposals = propose_all(subjects, partial(move_to_type, machine_type=machine_type))
            title = f"Move {name_subjects(subjects)} to machine type {machine_type.get('name', '')}?"
            await self.ask_and_change(title, "move", proposals)


def _parameter_field(field: Field, text: str) -> FormField:
    from kc_tui.state.fields import FieldKind  # noqa: PLC0415 - when it is needed
    from kc_tui.state.form_field import FormField  # noqa: PLC0415

    is_yes_no = field.kind is FieldKind.BOOLEAN
    options, labels = (("true", "false"), {"true": "yes", "false": "no"}) if is_yes_no else (field.options, {})
    hint = " ".join(part for part in (field.limits, field.help) if part)
    return FormField(field.name, field.title, text, options, labels, field.unit, hint, field.complain)
