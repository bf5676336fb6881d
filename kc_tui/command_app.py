"""The app beneath KC's app: themes, commands, key bar, palette, help and clipboard; it knows no VM."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, ClassVar, Final

from textual import on
from textual.filter import LineFilter

from kc_tui.clipboard import SIZE_LIMIT, CopyRequested, make_passthrough, prepare
from kc_tui.commands.command import Context
from kc_tui.commands.dispatch import CommandDispatch
from kc_tui.commands.keymap import Keymap, build_keymap
from kc_tui.dialogs.choose import Choice, ChooseDialog
from kc_tui.dialogs.palette import COMMAND_PREFIX, make_palette
from kc_tui.line_filters import PlainAscii, SafeText
from kc_tui.screens.help import HelpScreen
from kc_tui.state.formatting import format_bytes
from kc_tui.state.glyphs import UNICODE, Glyphs
from kc_tui.theming import DEFAULT_THEME, NO_COLOR_THEME, Themes, load_themes, make_textual_theme, make_variables
from kc_tui.widgets.key_bar import KeyBar

STYLES: Final = Path(__file__).parent / "styles"


@dataclass(frozen=True)
class Looks:
    """How an app looks and which keys it has, as the settings and the terminal say."""

    themes: Themes = field(default_factory=load_themes)
    theme: str = DEFAULT_THEME
    keymap: Keymap = field(default_factory=build_keymap)
    glyphs: Glyphs = UNICODE
    is_colorless: bool = False

    @classmethod
    def choose(
        cls, environment: Mapping[str, str], *, themes: Themes, theme: str, keymap: Keymap, glyphs: Glyphs
    ) -> Looks:
        """Return the looks for a terminal: without colours (NO_COLOR) the terminal's own theme, whatever was chosen."""
        is_colorless = "NO_COLOR" in environment
        name = NO_COLOR_THEME if is_colorless else theme or DEFAULT_THEME
        return cls(themes, themes.choose(name).name, keymap, glyphs, is_colorless)


class CommandApp(CommandDispatch):
    """An app of commands, in roles and signs.

    Screens get `glyphs` from it when they are made. What is wrong with the user's themes and keys is in `problems`.
    """

    CSS_PATH: ClassVar[list[str | PurePath]] = [STYLES / "base.tcss", STYLES / "dialogs.tcss"]

    def __init__(self, looks: Looks | None = None, **options: Any) -> None:
        self.looks = looks or Looks()
        # Textual takes colours out where NO_COLOR is set; without this it would put greys of its own in their place.
        super().__init__(self.looks.keymap, **{"ansi_color": True if self.looks.is_colorless else None, **options})
        self.animation_level = "none"
        self._line_filters: list[LineFilter] = [SafeText()]
        if self.looks.glyphs.is_ascii:
            self._line_filters.append(PlainAscii())
        for theme in self.looks.themes.by_name.values():
            self.register_theme(make_textual_theme(theme))
        self.theme = self.looks.themes.choose(self.looks.theme).name

    @property
    def glyphs(self) -> Glyphs:
        """The signs to draw with."""
        return self.looks.glyphs

    @property
    def problems(self) -> tuple[str, ...]:
        """A line for each thing in the user's configuration that could not be used."""
        return (*(str(problem) for problem in self.looks.themes.problems), *self.looks.keymap.problems)

    def get_theme_variable_defaults(self) -> dict[str, str]:
        """Give every theme the roles, so that style sheets hold under Textual's own themes too."""
        return make_variables(self.looks.themes.by_name[DEFAULT_THEME])

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Put the second wall behind Textual's own filters."""
        return [*super().get_line_filters(), *self._line_filters]

    # --- saying things

    def refuse(self, reason: str) -> None:
        """Say in the key bar for two seconds why a key does nothing."""
        bars = list(self.screen.query(KeyBar))
        for bar in bars:
            bar.flash(reason)
        if not bars:
            self.notify(reason, severity="warning", markup=False)

    @on(KeyBar.Pressed)
    async def _run_pressed(self, event: KeyBar.Pressed) -> None:
        await self.run_command(event.command_id)

    @on(CopyRequested)
    def _copy(self, event: CopyRequested) -> None:
        self.copy_text(event.text, event.what)

    def copy_text(self, text: str, what: str) -> None:
        """Put a text on the user's clipboard through the terminal, and say so."""
        cleaned = prepare(text)
        if cleaned is None:
            self.refuse(f"{what} is longer than the {format_bytes(SIZE_LIMIT)} that a terminal takes")
            return
        self.copy_to_clipboard(cleaned)
        around = make_passthrough(cleaned, os.environ)
        if around and self._driver is not None:
            self._driver.write(around)
        self.notify(f"Copied {what}", markup=False, timeout=2)

    # --- commands that every app of KC has

    def palette_objects(self) -> Sequence[Choice]:
        """Return the objects that the palette offers beside the commands; `open_object` gets the id of the chosen."""
        return ()

    def open_object(self, object_id: str) -> None:
        """Open what was chosen from `palette_objects`."""
        raise NotImplementedError

    def keep_theme(self, name: str) -> None:
        """Remember the theme that the user chose; nothing is kept by default."""

    def do_app_palette(self, context: Context) -> None:
        """Open the palette."""
        palette = make_palette(self.keymap, context, self.palette_objects(), glyphs=self.glyphs)
        self.push_screen(palette, self._run_chosen)

    def do_app_help(self, context: Context) -> None:
        """Show the keys of this screen."""
        self.push_screen(HelpScreen(self.keymap, context, glyphs=self.glyphs), self._run_from_help)

    def do_app_theme(self, _context: Context) -> None:
        """Let the user choose a theme, shown while the cursor is on it; leaving takes the old one back."""
        before = self.theme
        choices = [Choice(theme.name, theme.name, theme.description) for theme in self.looks.themes.by_name.values()]

        def finish(name: str | None) -> None:
            self._show_theme(name or before)
            if name is not None:
                self.keep_theme(name)

        dialog = ChooseDialog("Theme", choices, current=before, preview=self._show_theme, glyphs=self.glyphs)
        self.push_screen(dialog, finish)

    def do_app_quit(self, _context: Context) -> None:
        """Leave."""
        self.exit()

    def _show_theme(self, name: str) -> None:
        if self.theme != name:
            self.theme = name

    async def _run_from_help(self, command_id: str | None) -> None:
        if command_id is not None:
            await self.run_command(command_id)

    async def _run_chosen(self, chosen: str | None) -> None:
        if chosen is None:
            return
        if chosen.startswith(COMMAND_PREFIX):
            await self.run_command(chosen.removeprefix(COMMAND_PREFIX))
        else:
            self.open_object(chosen)
