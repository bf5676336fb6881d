"""Uploads by others' clients, unchanged: tuspy and tus-js-client, cut and resumed; and a server that is killed."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from support.boot_sector import make_disk
from support.stream_app import Running, stream_server
from tusclient.client import TusClient

MIB = 1 << 20
TESTS = Path(__file__).parents[1]
SCRIPT = r"""
const tus = require("tus-js-client"), fs = require("fs");
const [path, endpoint, name] = process.argv.slice(2);
const size = fs.statSync(path).size;
function upload(url, stopAt) {
  return new Promise((resolve, reject) => {
    const options = {
      chunkSize: 1 << 20, retryDelays: null, uploadSize: size, storeFingerprintForResuming: false,
      headers: { Authorization: "Bearer root" }, metadata: { name, filename: "disk.img" },
      onError: reject, onSuccess: () => resolve(current.url),
      onChunkComplete: (_, sent) => {
        if (stopAt && sent >= stopAt) current.abort().then(() => resolve(current.url), reject);
      },
    };
    if (url) options.uploadUrl = url; else options.endpoint = endpoint;
    const current = new tus.Upload(fs.createReadStream(path), options);
    current.start();
  });
}
upload(null, 5 << 20).then((url) => upload(url, 0)).then((url) => console.log(url))
  .catch((error) => { console.error(String(error)); process.exit(1); });
"""


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes((make_disk() + os.urandom(11 * MIB))[: 12 * MIB])
    assert path.stat().st_size == 12 * MIB
    return path


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with stream_server(tmp_path / "home") as server:
        yield server


def digest_of(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def wait_for_image(url: str, headers: dict[str, str], name: str) -> str:
    """Return the digest of an image once there is one."""
    ends = time.monotonic() + 20
    while (answer := httpx.get(f"{url}/v1/images/{name}", headers=headers)).status_code != 200:
        assert time.monotonic() < ends
        time.sleep(0.05)
    return str(answer.json()["spec"]["digest"])


def test_tuspy_is_cut_and_resumes(running: Running, disk: Path) -> None:
    client = TusClient(f"{running.url}/v1/uploads", headers=running.headers)
    with disk.open("rb") as stream:
        uploader = client.uploader(file_stream=stream, chunk_size=MIB, metadata={"name": "mine"}, upload_checksum=True)
        uploader.upload(stop_at=5 * MIB)
        where = uploader.url
    with disk.open("rb") as stream:
        uploader = client.uploader(file_stream=stream, chunk_size=MIB, url=where)
        assert uploader.get_offset() == 5 * MIB
        uploader.upload()
    assert wait_for_image(running.url, running.headers, "mine") == digest_of(disk)


def test_tus_js_client_is_cut_and_resumes(running: Running, disk: Path, tmp_path: Path) -> None:
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed, so tus-js-client cannot be")
    folder = tmp_path / "js"
    folder.mkdir()
    installed = subprocess.run(
        ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), "tus-js-client@4"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if installed.returncode:
        pytest.skip(f"npm cannot install tus-js-client here: {installed.stderr.strip()[-200:]}")
    (folder / "upload.cjs").write_text(SCRIPT)
    done = subprocess.run(
        ["node", "upload.cjs", str(disk), f"{running.url}/v1/uploads", "mine"],
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert wait_for_image(running.url, running.headers, "mine") == digest_of(disk)


@contextmanager
def server_process(home: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"}
    with subprocess.Popen(
        [sys.executable, "-m", "support.serve_streams", str(home)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip(), process
        finally:
            process.kill()


def test_a_server_that_is_killed_knows_what_it_had(disk: Path, tmp_path: Path) -> None:
    headers = {"Authorization": "Bearer root", "Tus-Resumable": "1.0.0"}
    data = disk.read_bytes()
    piece = {**headers, "Content-Type": "application/offset+octet-stream"}
    home = tmp_path / "home"
    with server_process(home) as (url, process):
        told = f"name {base64.b64encode(b'mine').decode()}"
        made = httpx.post(
            f"{url}/v1/uploads", headers={**headers, "Upload-Length": str(len(data)), "Upload-Metadata": told}
        )
        where = made.headers["location"]
        assert (
            httpx.patch(url + where, headers={**piece, "Upload-Offset": "0"}, content=data[: 3 * MIB]).status_code
            == 204
        )

        def drip() -> Iterator[bytes]:
            yield data[3 * MIB : 5 * MIB + 77]
            staged = home / "data" / "uploads" / where.rpartition("/")[2]
            ends = time.monotonic() + 10
            while staged.stat().st_size < 4 * MIB and time.monotonic() < ends:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.wait(10)
            yield b"more"

        with pytest.raises(httpx.TransportError):
            httpx.patch(url + where, headers={**piece, "Upload-Offset": str(3 * MIB)}, content=drip())
    with server_process(home) as (url, _):
        answer = httpx.head(url + where, headers=headers)
        offset = int(answer.headers["upload-offset"])
        assert 4 * MIB <= offset <= 5 * MIB + 77
        rest = httpx.patch(
            url + where, headers={**piece, "Upload-Offset": str(offset)}, content=data[offset:], timeout=20
        )
        assert rest.status_code == 204, rest.text
        assert wait_for_image(url, headers, "mine") == digest_of(disk)
