"""The application on a KC elsewhere: the same screens, and what it says while nobody answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from snapshots.picture import read_text
from support.app import make_app, press, running, see, until
from support.homes import OpenChain, RunningServer, serving
from support.world import Lab

from backend.auth.protocol import Decision, Scope
from backend.settings import load_settings
from kc_tui.app import name_home
from kc_tui.application import KCApp
from kc_tui.messages import Link
from kc_tui.screens.console import ConsoleScreen


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    return Lab(tmp_path)


@asynccontextmanager
async def opened(lab: Lab, server: RunningServer, credential: str = "") -> AsyncIterator[tuple[KCApp, Any]]:
    app = make_app(lab, factory=lambda: server.open(lab.home, credential))
    async with running(app) as pilot:
        yield app, pilot


async def test_what_is_there_is_shown_and_followed(lab: Lab, tmp_path: Path) -> None:
    lab.add_vm("web")
    with serving(lab.service, tmp_path / "server") as server:
        async with opened(lab, server) as (app, pilot):
            assert app.session.link_state.link is Link.LIVE
            assert "web" in read_text(app)
            lab.add_vm("mail")
            await until(pilot, lambda: "mail" in read_text(app), "the feed told of it")


async def test_keys_alone_make_a_vm_and_its_console_takes_more(lab: Lab, tmp_path: Path) -> None:
    with serving(lab.service, tmp_path / "server") as server:
        async with opened(lab, server) as (app, pilot):
            await press(pilot, "n", "enter", "enter", "enter", "=web-1", "enter", "enter")
            await see(pilot, r"● web-1 +running .*192\.168\.150\.\d+ dhcp +tiny")
            await press(pilot, "c")
            await see(pilot, "KC: web-1 is up|KC starter")
            screen = app.screen
            assert isinstance(screen, ConsoleScreen)
            await press(pilot, "=q1nd", "enter")
            await until(pilot, lambda: "q1nd" in screen.terminal.text, "the guest echoes")
            await press(pilot, "ctrl+right_square_bracket")
            assert len(app.screen_stack) == 1


async def test_a_server_that_goes_is_shown_as_stale_and_its_return_needs_no_key(lab: Lab, tmp_path: Path) -> None:
    lab.add_vm("web")
    with serving(lab.service, tmp_path / "server") as server:
        async with opened(lab, server) as (app, pilot):
            server.stop()
            await until(pilot, lambda: app.session.link_state.link is Link.STALE, "it is known to be gone")
            await until(pilot, lambda: "stale since" in read_text(app), "and since when")
            assert "web" in read_text(app)
            lab.add_vm("mail")
            server.start()
            await until(pilot, lambda: app.session.link_state.link is Link.LIVE, "it is live again")
            await until(pilot, lambda: "mail" in read_text(app), "what happened meanwhile is there")


async def test_a_server_that_is_not_there_yet_is_waited_for(lab: Lab, tmp_path: Path) -> None:
    lab.add_vm("web")
    with serving(lab.service, tmp_path / "server") as server:
        server.stop()
        app = make_app(lab, factory=lambda: server.open(lab.home))
        async with app.run_test(size=(80, 24)) as pilot:
            await until(pilot, lambda: app.session.link_state.link is Link.STALE, "it is known not to be there")
            server.start()
            await until(pilot, lambda: "web" in read_text(app), "it is asked again")
        assert app.session.gateway.join()


async def test_a_credential_for_some_of_it_says_that_there_may_be_more(lab: Lab, tmp_path: Path) -> None:
    lab.add_vm("ours", metadata={"tenant": "acme"})
    lab.add_vm("theirs", metadata={"tenant": "other"})
    kinds = ("vm.read", "image.read", "network.read", "type.read", "op.read", "trash.read")
    decision = Decision("allow", "alice", scopes=(Scope(kinds, "tenant=acme"),))
    with serving(lab.service, tmp_path / "server", chain=OpenChain(b"Bearer t", decision)) as server:
        async with opened(lab, server, "Bearer t") as (app, pilot):
            await until(pilot, lambda: "ours" in read_text(app), "what may be seen is shown")
            assert "theirs" not in read_text(app)
            assert "1 VM you may see" in read_text(app)
            assert app.session.link_state.link is Link.LIVE


@pytest.mark.parametrize(
    ("config", "environment", "name"),
    [
        ("", {}, "desk"),
        ('[profiles.lab]\nurl = "https://lab.example.org"\n', {"KC_PROFILE": "lab"}, "lab (remote)"),
        ("", {"KC_URL": "https://lab.example.org:8470"}, "lab.example.org:8470 (remote)"),
        ("", {"KC_URL": "unix:/run/kc.sock"}, "/run/kc.sock (remote)"),
    ],
)
def test_the_header_says_that_it_is_elsewhere(
    tmp_path: Path, config: str, environment: dict[str, str], name: str
) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.toml").write_text(config)
    settings = load_settings(environment={"KC_HOME": str(tmp_path), **environment})
    assert name_home(settings, "desk.example.org") == name
