"""Files by Apache's own htpasswd, and nginx as the judge of odd ones; the chain hides which users there are."""

from __future__ import annotations

import asyncio
import base64
import http.client
import shutil
import statistics
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.authenticating import basic_request, decide, make_context, running
from support.ssh_daemon import free_port

from backend.auth.chain import Chain
from backend.auth.htpasswd import Htpasswd
from backend.auth.links import Lineup, Link, Origin

PASSWORD = "s3cret-pä:ss"
FORMATS = {
    "bcrypt": ("-B",),
    "bcrypt-12": ("-B", "-C", "12"),
    "md5": ("-m",),
    "sha256": ("-2",),
    "sha512": ("-5",),
    "sha512-20000": ("-5", "-r", "20000"),
    "sha1": ("-s",),
}
UNSAFE = {"des": ("-d",), "plain": ("-p",)}
Make = Callable[[bytes], Htpasswd]


def htpasswd(*options: str, user: str = "alice", password: str = PASSWORD) -> bytes:
    """Return the line that Apache's tool makes."""
    done = subprocess.run(["htpasswd", "-nb", *options, user, password], capture_output=True, check=True, timeout=30)
    return done.stdout.strip() + b"\n"


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Make]:
    made: list[Htpasswd] = []
    context = make_context(tmp_path)
    context.paths.config.mkdir()

    def build(content: bytes) -> Htpasswd:
        (context.paths.config / "users").write_bytes(content)
        made.append(Htpasswd(context, {"type": "htpasswd", "file": "users"}))
        return made[-1]

    yield build
    for each in made:
        await each.close()
    context.store.close()


@pytest.mark.parametrize("options", FORMATS.values(), ids=FORMATS.keys())
async def test_every_safe_format_of_apaches_tool_is_understood(make: Make, options: tuple[str, ...]) -> None:
    authenticator = make(htpasswd(*options))
    assert (await decide(authenticator, "alice", PASSWORD)).allowed
    for wrong in (PASSWORD + "x", PASSWORD[:-1], PASSWORD.encode("latin-1"), "s3cret-pä"):
        assert not (await decide(authenticator, "alice", wrong)).allowed
    assert ("warning" in await authenticator.check_health()) is (options[0] in ("-m", "-s"))


@pytest.mark.parametrize("options", UNSAFE.values(), ids=UNSAFE.keys())
async def test_unsafe_formats_let_nobody_in(make: Make, options: tuple[str, ...]) -> None:
    authenticator = make(htpasswd(*options) + htpasswd("-B", user="bob"))
    assert not (await decide(authenticator, "alice", PASSWORD)).allowed
    assert "cannot come in" in await authenticator.check_health()
    assert (await decide(authenticator, "bob", PASSWORD)).allowed


async def test_a_file_with_every_format_at_once(make: Make) -> None:
    lines = [htpasswd(*options, user=name) for name, options in (FORMATS | UNSAFE).items()]
    authenticator = make(b"".join(lines))
    allowed = [name for name in FORMATS | UNSAFE if (await decide(authenticator, name, PASSWORD)).allowed]
    assert allowed == list(FORMATS)


# --- nginx is asked the same

_GOOD = htpasswd("-B", "-C", "4", user="x", password="good").strip().partition(b":")[2]
_OTHER = htpasswd("-5", user="x", password="other").strip().partition(b":")[2]
_LONG = htpasswd("-B", "-C", "4", user="x", password="a" * 72).strip().partition(b":")[2]
_APR = htpasswd("-m", user="x", password="good").strip().partition(b":")[2]
_SHA = htpasswd("-s", user="x", password="good").strip().partition(b":")[2]
FILE = b"\n".join(
    [
        b"# a comment: with a colon",
        b"",
        b"no colon at all",
        b"plain-with:colon:inside",
        b"alice:" + _GOOD,
        b"twice:" + _OTHER,
        b"twice:" + _GOOD,
        b"extra:" + _GOOD + b":Full Name:more",
        b"crlf:" + _GOOD + b"\r",
        b"#hashed:" + _GOOD,
        b"space:" + _GOOD + b" ",
        b"before: " + _GOOD,
        b"in name:" + _GOOD,
        b"lock:!",
        b"star:*",
        b"cut:" + _GOOD[:-1],
        b"longer:" + _GOOD + b"x",
        b"apr:" + _APR,
        b"sha:" + _SHA,
        b"apr-cut:" + _APR[:-1],
        b"sha-cut:" + _SHA[:-4],
        b"Upper:" + _GOOD,
        "grün:".encode() + _GOOD,
        b"long:" + _LONG,
        b"half:$2y$04$",
        b"half6:$6$",
        b"after:" + _GOOD,
    ]
)
ROWS: list[tuple[str, str]] = [
    *((user, "good") for user in (
        "alice", "twice", "extra", "crlf", "#hashed", "hashed", "space", "before", "in name", "in", "cut", "longer",
        "apr", "sha", "apr-cut", "sha-cut", "Upper", "upper", "ALICE", "grün", "after", "nobody", "no colon at all",
        "plain-with", "# a comment", " with a colon", "half", "half6",
    )),
    ("alice", "bad"), ("alice", "good "), ("alice", "Good"), ("alice", "good:x"), ("twice", "other"),
    ("extra", "Full Name"), ("lock", "!"), ("lock", "x"), ("star", "*"), ("half", "$2y$04$"), ("half6", "$6$"),
    ("long", "a" * 72), ("long", "a" * 73), ("long", "a" * 200), ("long", "a" * 71),
]  # fmt: skip


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, str], int]]:
    """Asks a real nginx, whose auth_basic_user_file is `FILE`, and returns its status."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    if program is None:
        pytest.fail("no nginx: make system WITH_TESTS=yes installs it")
    folder = tmp_path_factory.mktemp("nginx")
    folder.chmod(0o755)
    users = folder / "users"
    users.write_bytes(FILE)
    port = free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"user root;\ndaemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log {folder}/log;\nevents {{}}\n"
        f"http {{\naccess_log off;\nclient_body_temp_path {folder}/body;\nproxy_temp_path {folder}/proxy;\n"
        f"fastcgi_temp_path {folder}/f;\nuwsgi_temp_path {folder}/u;\nscgi_temp_path {folder}/s;\n"
        f"server {{\nlisten 127.0.0.1:{port};\nlocation / {{\nauth_basic x;\nauth_basic_user_file {users};\n"
        f"root {folder};\n}}\n}}\n}}\n"
    )
    (folder / "page").write_text("in")

    def ask(user: str, password: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        credential = base64.b64encode(f"{user}:{password}".encode()).decode()
        connection.request("GET", "/page", headers={"Authorization": f"Basic {credential}"})
        status = connection.getresponse().status
        connection.close()
        return status

    with running([program, "-p", str(folder), "-c", str(configuration), "-e", str(folder / "log")], port):
        yield ask


@pytest.mark.parametrize(("user", "password"), ROWS, ids=range(len(ROWS)))
async def test_odd_lines_mean_what_they_mean_to_nginx(
    make: Make, nginx: Callable[[str, str], int], user: str, password: str
) -> None:
    status = await asyncio.to_thread(nginx, user, password)
    allowed = (await decide(make(FILE), user, password)).allowed
    assert allowed is (status == 200), status


# --- which users there are


async def _measure(chain: Chain, user: str, times: int) -> float:
    """Return the median of how long a wrong password takes to be refused."""
    took = []
    for number in range(times):
        began = time.perf_counter()
        assert not (await chain.decide(basic_request(user, f"wrong-{number}"))).allowed
        took.append(time.perf_counter() - began)
    return statistics.median(took)


@pytest.mark.parametrize("options", FORMATS.values(), ids=FORMATS.keys())
async def test_an_unknown_user_is_refused_as_late_as_a_wrong_password(make: Make, options: tuple[str, ...]) -> None:
    # A file in which the hash of alice is not the usual one.
    others = b"".join(htpasswd("-B", user=f"user-{number}") for number in range(2))
    authenticator = make(htpasswd(*options) + others)
    lineup: Any = Lineup((Link(authenticator, "htpasswd", Origin("htpasswd")),))
    chain = Chain(lineup)
    known, unknown = await _measure(chain, "alice", 3), await _measure(chain, "nobody", 3)
    assert abs(known - unknown) < 0.015
    refused = await asyncio.gather(*(chain.decide(basic_request(user, "wrong")) for user in ("alice", "nobody")))
    assert len({(each.outcome, each.status, each.reason, each.challenges) for each in refused}) == 1
    await chain.close()
