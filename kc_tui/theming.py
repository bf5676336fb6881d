"""Themes: small files of roles, read, checked and given to Textual.

A theme file is TOML with `name`, `description`, `dark` and the nine roles, each `#rrggbb` or one of the terminal's own
colours (`ansi_default`, `ansi_red`, `ansi_bright_red` …). The built-in ones are in `themes/`; users put theirs into
`themes/` of their configuration folder, where one of the same name takes the place of a built-in.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from textual.theme import Theme as TextualTheme

from backend.errors import KCError, RefusedError
from backend.text import sanitise

DEFAULT_THEME: Final = "crown"
NO_COLOR_THEME: Final = "ansi"
LEAST_CONTRAST: Final = 3.0
"""Below this ratio of text to its background a theme is refused: one could not read the way back to another."""

_COLOR: Final = re.compile(
    r"#[0-9a-fA-F]{6}|ansi_default|ansi_(bright_)?(black|red|green|yellow|blue|magenta|cyan|white)"
)
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_SIZE_LIMIT: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Theme:
    """A theme as its file says it."""

    name: str
    description: str
    dark: bool
    background: str
    surface: str
    text: str
    muted: str
    accent: str
    ok: str
    warn: str
    danger: str
    selection: str

    @property
    def is_ansi(self) -> bool:
        """Whether it uses the terminal's own colours."""
        return any(getattr(self, role).startswith("ansi_") for role in ROLES)

    @property
    def roles(self) -> dict[str, str]:
        """The roles and their colours."""
        values = asdict(self)
        return {role: values[role] for role in ROLES}


ROLES: Final = tuple(field.name for field in fields(Theme) if field.name not in ("name", "description", "dark"))
"""`background surface text muted accent ok warn danger selection`."""


@dataclass(frozen=True, slots=True)
class Themes:
    """All themes that can be used, by name, and one error for each file that cannot."""

    by_name: Mapping[str, Theme]
    problems: tuple[KCError, ...] = ()

    def choose(self, name: str) -> Theme:
        """Return the theme of that name, or the default where there is none."""
        return self.by_name.get(name) or self.by_name[DEFAULT_THEME]


def parse_theme(text: str, source: str) -> Theme:
    """Return the theme in a file's text; raise RefusedError that names `source` and the first thing wrong."""

    def refuse(why: str, hint: str) -> RefusedError:
        return RefusedError(f"theme {source}", sanitise(why, 200), hint)

    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise refuse(f"not TOML: {str(error).lower()}", "mend the line that is named") from error
    name, description, dark = values.pop("name", ""), values.pop("description", ""), values.pop("dark", True)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise refuse("no proper name", 'write name = "…" with small letters, digits, - and _')
    if not isinstance(description, str) or not isinstance(dark, bool):
        raise refuse("description is a text and dark is true or false", "mend these two")
    if missing := [role for role in ROLES if role not in values]:
        raise refuse(f"no {', '.join(missing)}", f"a theme has all of {', '.join(ROLES)}")
    if unknown := sorted(set(values) - set(ROLES)):
        raise refuse(f"unknown {', '.join(unknown)}", f"a theme has only {', '.join(ROLES)}")
    for role in ROLES:
        if not isinstance(values[role], str) or not _COLOR.fullmatch(values[role]):
            raise refuse(f"{role} is no colour: {values[role]!r}", "write #rrggbb or ansi_red, ansi_bright_red …")
    theme = Theme(name=name, description=sanitise(description, 80), dark=dark, **values)
    _check_legible(theme, refuse)
    return theme


def _check_legible(theme: Theme, refuse: Any) -> None:
    for ground in ("background", "surface", "selection"):
        ratio = contrast(theme.text, getattr(theme, ground))
        if ratio is not None and ratio < LEAST_CONTRAST:
            raise refuse(
                f"text can hardly be read on {ground} (contrast {ratio:.1f})", f"make it {LEAST_CONTRAST:.0f} at least"
            )


def load_themes(user_folder: Path | None = None) -> Themes:
    """Return the built-in themes and those in `user_folder`, which need not exist.

    A user's theme that cannot be used becomes a problem and leaves a built-in of its name in place.
    """
    themes = {theme.name: theme for theme in _read_built_in()}
    problems: list[KCError] = []
    for path in sorted(user_folder.glob("*.toml")) if user_folder is not None and user_folder.is_dir() else ():
        source = sanitise(path.name, 80)
        try:
            with path.open("rb") as file:
                content = file.read(_SIZE_LIMIT).decode("utf-8")
            theme = parse_theme(content, source)
        except RefusedError as error:
            problems.append(error)
        except OSError as error:
            problems.append(RefusedError(f"theme {source}", sanitise(error.strerror or error).lower(), "mend the file"))
        except UnicodeDecodeError:
            problems.append(RefusedError(f"theme {source}", "not UTF-8 text", "save it as UTF-8"))
        else:
            themes[theme.name] = theme
    return Themes(themes, tuple(problems))


def _read_built_in() -> Iterator[Theme]:
    for path in sorted(_find_built_in().glob("*.toml")):
        yield parse_theme(path.read_text("utf-8"), path.name)


def _find_built_in() -> Path:
    # A wheel carries the folder inside the package; in a checkout it stands beside it. importlib.resources would find
    # the same and load zipfile for it, a tenth of the time to the first screen.
    packaged = Path(__file__).resolve().parent / "themes"
    return packaged if packaged.is_dir() else packaged.parent.parent / "themes"


def _channels(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def _luminance(color: str) -> float:
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4  # noqa: PLR2004 - sRGB, IEC 61966-2-1
        for value in (channel / 255 for channel in _channels(color))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(color: str, other: str) -> float | None:
    """Return the contrast ratio of two colours (1 to 21, WCAG 2.2); None where the terminal decides one of them."""
    if not (color.startswith("#") and other.startswith("#")):
        return None
    dark, light = sorted((_luminance(color), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _mix(color: str, other: str, share: float) -> str:
    """Return `color` with a share of `other` in it; `other` itself where the terminal decides one of them."""
    if not (color.startswith("#") and other.startswith("#")):
        return other
    mixed = (round(a + (b - a) * share) for a, b in zip(_channels(color), _channels(other), strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def make_textual_theme(theme: Theme) -> TextualTheme:
    """Return the theme in Textual's form, with a style variable for each role (`$ok`, `$danger`, `$selection` …).

    Two variables are derived: `$rule`, muted drawn back to a line, and `$selection-style`, `reverse` where the theme's
    selection is no other colour than its background, else `not reverse`.
    """
    return TextualTheme(
        name=theme.name,
        primary=theme.accent,
        secondary=theme.muted,
        warning=theme.warn,
        error=theme.danger,
        success=theme.ok,
        accent=theme.accent,
        foreground=theme.text,
        background=theme.background,
        surface=theme.surface,
        panel=theme.surface,
        dark=theme.dark,
        ansi=theme.is_ansi,
        variables=make_variables(theme),
    )


def make_variables(theme: Theme) -> dict[str, str]:
    """Return the style variables of a theme: its roles, what is derived from them, and Textual's own names for them."""
    rule = _mix(theme.background, theme.muted, 0.4)
    selection_style = "reverse" if theme.selection == theme.background else "not reverse"
    return theme.roles | {
        "rule": rule,
        "selection-style": selection_style,
        "text-muted": theme.muted,
        "text-disabled": theme.muted,
        "foreground-muted": theme.muted,
        "foreground-disabled": theme.muted,
        "text-primary": theme.accent,
        "text-accent": theme.accent,
        "text-secondary": theme.muted,
        "text-success": theme.ok,
        "text-warning": theme.warn,
        "text-error": theme.danger,
        "border": theme.accent,
        "border-blurred": rule,
        "scrollbar": rule,
        "scrollbar-hover": theme.muted,
        "scrollbar-active": theme.accent,
        "scrollbar-background": theme.background,
        "scrollbar-background-hover": theme.background,
        "scrollbar-background-active": theme.background,
        "scrollbar-corner-color": theme.background,
        "block-cursor-foreground": theme.text,
        "block-cursor-background": theme.selection,
        "block-cursor-text-style": "bold reverse" if selection_style == "reverse" else "bold",
        "block-hover-background": theme.surface,
        "input-cursor-foreground": theme.text,
        "input-cursor-background": theme.background,
        "input-cursor-text-style": "reverse",
        "input-selection-background": theme.selection,
        "input-selection-foreground": theme.text,
        "screen-selection-background": theme.selection,
        "screen-selection-foreground": theme.text,
        "ansi-background": theme.background,
        "ansi-foreground": theme.text,
        "link-color": theme.accent,
        "link-background": "transparent",
    }
