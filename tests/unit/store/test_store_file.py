"""The file of a store: how it is born, what is refused, and what is said when the disk does not play along."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from backend.errors import ConflictError, FailedError, KCError, NotFoundError, RefusedError, TimedOutError
from backend.store.engine import FileEngine
from backend.store.files import new_uid
from backend.store.formats import FORMATS
from backend.store.lock import FileLock
from backend.store.opening import open_store
from backend.store.rows import Label


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "kc.db"


def insert(engine: FileEngine, uid: str = "a", body: bytes = b'{"n":1}') -> None:
    with engine.transaction():
        engine.insert("notes", uid, Label(), body)


def insert_without_transaction(engine: FileEngine) -> None:
    engine.insert("notes", "a", Label(), b"{}")


def make_store(path: Path) -> None:
    engine = FileEngine(path)
    insert(engine)
    engine.close()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def pragma(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA {statement}")
    connection.close()


class TestBirth:
    def test_folder_and_files_are_the_users_alone(self, path: Path):
        previous = os.umask(0)
        try:
            engine = FileEngine(path)
            insert(engine)
            assert mode(path.parent) == 0o700
            files = sorted(path.parent.iterdir())
            assert [file.name for file in files] == ["kc.db", "kc.db-shm", "kc.db-wal", "kc.db.lock"]
            assert {mode(file) for file in files} == {0o600}
            engine.close()
        finally:
            os.umask(previous)
        assert sorted(file.name for file in path.parent.iterdir()) == ["kc.db", "kc.db.lock"]

    def test_a_folder_that_is_there_keeps_its_mode(self, path: Path):
        path.parent.mkdir(mode=0o755)
        FileEngine(path).close()
        assert mode(path.parent) == 0o755

    def test_nothing_is_made_where_that_is_forbidden(self, path: Path):
        with pytest.raises(NotFoundError, match="kc init"):
            FileEngine(path, create=False)
        assert not path.parent.exists()

    def test_what_a_killed_birth_left_is_no_obstacle(self, path: Path):
        path.parent.mkdir()
        path.with_name("kc.db.new").write_bytes(b"half")
        path.with_name("kc.db.new-journal").write_bytes(b"half")
        path.touch()
        make_store(path)
        assert sorted(file.name for file in path.parent.iterdir()) == ["kc.db", "kc.db.lock"]

    def test_many_processes_make_one_store(self, path: Path):
        program = f"from backend.store.opening import open_store; print(open_store('tinydb:{path}').identity)"
        processes = [
            subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) for _ in range(4)
        ]
        identities = {process.communicate(timeout=60)[0].strip() for process in processes}
        engine = FileEngine(path, create=False)
        assert identities == {engine.identity}
        engine.close()

    def test_uids_are_version_7_and_in_order(self):
        uids = []
        for _ in range(100):
            uids.append(new_uid())
            time.sleep(1e-6)
        assert uids == sorted(set(uids))
        assert all(len(uid) == 36 and uid[14] == "7" and uid[19] in "89ab" for uid in uids)

    def test_every_commit_is_durable_and_in_the_log(self, path: Path):
        engine = FileEngine(path)
        with engine.transaction():
            settings = {
                name: engine._connections.fetch(f"PRAGMA {name}")[0][0]
                for name in ("synchronous", "journal_mode", "mmap_size", "journal_size_limit")
            }
        assert settings == {"synchronous": 2, "journal_mode": "wal", "mmap_size": 0, "journal_size_limit": 16 << 20}
        engine.close()


class TestRefusal:
    @pytest.mark.parametrize("content", [b"not a store", b"\0" * 200, b"SQLite format 3\0" + b"\0" * 100], ids=len)
    def test_a_file_that_is_no_store_is_left_alone(self, path: Path, content: bytes):
        path.parent.mkdir()
        path.write_bytes(content)
        with pytest.raises(RefusedError, match="no KC store"):
            FileEngine(path)
        assert path.read_bytes() == content

    def test_another_programs_database_is_left_alone(self, path: Path):
        path.parent.mkdir()
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE head (x)")
        connection.close()
        before = path.read_bytes()
        with pytest.raises(RefusedError, match="no KC store"):
            FileEngine(path)
        assert path.read_bytes() == before

    def test_a_folder_is_refused(self, path: Path):
        path.mkdir(parents=True)
        with pytest.raises(RefusedError, match="no file"):
            FileEngine(path)

    @pytest.mark.timeout(20)
    def test_a_device_and_a_pipe_are_left_alone(self, path: Path):
        path.parent.mkdir()
        os.mkfifo(path)
        for place in (path, Path("/dev/null")):
            before = place.stat()
            with pytest.raises(RefusedError, match="no file"):
                FileEngine(place)
            assert (place.stat().st_ino, place.stat().st_mode) == (before.st_ino, before.st_mode)

    def test_a_loop_of_links_is_refused(self, tmp_path: Path):
        (tmp_path / "a").symlink_to(tmp_path / "b")
        (tmp_path / "b").symlink_to(tmp_path / "a")
        with pytest.raises(RefusedError, match="nowhere"):
            open_store(f"tinydb:{tmp_path}/a")

    def test_a_newer_format_is_refused_and_left_alone(self, path: Path):
        make_store(path)
        pragma(path, f"user_version={len(FORMATS) + 1}")
        before = path.read_bytes()
        with pytest.raises(RefusedError, match="newer KC"):
            FileEngine(path)
        assert path.read_bytes() == before
        pragma(path, f"user_version={len(FORMATS)}")
        FileEngine(path).close()

    def test_a_log_without_its_database_is_not_lost(self, path: Path):
        path.parent.mkdir()
        log = path.with_name("kc.db-wal")
        log.write_bytes(b"precious")
        with pytest.raises(RefusedError, match="its log"):
            FileEngine(path)
        assert log.read_bytes() == b"precious"
        assert not path.exists()

    @pytest.mark.parametrize(
        ("url", "why"),
        [
            ("etcd:x", "etcd"),
            ("postgres://x", "no such kind"),
            ("", "no such kind"),
            ("tinydb", "no such kind"),
            ("tinydb:", "names no file"),
            ("tinydb:a\0b", "names no file"),
        ],
    )
    def test_an_address_that_cannot_be_used_is_refused(self, url: str, why: str):
        with pytest.raises(RefusedError, match=why):
            open_store(url)


class TestOpeningTwice:
    def test_a_second_opening_in_one_process_costs_the_first_no_lock(self, path: Path):
        # A file that is opened and closed beside SQLite takes its locks away; the next process to close would then
        # take itself for the last one, and the log from under the first.
        first = FileEngine(path)
        insert(first)
        second = FileEngine(path)
        insert(second, "b")
        second.close()
        writer = (
            "import sys; from pathlib import Path; from backend.store.engine import FileEngine\n"
            "from backend.store.rows import Label\n"
            "engine = FileEngine(Path(sys.argv[1]))\n"
            "with engine.transaction():\n"
            "    engine.insert('notes', sys.argv[2], Label(), b'{}')\n"
            "engine.close()\n"
        )
        for number, uid in enumerate("cd", start=3):
            subprocess.run([sys.executable, "-c", writer, str(path), uid], check=True, timeout=30)
            assert first.revision() == number
            assert first.read("notes", uid) == (1, b"{}", None)
        first.close()


class TestFaults:
    def test_a_damaged_file_says_so(self, path: Path):
        engine = FileEngine(path)
        for number in range(200):
            insert(engine, f"{number}", b'{"x":"' + b"y" * 1000 + b'"}')
        engine.close()
        content = bytearray(path.read_bytes())
        content[4096:] = b"\xff" * (len(content) - 4096)
        path.write_bytes(content)
        with pytest.raises(FailedError, match="damaged") as raised:
            FileEngine(path).scan("notes", "", 500)
        assert raised.value.hint

    def test_a_lock_that_is_held_too_long_names_the_holder(self, tmp_path: Path):
        file = tmp_path / "kc.db.lock"
        program = (
            "import fcntl,sys; f=open(sys.argv[1],'w'); fcntl.flock(f,2); print('held',flush=True); sys.stdin.read()"
        )
        holder = subprocess.Popen(
            [sys.executable, "-c", program, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert holder.stdout.readline() == b"held\n"
        lock = FileLock(file, patience=0.2)
        with pytest.raises(TimedOutError, match=f"process {holder.pid}"):
            lock.acquire()
        holder.stdin.close()
        assert holder.wait(10) == 0
        holder.stdout.close()
        with lock:
            assert is_locked(file)
        # The thread that waited in vain gets the lock in the end, and must let go of it again.
        wait_until_free(file)

    def test_another_thread_that_holds_it_too_long_is_told_too(self, tmp_path: Path):
        lock = FileLock(tmp_path / "kc.db.lock", patience=0.05)
        with lock, pytest.raises(TimedOutError, match="this process"):
            lock.acquire()

    def test_a_program_that_locks_the_database_is_told(self, path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("backend.store.files.BUSY_SECONDS", 0.1)
        engine = FileEngine(path)
        foreign = sqlite3.connect(path, isolation_level=None)
        foreign.execute("BEGIN IMMEDIATE")
        with pytest.raises(TimedOutError, match="another program"):
            insert(engine)
        foreign.execute("ROLLBACK")
        foreign.close()
        insert(engine)
        engine.close()

    def test_a_write_that_failed_dooms_its_transaction(self, path: Path):
        engine = FileEngine(path)

        def write_and_hide_the_fault() -> None:
            with engine.transaction():
                engine.insert("notes", "a", Label(), b"{}")
                with pytest.raises(KCError):
                    engine._connections.write("INSERT INTO log (revision) VALUES (1)")
                engine.insert("notes", "b", Label(), b"{}")

        with pytest.raises(KCError):
            write_and_hide_the_fault()
        assert engine.count("notes") == 0
        insert(engine)
        engine.close()

    def test_a_store_is_not_taken_through_a_fork(self, path: Path):
        engine = FileEngine(path)
        insert(engine)
        child = os.fork()
        if child == 0:
            try:
                engine.count("notes")
            except FailedError:
                engine.close()
                os._exit(0)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        insert(engine, "b")
        assert engine.count("notes") == 2
        engine.close()

    def test_a_write_needs_a_transaction_of_its_own_thread(self, path: Path):
        engine = FileEngine(path)
        with pytest.raises(RuntimeError):
            insert_without_transaction(engine)
        raised: list[bool] = []

        def write() -> None:
            with pytest.raises(RuntimeError):
                insert_without_transaction(engine)
            raised.append(True)

        with engine.transaction():
            thread = threading.Thread(target=write)
            thread.start()
            thread.join()
            with pytest.raises(FailedError, match="middle"):
                engine.close()
        assert raised == [True]
        assert engine.count("notes") == 0
        engine.close()

    def test_a_store_that_nobody_closed_is_closed_at_the_end_of_the_process(self, path: Path):
        program = (
            "from backend.store.opening import open_store; import sys\n"
            f"store = open_store('tinydb:{path}')\n"
            "with store.transaction() as transaction: transaction.put_lease('a', {})\n"
        )
        subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
        assert sorted(file.name for file in path.parent.iterdir()) == ["kc.db", "kc.db.lock"]


def is_locked(file: Path) -> bool:
    with file.open("w") as other:
        try:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def wait_until_free(file: Path) -> None:
    deadline = time.monotonic() + 10
    while is_locked(file):
        assert time.monotonic() < deadline
        time.sleep(0.01)


class TestSharing:
    def test_a_link_leads_to_the_same_lock(self, path: Path, tmp_path: Path):
        make_store(path)
        link = tmp_path / "link.db"
        link.symlink_to(path)
        engine = FileEngine(link)
        assert engine.path == path
        engine.close()
        assert not (tmp_path / "link.db.lock").exists()

    def test_a_copy_made_by_vacuum_is_a_store_with_a_log_again(self, path: Path, tmp_path: Path):
        make_store(path)
        copy = tmp_path / "copy.db"
        with sqlite3.connect(path) as connection:
            connection.execute("VACUUM INTO ?", (str(copy),))
        connection.close()
        engine = FileEngine(copy)
        insert(engine, "b")
        assert engine.count("notes") == 2
        assert (tmp_path / "copy.db-wal").exists()
        engine.close()

    def test_a_feed_that_was_cut_off_says_so(self, path: Path):
        engine = FileEngine(path)
        for uid in "abcdef":
            insert(engine, uid)
        with engine.transaction():
            engine._connections.write("UPDATE meta SET value = '3' WHERE key = 'floor'")
        with pytest.raises(ConflictError) as raised:
            engine.changes(2, (), 100)
        assert raised.value.details["compacted"] is True
        assert engine.changes(3, (), 100)[1] == 6
        engine.close()

    def test_readers_go_back_to_the_pool(self, path: Path):
        engine = FileEngine(path)
        for _ in range(20):
            thread = threading.Thread(target=engine.count, args=("notes",))
            thread.start()
            thread.join()
        assert len(engine._connections._idle) == 1
        engine.close()
        assert engine._connections._idle == []

    def test_an_idle_wait_costs_next_to_nothing(self, path: Path):
        engine = FileEngine(path)
        moment = engine.moment()
        before = time.process_time()
        assert engine.wait(moment, 1.0) is False
        assert time.process_time() - before < 0.05
        engine.close()


needs_namespace = pytest.mark.skipif(
    os.geteuid() != 0
    or not shutil.which("unshare")
    or subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode != 0,
    reason="a mount of the test's own needs root and unshare -m",
)


def run_on_small_disk(folder: Path, program: str) -> str:
    """Run a Python program with a disk of 3 MiB of its own mounted at `folder`, and return what it prints."""
    command = f'mount -t tmpfs -o size=3m tmpfs "$0" && exec "{sys.executable}" -c "$1" "$0"'
    result = subprocess.run(
        ["unshare", "-m", "sh", "-c", command, str(folder), program],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@needs_namespace
def test_a_full_disk_loses_nothing_and_room_mends_it(tmp_path: Path):
    output = run_on_small_disk(
        tmp_path,
        """
import sys, sqlite3
from pathlib import Path
from conformance.test_store import make, put
from backend.errors import FailedError
from backend.store.opening import open_store
folder = Path(sys.argv[1])
ballast = folder / "ballast"
ballast.write_bytes(b"x" * (1 << 20))
store = open_store(f"tinydb:{folder}/kc.db")
kept = 0
faults = []
while len(faults) < 5:
    try:
        put(store, make(f"vm-{kept}", metadata={"x": "y" * 10000}))
        kept += 1
    except FailedError as error:
        faults.append(error)
assert {fault.details["reason"] for fault in faults} == {"full"}, faults
assert "no room" in str(faults[0]), faults
assert len(store.list_documents("VM").items) == kept > 10
ballast.unlink()
for number in range(20):
    put(store, make(f"later-{number}"))
store.close()
store = open_store(f"tinydb:{folder}/kc.db")
listed = {document["name"] for document in store.list_documents("VM").items}
assert listed == {f"vm-{n}" for n in range(kept)} | {f"later-{n}" for n in range(20)}
store.close()
connection = sqlite3.connect(folder / "kc.db")
print(connection.execute("PRAGMA integrity_check").fetchone()[0])
connection.close()
""",
    )
    assert output == "ok\n"


@needs_namespace
def test_a_disk_without_room_for_a_new_store_says_so(tmp_path: Path):
    output = run_on_small_disk(
        tmp_path,
        """
import sys
from pathlib import Path
from backend.errors import FailedError
from backend.store.opening import open_store
folder = Path(sys.argv[1])
try:
    (folder / "ballast").write_bytes(b"x" * (4 << 20))
except OSError:
    pass
try:
    open_store(f"tinydb:{folder}/kc.db")
except FailedError as error:
    print(error.why)
(folder / "ballast").unlink()
open_store(f"tinydb:{folder}/kc.db").close()
""",
    )
    assert output == "no room left on the disk\n"


@needs_namespace
def test_a_disk_that_can_only_be_read_says_so(tmp_path: Path):
    output = run_on_small_disk(
        tmp_path,
        """
import subprocess, sys
from pathlib import Path
from conformance.test_store import make, put
from backend.errors import FailedError
from backend.store.opening import open_store
folder = Path(sys.argv[1])
store = open_store(f"tinydb:{folder}/kc.db")
put(store, make())
store.close()
subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
before = (folder / "kc.db").read_bytes()
for path in ("kc.db", "new/kc.db"):
    try:
        open_store(f"tinydb:{folder}/{path}")
    except FailedError as error:
        print(bool(error.hint))
assert (folder / "kc.db").read_bytes() == before
""",
    )
    assert output == "True\nTrue\n"
