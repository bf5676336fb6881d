"""Opening the terminal application: a clean environment, the looks, the service, and what is said of a crash."""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backend.service import Service
    from backend.settings import Settings
    from kc_tui.application import Setting
    from kc_tui.command_app import Looks
    from kc_tui.visitor import Visitor

LOG_NAME = "kc.log"
FRAMES_PER_SECOND = "120"
_LARGEST_LOG = 1 << 20


def scrub_environment(environment: MutableMapping[str, str]) -> None:
    """Take out what would make Textual load classes, write files or open ports that the environment names."""
    for name in [name for name in environment if name == "TEXTUAL" or name.startswith("TEXTUAL_")]:
        del environment[name]


def name_host(libvirt_uri: str, own_name: str) -> str:
    """Return what the header calls a libvirt host: the name in its URI, or this machine's own."""
    _, found, rest = libvirt_uri.partition("://")
    authority = rest.partition("/")[0] if found else ""
    return authority.rpartition("@")[2] or own_name.partition(".")[0]


def name_home(settings: Settings, own_name: str) -> str:
    """Return what the header calls the KC that is spoken to; of one elsewhere it says so."""
    if not settings.url:
        return settings.profile if settings.profile != "local" else name_host(settings.libvirt_uri, own_name)
    from backend.remote.address import parse_address  # noqa: PLC0415 - a local KC needs none

    address = parse_address(settings.url)
    is_profile = str(settings.profiles.get(settings.profile, {}).get("url", "")) == settings.url
    return f"{settings.profile if is_profile else address.label} (remote)"


def run(settings: Settings, visitor: Visitor | None = None) -> int:
    """Open the application and return its exit code once the user, or the visitor, has left."""
    # Nothing that is made until the first picture is garbage: looking for some costs a twentieth of the start.
    gc.disable()
    scrub_environment(os.environ)
    # A key is painted at the next frame; at Textual's 60 a second it would wait for 8 ms on average.
    os.environ["TEXTUAL_FPS"] = FRAMES_PER_SECOND

    def open_service() -> Service:
        if visitor is not None:
            return visitor.open_service()
        from backend.local import open_service as open_local  # noqa: PLC0415 - while the first picture is drawn

        return open_local(settings)

    def go_on() -> None:
        if settings.url:
            return  # the server goes on by itself
        from kc_tui.cli.worker import start_worker  # noqa: PLC0415 - for those who leave in the middle of something

        start_worker(settings.profile)

    return run_with(settings, open_service, go_on, visitor)


def run_with(
    settings: Settings, factory: Callable[[], Service], go_on: Callable[[], object], visitor: Visitor | None = None
) -> int:
    """Open the application on the service that `factory` opens.

    `go_on` is called at the end where operations are still under way, to have them finished by another process. A
    `visitor` gets nothing of this machine, and a folder of their own for what is remembered.
    """
    import socket  # noqa: PLC0415 - nothing of this is needed by who imports this module

    from backend.text import sanitise  # noqa: PLC0415
    from kc_tui.application import KCApp  # noqa: PLC0415 - Textual
    from kc_tui.ending import report_crash  # noqa: PLC0415 - Textual
    from kc_tui.session import load_remembered  # noqa: PLC0415

    data = settings.paths.data if visitor is None else visitor.find_folder(settings.paths.data)
    _open_log(data)
    remembered = load_remembered(data)
    looks = _choose_looks(settings, remembered.theme)
    setting = _make_setting(settings, sanitise(name_home(settings, socket.gethostname()), 60), data, visitor)
    app = KCApp(factory, setting, looks, remembered)
    app.run(mouse=bool(settings.ui.get("mouse", True)))
    has_work = bool(app.session.inventory.active_operations)
    if has_work:
        _tell("what is under way goes on in the background; see kc op list")
    app.session.gateway.join()
    if has_work:
        go_on()
    ending = report_crash(app) or app.end_reason
    if ending:
        _tell(str(ending))
    return app.return_code or 0


def _tell(text: str) -> None:
    # A terminal whose line has dropped takes nothing any more.
    with suppress(OSError):
        sys.stderr.write(f"kc: {text}\n")
        sys.stderr.flush()


def _make_setting(settings: Settings, host: str, data: Path, visitor: Visitor | None) -> Setting:
    from backend.text import sanitise  # noqa: PLC0415 - nothing of this is needed by who imports this module
    from kc_tui.application import Setting  # noqa: PLC0415 - Textual

    if visitor is None:
        is_confined = bool(os.environ.get("KC_NO_EDITOR")) or settings.ui.get("editor") is False
        return Setting(host, data, Path.home(), settings.grace_hours, is_confined)
    host = sanitise(f"{visitor.subject} on {host}", 60)
    # The home folder, and the SSH keys in it, are those of KC's own user.
    return Setting(host, data, data, settings.grace_hours, is_confined=True, idleness=visitor.idleness)


def _choose_looks(settings: Settings, theme: str) -> Looks:
    from kc_tui.command_app import Looks  # noqa: PLC0415 - Textual
    from kc_tui.commands import build_keymap  # noqa: PLC0415
    from kc_tui.state.glyphs import choose_glyphs  # noqa: PLC0415
    from kc_tui.theming import load_themes  # noqa: PLC0415

    return Looks.choose(
        os.environ,
        themes=load_themes(settings.paths.config / "themes"),
        theme=theme or str(settings.ui.get("theme", "")),
        keymap=build_keymap(settings.keys),
        glyphs=choose_glyphs(os.environ, str(settings.ui.get("glyphs", "auto"))),
    )


def _open_log(folder: Path) -> None:
    """Write warnings to a file: what is written to the terminal would tear the picture."""
    path = folder / LOG_NAME
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > _LARGEST_LOG:
            path.replace(path.with_suffix(".log.1"))
        handler: logging.Handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    except OSError:
        handler = logging.NullHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
