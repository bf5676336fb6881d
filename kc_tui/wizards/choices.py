"""What the wizard for a new VM can offer, and what follows from a draft, with all that the session knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from backend.errors import KCError
from backend.model.documents import Document
from backend.model.kinds import IMAGE, MACHINE_TYPE, NETWORK, VM
from backend.model.parameters import resolve_hardware
from kc_tui.session import Session
from kc_tui.state import images, machine_types, network_details
from kc_tui.state.create_vm import PublicKey, build_arguments, build_document, chosen_values
from kc_tui.state.create_vm_review import Switch, choose_keys, describe_choices, list_switches
from kc_tui.state.create_vm_rows import NEW, Option, list_images, list_networks, list_types
from kc_tui.state.draft import Draft, Nic
from kc_tui.state.fields import Field, make_fields
from kc_tui.state.lines import BLANK, Line
from kc_tui.state.roles import Role
from kc_tui.state.table import Run
from kc_tui.wizards.ssh_keys import find_public_keys

_HOW_TO_MAKE: Final = {
    IMAGE.name: "kc image upload FILE --name NAME",
    MACHINE_TYPE.name: "kc type create NAME --cpus 2 --memory 2048 --disk 10",
}


class Choices:
    """The wizard's view of the session; `home` is where the user's SSH keys lie."""

    def __init__(self, session: Session, home: Path) -> None:
        self.session = session
        self._home = home
        self._keys: list[PublicKey] = []

    async def find_keys(self) -> None:
        """Look for the user's public keys."""
        try:
            self._keys = await self.session.gateway.run(lambda: find_public_keys(self._home))
        except KCError:
            self._keys = []

    def begin(self) -> Draft:
        """Return the draft that was left, else one with the choices made last."""
        remembered = self.session.remembered
        if not remembered.draft.is_empty:
            return remembered.draft
        nics = tuple(Nic(name) for name in remembered.networks)
        return replace(Draft(), image=remembered.image, nics=nics, type=remembered.type)

    # --- what there is to choose

    def _documents(self, kind: str) -> list[Document]:
        return self.session.inventory.documents(kind)

    def _operations(self, kind: str) -> dict[str, Mapping[str, Any]]:
        found = {}
        for document in self._documents(kind):
            operation = self.session.operation_on(document)
            if operation is not None:
                found[str(document.get("uid", ""))] = operation
        return found

    def _is_known(self, kind: str) -> bool:
        return kind in self.session.inventory.loaded

    def images(self) -> list[Option] | None:
        """Return the images; None before it is known which there are."""
        if not self._is_known(IMAGE.name):
            return None
        return list_images(self._documents(IMAGE.name), self._operations(IMAGE.name))

    def networks(self, nics: Sequence[Nic], addressed: Mapping[str, Nic]) -> list[Option] | None:
        """Return the networks, see `list_networks`; None before it is known which there are."""
        if not self._is_known(NETWORK.name):
            return None
        operations = self._operations(NETWORK.name)
        return list_networks(self._documents(NETWORK.name), operations, nics, addressed, self.session.glyphs)

    def types(self, image: str) -> list[Option] | None:
        """Return the machine types for an image; None before it is known which there are."""
        if not self._is_known(MACHINE_TYPE.name):
            return None
        return list_types(self._documents(MACHINE_TYPE.name), self.session.inventory.find(IMAGE.name, image))

    def find_network(self, name: str) -> Document | None:
        """Return the network of that name."""
        return self.session.inventory.find(NETWORK.name, name)

    def find_type(self, name: str) -> Document | None:
        """Return the machine type of that name."""
        return self.session.inventory.find(MACHINE_TYPE.name, name)

    def taken_names(self) -> frozenset[str]:
        """Return the names that VMs of the host have, foreign ones too."""
        return frozenset(str(document.get("name", "")) for document in self._documents(VM.name))

    def describe_image(self, name: str) -> Sequence[Line]:
        """Return all about an image, or how to make one."""
        image = self.session.inventory.find(IMAGE.name, name)
        if image is None:
            return self._how_to_make(IMAGE.name, name)
        return images.describe(image, None, self.session.glyphs)

    def describe_network(self, name: str) -> Sequence[Line]:
        """Return all about a network, or how to make one."""
        network = self.find_network(name)
        if network is None:
            return ((Run("enter makes a new one, and comes back with it.", Role.MUTED),),) if name == NEW else ()
        return network_details.describe(network, None, self.session.glyphs)

    def describe_type(self, name: str) -> Sequence[Line]:
        """Return all about a machine type, or how to make one."""
        machine_type = self.find_type(name)
        if machine_type is None:
            return self._how_to_make(MACHINE_TYPE.name, name)
        return machine_types.describe(machine_type, None, self.session.glyphs)

    @staticmethod
    def _how_to_make(kind: str, name: str) -> Sequence[Line]:
        if name != NEW:
            return ()
        return ((Run("In a shell:", Role.MUTED),), BLANK, (Run(_HOW_TO_MAKE[kind], Role.STRONG),))

    # --- what follows from a draft

    def fields(self, draft: Draft) -> tuple[Field, ...]:
        """Return the fields of the draft's machine type."""
        machine_type = self.find_type(draft.type)
        return make_fields(machine_type.get("spec", {})) if machine_type is not None else ()

    def values(self, draft: Draft) -> dict[str, Any] | None:
        """Return the parameters that differ from what the type gives; None where a text does not fit."""
        try:
            return chosen_values(draft, self.fields(draft))
        except ValueError:
            return None

    def chosen_keys(self, draft: Draft) -> list[PublicKey]:
        """Return the SSH keys that the draft takes."""
        return choose_keys(draft, self._keys)

    def document(self, draft: Draft) -> Document | None:
        """Return the document that the draft makes; None where a text does not fit."""
        values = self.values(draft)
        return None if values is None else build_document(draft, values, self.chosen_keys(draft))

    def review(self, draft: Draft) -> tuple[list[Line], list[Switch], list[str]]:
        """Return what the last page shows: the essentials, the switches, the words of the command."""
        values = self.values(draft) or {}
        machine_type = self.find_type(draft.type)
        hardware = resolve_hardware(machine_type.get("spec", {}), values) if machine_type is not None else {}
        keys = self.chosen_keys(draft)
        known = {str(network.get("name", "")): network for network in self._documents(NETWORK.name)}
        image = self.session.inventory.find(IMAGE.name, draft.image)
        lines = describe_choices(draft, image, known, hardware, len(keys))
        return lines, list_switches(draft, self._keys, keys), build_arguments(draft, values, keys)
