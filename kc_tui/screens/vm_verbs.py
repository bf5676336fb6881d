"""What can be done to VMs, from the list and from a VM's own screen alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from textual import work

from kc_tui.commands import Command, Context, Subject
from kc_tui.messages import ErrorOccurred, OpenConsole
from kc_tui.screens.object_verbs import bind_act
from kc_tui.screens.vm_life import VMLifeVerbs

_CONSEQUENCES: Final = {
    "vm.stop": "The guest is asked to shut down; what it has not saved is up to it.",
    "vm.reboot": "The guest is asked to reboot; what it has not saved is up to it.",
    "vm.start": "They are started one after another.",
    "vm.pause": "Their guests stand still until they are resumed; their memory stays where it is.",
    "vm.resume": "Their guests go on from where they stood still.",
}


class VMVerbs(VMLifeVerbs):
    """The verbs of VMs; `command_context` says upon which."""

    def do_vm_console(self, context: Context) -> None:
        """Open the console of the one VM that is selected."""
        self.post_message(OpenConsole(context.subjects[0].name))

    def do_vm_start(self, context: Context) -> None:
        """Start what is off."""
        self.ask_and_act("vm.start", [subject for subject in context.subjects if subject.state != "running"])

    def do_vm_stop(self, context: Context) -> None:
        """Stop what is on."""
        self.ask_and_act("vm.stop", [subject for subject in context.subjects if subject.state != "stopped"])

    def do_vm_reboot(self, context: Context) -> None:
        """Reboot what is on."""
        self.ask_and_act("vm.reboot", [subject for subject in context.subjects if subject.state != "stopped"])

    def do_vm_pause(self, context: Context) -> None:
        """Pause what runs."""
        self.ask_and_act("vm.pause", [subject for subject in context.subjects if subject.state == "running"])

    def do_vm_resume(self, context: Context) -> None:
        """Let go on what is paused."""
        self.ask_and_act("vm.resume", [subject for subject in context.subjects if subject.state == "paused"])

    def do_vm_delete(self, context: Context) -> None:
        """Delete what is selected."""
        self.ask_and_delete(context.subjects)

    @work
    async def ask_and_act(self, command_id: str, subjects: Sequence[Subject]) -> None:
        """Ask as the command's danger wants it, then act on each; what fails is told, the rest goes on."""
        from kc_tui.dialogs.confirm import ConfirmDialog, ask_about  # noqa: PLC0415 - not for the first picture

        command = self._find_command(command_id)
        question = ask_about(command, subjects, _CONSEQUENCES[command_id])
        if question is not None and not await self.app.push_screen_wait(ConfirmDialog(question)):
            return
        errors = await self.make_all([bind_act(subject.name, command_id.removeprefix("vm.")) for subject in subjects])
        for error in errors:
            if error is not None:
                self.post_message(ErrorOccurred(error))
        self.acted()

    def _find_command(self, command_id: str) -> Command:
        keymap: Any = getattr(self.app, "keymap")  # noqa: B009 - every app of commands has one
        command: Command = keymap.registry[command_id]
        return command
