"""From a key or a command's id to the method that does it, or to the reason why not."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

from textual import events
from textual.app import App
from textual.dom import DOMNode
from textual.screen import Screen

from kc_tui.commands.command import HANDLER_PREFIX, Command, Context
from kc_tui.commands.keymap import Keymap


@runtime_checkable
class Commanded(Protocol):
    """A screen that says what its commands would act upon."""

    def command_context(self) -> Context:
        """Return what is in front of the user."""


class CommandDispatch(App[None], inherit_bindings=False):
    """An app whose keys are commands.

    A command runs the first method named `do_…` (`do_vm_start` for `vm.start`) that the screen or the app has;
    it gets the context and may be a coroutine or a worker. Commands of widgets run as the focused widget's action. One
    that cannot run calls `refuse` with its reason. Modal screens keep all keys to themselves.
    """

    ENABLE_COMMAND_PALETTE = False

    def __init__(self, keymap: Keymap, **options: Any) -> None:
        super().__init__(**options)
        self.keymap = keymap
        for key in keymap.app_keys:
            self.bind(key, f"press_command({key!r})", show=False)
        self.set_keymap(keymap.widget_keys)

    async def on_event(self, event: events.Event) -> None:
        """Run what a key is bound to before the next key is read.

        Textual sends a key through the focused widget's queue and runs its binding only when it comes back; keys that
        were typed ahead (a slow line delivers several at once) would still reach the old widget, and `/sy` would stop a
        VM in the place of filtering. Where a widget takes text, or listens to keys itself (`on_key`), they go their
        usual way, in their order.
        """
        if isinstance(event, events.Key) and not event.is_forwarded and not self._is_listened_to():
            active = self.screen.active_bindings.get(event.key)
            if active is not None and await self.run_action(active.binding.action, active.node):
                return
        await super().on_event(event)

    def _is_listened_to(self) -> bool:
        focused = self.focused
        if focused is None:
            return hasattr(self.screen, "on_key")
        return focused.check_consume_key("a", "a") or any(
            hasattr(node, "on_key") for node in focused.ancestors_with_self
        )

    def command_context(self) -> Context:
        """Return what commands are judged by at the moment."""
        screen = self.screen
        return screen.command_context() if isinstance(screen, Commanded) else Context()

    def refuse(self, reason: str) -> None:
        """Tell the user why a key does nothing."""
        raise NotImplementedError

    async def action_press_command(self, key: str) -> None:
        """Run what a key means here, or say why it cannot."""
        context = self.command_context()
        command, reason = self.keymap.choose(key, context)
        if command is not None:
            await self._run(command, reason, context)

    async def run_command(self, command_id: str) -> None:
        """Run a command by its id, as the palette, the help and the mouse do; one that cannot run says why."""
        context = self.command_context()
        command = self.keymap.registry[command_id]
        await self._run(command, command.refusal(context), context)

    async def _run(self, command: Command, reason: str | None, context: Context) -> None:
        if reason is not None:
            self.refuse(reason)
            return
        if command.action:
            await self._run_in_widget(command)
            return
        target = next((node for node in (self.screen, self) if hasattr(node, command.handler)), None)
        if target is None:
            self.refuse(f"{command.label} does nothing on this screen")
            return
        result = getattr(target, command.handler)(context)
        if inspect.isawaitable(result):
            await result

    async def _run_in_widget(self, command: Command) -> None:
        nodes: Iterable[DOMNode] = self.focused.ancestors_with_self if self.focused is not None else ()
        for node in nodes:
            if hasattr(node, f"action_{command.action}"):
                await self.run_action(command.action, node)
                return
        self.refuse(f"{command.label} works {command.scope.value}")


def find_unhandled(keymap: Keymap, *targets: type[App[Any] | Screen[Any]]) -> list[str]:
    """Return the ids of commands that none of the classes handles, and the handlers of commands that do not exist."""
    handlers = {name for target in targets for name in dir(target) if name.startswith(HANDLER_PREFIX)}
    wanted = {command.handler: command.id for command in keymap.registry if not command.action}
    missing = [command_id for handler, command_id in wanted.items() if handler not in handlers]
    return missing + sorted(handlers - set(wanted))
