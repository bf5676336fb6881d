"""Images on their way to a server, cut in every place, and the file that goes on all the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.fake_kc import Asked, Reply, answering
from support.homes import serving
from support.memory_kc import make_service

from backend.errors import KCError, RefusedError, UnreachableError
from backend.remote import uploads
from backend.remote.address import parse_address
from backend.remote.options import RemoteOptions
from backend.remote.service import RemoteService

VM = {"kind": "VM", "name": "web", "uid": "u", "version": 1, "metadata": {}, "spec": {}, "status": {}}
OPERATION = {**VM, "kind": "Operation", "name": "op-1", "status": {"state": "running"}}
Client = Callable[[str], RemoteService]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    made: list[RemoteService] = []

    def make(url: str) -> RemoteService:
        made.append(RemoteService(RemoteOptions(parse_address(url), tmp_path / "cache", "lab")))
        return made[-1]

    yield make
    for service in made:
        service.close()


class Tus:
    """Takes an upload, and cuts it where a test wants: `cuts` are how many bytes of a piece are kept."""

    def __init__(self) -> None:
        self.data = b""
        self.cuts: list[int] = []
        self.created = 0

    def __call__(self, asked: Asked) -> Reply | None:
        if asked.method == "POST":
            self.created += 1
            return Reply(None, 201, {"Location": "http://elsewhere.example.org/v1/uploads/u1"})
        if asked.method == "HEAD":
            return Reply(None, 200, {"Upload-Offset": str(len(self.data))})
        if asked.method == "GET":
            return Reply(VM if "images" in asked.path else OPERATION)
        if int(asked.headers["upload-offset"]) != len(self.data):
            return Reply({"code": "usage", "title": "upload", "detail": "offset", "status": 409}, 409)
        if self.cuts:
            self.data += asked.body[: self.cuts.pop(0)]
            return None
        self.data += asked.body
        return Reply(None, 204, {"Upload-Offset": str(len(self.data)), "KC-Operation": "/v1/operations/op-1"})


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(range(256)) * 4096)
    return path


def test_an_upload_that_is_cut_goes_on_where_it_was(
    client: Client, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "_RETRY_SECONDS", (0.01,))
    monkeypatch.setattr(uploads, "PART_BYTES", 400_000)
    tus = Tus()
    tus.cuts = [1000, 0, 300_000]
    told: list[tuple[int, int]] = []
    with answering(tus) as server:
        accepted = client(server.url).upload_image(
            "disk", image, metadata={"a": "ü"}, declared={"format": "raw"}, sent=lambda *both: told.append(both)
        )
        assert {asked.headers["host"] for asked in server.asked} == {server.url.partition("//")[2]}
    assert accepted.operation == OPERATION
    assert tus.data == image.read_bytes()
    assert tus.created == 1
    assert told[-1] == (1 << 20, 1 << 20)
    assert list((tmp_path / "cache" / "uploads").iterdir()) == []


def test_an_upload_whose_process_was_killed_goes_on_with_the_next(client: Client, image: Path) -> None:
    class KilledError(Exception):
        """The end of a process."""

    def die(done: int, _whole: int) -> None:
        if done > 500_000:
            raise KilledError

    tus = Tus()
    tus.cuts = [500_000]
    with answering(tus) as server:
        with pytest.raises(KilledError):
            client(server.url).upload_image("disk", image, metadata={}, declared={}, sent=die)
        tus.data = image.read_bytes()[:500_000]
        tus.cuts = []
        client(server.url).upload_image("disk", image, metadata={}, declared={})
        assert tus.created == 1
        assert tus.data == image.read_bytes()
        # Another file, or the same under another name, is another upload.
        client(server.url).upload_image("other", image, metadata={}, declared={})
        assert tus.created == 2


def test_an_image_that_is_refused_is_begun_anew_the_next_time(client: Client, image: Path, tmp_path: Path) -> None:
    def answer(asked: Asked) -> Reply | None:
        if asked.method == "PATCH":
            return Reply({"code": "refused", "title": "image disk", "detail": "a backing file", "status": 422}, 422)
        return Tus()(asked)

    with answering(answer) as server, pytest.raises(RefusedError, match="backing file"):
        client(server.url).upload_image("disk", image, metadata={}, declared={})
    assert list((tmp_path / "cache" / "uploads").iterdir()) == []


def test_a_server_that_goes_away_for_good_ends_an_upload(
    client: Client, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "_RETRY_SECONDS", (0.01,))
    monkeypatch.setattr(uploads, "PATIENCE_SECONDS", 0.2)
    tus = Tus()
    tus.cuts = [0] * 1000
    started = time.monotonic()
    with answering(tus) as server, pytest.raises(UnreachableError):
        client(server.url).upload_image("disk", image, metadata={}, declared={})
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("what", ["none", "folder"])
def test_a_file_that_is_none_is_said_before_anything_is_sent(client: Client, tmp_path: Path, what: str) -> None:
    (tmp_path / "folder").mkdir()
    with answering(Tus()) as server:
        with pytest.raises(KCError):
            client(server.url).upload_image("disk", tmp_path / what, metadata={}, declared={})
        assert server.asked == []


def test_a_server_that_is_stopped_in_the_middle_and_comes_back_gets_the_rest(
    client: Client, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "_PIECE_BYTES", 64 << 10)
    local = make_service(tmp_path)
    with serving(local, tmp_path / "s") as server:
        service = client(server.url)
        stops: list[int] = []
        offsets: list[int] = []

        def sent(done: int, whole: int) -> None:
            offsets.append(done)
            if done > whole // 2 and not stops:
                stops.append(done)
                server.stop()
                threading.Timer(0.5, server.start).start()

        accepted = service.upload_image("disk", image, metadata={}, declared={"format": "raw"}, sent=sent)
        assert accepted.operation is not None
        assert service.wait(accepted.operation["name"], timeout=30)["status"]["state"] == "succeeded"
        assert local.get("Image", "disk")["spec"]["sizeBytes"] == image.stat().st_size
        # What the server had before it was stopped was not sent again.
        after = offsets[offsets.index(stops[0]) + 1 :]
        assert any(offset > 0 for offset in after[:3])
