"""The service over HTTP, against a real server: what the conformance suite does not look at."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.homes import GOD, OpenChain, RunningServer, serving, until
from support.memory_kc import furnish, make_service, settle, vm_document

from backend.auth.protocol import Decision, Scope
from backend.errors import ConflictError, DeniedError, NotFoundError, RefusedError, UnreachableError
from backend.hypervisor.memory import MemoryHypervisor
from backend.local import LocalService
from backend.local.initialising import MACHINE_TYPES
from backend.remote.service import RemoteService
from backend.service import Event, Service


@pytest.fixture
def host() -> MemoryHypervisor:
    return MemoryHypervisor()


@pytest.fixture
def local(tmp_path: Path, host: MemoryHypervisor) -> LocalService:
    service = make_service(tmp_path, host)
    furnish(service)
    return service


@pytest.fixture(params=["tcp", "unix"])
def server(local: LocalService, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    with serving(local, tmp_path / "s", unix=request.param == "unix") as running:
        yield running


@pytest.fixture
def remote(server: RunningServer) -> Iterator[RemoteService]:
    service = server.open()
    yield service
    service.close()


def test_it_is_a_service(remote: RemoteService) -> None:
    service: Service = remote
    missing = [name for name in vars(Service) if not name.startswith("_") and not hasattr(service, name)]
    assert missing == []


def test_a_list_of_more_than_one_page_comes_whole(
    remote: RemoteService, local: LocalService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.remote.service.PAGE_ITEMS", 500)
    settle(local, local.create(vm_document("web", power="stopped")))
    template = local.store.find("VM", "web")
    assert template is not None
    with local.store.transaction() as transaction:
        for number in range(1100):
            uid = f"00000000-0000-4000-8000-{number:012d}"
            transaction.put({**template, "name": f"vm-{number:04d}", "uid": uid, "version": 0}, expect=0)
    page = remote.list_documents("VM", observe=False)
    assert len(page.items) == 1101
    assert (page.next, page.filtered) == ("", False)
    some = remote.list_documents("VM", limit=7, observe=False)
    assert len(some.items) == 7
    assert remote.list_documents("VM", limit=1, after=some.next, observe=False).items[0] == page.items[7]


def test_a_console_carries_bytes_both_ways_and_ends(
    remote: RemoteService, local: LocalService, host: MemoryHypervisor
) -> None:
    settle(local, local.create(vm_document("web")))
    stream = remote.console("web")
    domain = host.domains[local.get("VM", "web")["uid"]]
    said = b""
    until(lambda: domain.console is not None)
    assert domain.console is not None
    domain.console.say(b"login: ")
    while b"login: " not in said:
        said += stream.read(5) or b""
    stream.write(b"x" * 100_000)
    typed = b""
    while len(typed) < 1000:
        typed += stream.read(5) or b""
    ended: list[bytes | None] = []
    reader = threading.Thread(target=lambda: ended.append(_read_to_the_end(stream)), daemon=True)
    reader.start()
    stream.close()
    stream.close()
    reader.join(5)
    assert ended == [b""]


def _read_to_the_end(stream: object) -> bytes:
    while stream.read(30) != b"":  # type: ignore[attr-defined]
        pass
    return b""


def test_a_console_that_is_not_to_be_had_says_why(remote: RemoteService, local: LocalService) -> None:
    settle(local, local.create(vm_document("web", power="stopped")))
    with pytest.raises(ConflictError, match="no console"):
        remote.console("web")
    with pytest.raises(NotFoundError, match="no such VM"):
        remote.console("none")
    assert remote.console_log("web") == local.console_log("web")


def test_a_screen_and_a_picture_of_it(remote: RemoteService, local: LocalService) -> None:
    settle(local, local.create(vm_document("web")))
    assert remote.screenshot("web").startswith(b"\x89PNG")
    screen = remote.display("web")
    assert (screen.read(5) or b"").startswith(b"RFB ")
    screen.close()


def test_an_image_is_uploaded_and_known_by_its_digest(
    remote: RemoteService, tmp_path: Path, local: LocalService
) -> None:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(range(256)) * 8192)
    told: list[tuple[int, int]] = []
    accepted = remote.upload_image(
        "disk", path, metadata={"tenant": "acme"}, declared={"format": "raw", "title": "a ünit"},
        sent=lambda *both: told.append(both),
    )  # fmt: skip
    assert accepted.operation is not None
    assert remote.wait(accepted.operation["name"], timeout=30)["status"]["state"] == "succeeded"
    image = local.get("Image", "disk")
    assert image["spec"]["digest"] == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
    assert image["metadata"] == {"tenant": "acme"}
    assert image["spec"]["title"] == "a ünit"
    assert told[-1] == (2 << 20, 2 << 20)
    with pytest.raises(ConflictError, match="taken"):
        remote.upload_image("disk", path, metadata={}, declared={})
    with pytest.raises(RefusedError):
        remote.upload_image("other", path, metadata={}, declared={"format": "qcow2"})


def test_an_export_goes_into_an_empty_store(remote: RemoteService, local: LocalService, tmp_path: Path) -> None:
    records = list(remote.export())
    assert records[1:] == list(local.export())[1:]
    empty = make_service(tmp_path / "empty")
    with serving(empty, tmp_path / "e") as other:
        client = other.open()
        assert client.load(iter(records)) > 0
        assert empty.store.find("Network", "default") == local.store.find("Network", "default")
        with pytest.raises(ConflictError):
            client.load(iter(records))
        client.close()


def test_the_feed_goes_on_where_it_was_when_the_server_is_back(server: RunningServer, remote: RemoteService) -> None:
    since = remote.list_documents("MachineType", limit=1).revision
    feed = remote.watch(["MachineType"], since=since)
    remote.create({"kind": "MachineType", "name": "one", "spec": MACHINE_TYPES["tiny"]})
    first = next(event for event in feed if event is not None)
    assert first.document["name"] == "one"
    server.stop()
    with pytest.raises(UnreachableError):
        for _ in feed:
            pass
    server.service.create({"kind": "MachineType", "name": "two", "spec": MACHINE_TYPES["tiny"]})
    server.start()
    events: Iterator[Event | None] = remote.watch(["MachineType"], since=first.revision)
    second = next(event for event in events if event is not None)
    assert second.document["name"] == "two"
    events.close()  # type: ignore[attr-defined]


def test_a_server_that_goes_away_in_a_list_is_told_and_its_return_is_noticed(
    server: RunningServer, remote: RemoteService
) -> None:
    assert remote.list_documents("VM").items == []
    server.stop()
    with pytest.raises(UnreachableError):
        remote.list_documents("VM")
    server.start()
    assert remote.list_documents("VM").items == []


def test_what_a_server_says_while_it_prepares_is_reported(tmp_path: Path) -> None:
    service = make_service(tmp_path)
    with serving(service, tmp_path / "s") as running:
        client = running.open()
        lines: list[str] = []
        made = client.initialise(lines.append)
        assert {"Network default", "MachineType tiny", "Image starter"} <= set(made)
        assert any("starter" in line for line in lines)
        assert client.initialise(lines.append) == []
        client.close()


def test_a_credential_that_may_do_less_sees_less_and_is_told(local: LocalService, tmp_path: Path) -> None:
    scopes = (Scope(("vm.read", "vm.start"), "tenant=acme"),)
    chain = OpenChain(b"Bearer t", Decision("allow", "alice", scopes=scopes))
    for name, tenant in (("ours", "acme"), ("theirs", "other")):
        settle(local, local.create(vm_document(name, power="stopped", metadata={"tenant": tenant})))
    with serving(local, tmp_path / "s", chain=chain) as running:
        client = running.open(credential="Bearer t")
        page = client.list_documents("VM")
        assert [item["name"] for item in page.items] == ["ours"]
        assert page.filtered
        assert client.access().scopes == ((("vm.read", "vm.start"), "tenant=acme"),)
        with pytest.raises(DeniedError, match=r"vm\.stop"):
            client.act("ours", "stop")
        with pytest.raises(NotFoundError, match="no such VM"):
            client.act("theirs", "start")
        client.close()
        stranger = running.open(credential="Bearer wrong")
        with pytest.raises(DeniedError, match="unknown token"):
            stranger.list_documents("VM")
        stranger.close()
    assert GOD.allowed


def test_a_console_ends_when_its_credential_is_revoked(local: LocalService, tmp_path: Path) -> None:
    settle(local, local.create(vm_document("web")))
    chain = OpenChain()
    with serving(local, tmp_path / "s", chain=chain) as running:
        client = running.open()
        stream = client.console("web")
        chain.credential = b"Bearer another"
        chain.generation += 1

        def read() -> bool:
            try:
                return stream.read(0.2) == b""
            except DeniedError:
                return True

        until(read)
        client.close()


BLOCKED = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"libvirt", "libvirt_qemu", "tinydb", "starlette", "uvicorn", "anyio_never"}:
            raise ImportError(f"{name} is not installed")
sys.meta_path.insert(0, Blocked())
from kc_tui.cli.main import run
sys.exit(run(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "command",
    [
        "vm list", "vm show web", "vm list -l tenant=acme -o json", "type list", "network list", "vm stop web --force",
        "vm set web metadata.a=1", "vm history web", "op list", "doctor -o json", "store show", "export",
        "vm delete web --yes -o name", "vm console web --log", "network topology", "watch --initial --limit 1",
    ],
)  # fmt: skip
def test_the_command_line_needs_neither_libvirt_nor_a_store_nor_a_server(
    local: LocalService, tmp_path: Path, command: str
) -> None:
    settle(local, local.create(vm_document("web", metadata={"tenant": "acme"})))
    with serving(local, tmp_path / "s", unix=True) as running:
        environment = {**os.environ, "KC_HOME": str(tmp_path / "client"), "KC_URL": running.url}
        done = subprocess.run(
            [sys.executable, "-c", BLOCKED, *command.split()],
            env=environment, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    assert "internal error" not in done.stderr, done.stderr
    assert done.returncode == 0, done.stderr
    assert done.stdout or command.startswith("vm console")


def test_kc_watch_goes_on_when_the_server_is_back(local: LocalService, tmp_path: Path) -> None:
    with serving(local, tmp_path / "s") as running:
        environment = {**os.environ, "KC_HOME": str(tmp_path / "client"), "KC_URL": running.url}
        with subprocess.Popen(
            [sys.executable, "-m", "kc_tui", "watch", "type", "-o", "name", "--limit", "2"],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
        ) as watching:  # fmt: skip
            assert watching.stdout is not None
            application = running.application
            assert application is not None
            until(lambda: application.state.streams.feed.revision > 0)
            local.create({"kind": "MachineType", "name": "one", "spec": MACHINE_TYPES["tiny"]})
            assert watching.stdout.readline() == "created type one\n"
            running.stop()
            local.create({"kind": "MachineType", "name": "two", "spec": MACHINE_TYPES["tiny"]})
            running.start()
            out, err = watching.communicate(timeout=30)
    assert out == "created type two\n"
    assert "trying again until it is back" in err
    assert watching.returncode == 0
