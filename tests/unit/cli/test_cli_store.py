"""`kc store` says where the documents are, and keeps them well."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from backend.local.initialising import MACHINE_TYPES


def file_of(kept: Any) -> Path:
    return Path(kept.service.store.url.removeprefix("tinydb:"))


def test_show_says_where_and_what_is_kept(kept: Any) -> None:
    kept.add_vm("web")
    store = kept.service.store
    shown = kept("store", "show", "-o", "json").json()
    assert shown == {
        "url": store.url,
        "format": 1,
        "identity": store.identity,
        "revision": store.revision(),
        "documents": {
            "VM": 1, "Image": 1, "Network": 1, "MachineType": len(MACHINE_TYPES), "Operation": 2, "Trash": 0,
            "Token": 0,
        },
    }  # fmt: skip
    lines = dict(line.split(maxsplit=1) for line in kept("store", "show").out.splitlines()[:4])
    assert lines["store"] == store.url
    assert lines["revision"] == str(store.revision())
    assert kept("store", "show", "-o", "name").out == f"{store.url}\n"


def test_a_sound_store_is_said_to_be_sound(kept: Any) -> None:
    kept.add_vm("web")
    result = kept("store", "check")
    assert (result.code, result.out, result.err) == (0, "", "kc: the store is sound\n")
    assert kept("store", "check", "-o", "json").json() == {"items": []}


def test_what_is_derived_is_repaired_and_the_exit_code_says_what_remains(kept: Any) -> None:
    kept.add_vm("web")
    with sqlite3.connect(file_of(kept)) as connection:
        connection.execute("DELETE FROM head WHERE name = 'web'")
    connection.close()
    found = kept("store", "check")
    assert found.code == 1
    assert found.out.splitlines()[0].split() == ["WHERE", "FAULT", "STATE"]
    assert "faulty" in found.out
    assert "kc store check --repair mends what it can" in found.err
    assert kept("store", "check", "-o", "name").out.splitlines()
    repaired = kept("store", "check", "--repair", "-o", "json")
    assert repaired.code == 0
    assert [item["repaired"] for item in repaired.json()["items"]] == [True] * len(repaired.json()["items"])
    assert kept("store", "check").code == 0
    assert kept("vm", "show", "web").code == 0


def test_what_cannot_be_repaired_stays_a_failure(kept: Any) -> None:
    kept.add_vm("web")
    with sqlite3.connect(file_of(kept)) as connection:
        connection.execute("UPDATE log SET body = X'00' WHERE revision = (SELECT min(revision) FROM log)")
    connection.close()
    result = kept("store", "check", "--repair")
    assert result.code == 1
    assert "kc import of an export brings it back" in result.err


def test_compacting_drops_what_need_not_be_kept(kept: Any) -> None:
    kept.add_vm("web")
    for memory in (600, 700, 800):
        kept.set_memory("web", memory)
    (kept.home / "config").mkdir(exist_ok=True)
    (kept.home / "config" / "config.toml").write_text("[history]\nversions = 2\n")
    from support import memory_kc

    from backend.settings import load_settings
    from backend.store.opening import open_store

    settings = load_settings(environment={"KC_HOME": str(kept.home)})
    assert settings.retentions.default.versions == 2
    kept.service.store.close()
    kept.service.store = open_store(settings.store_url, retentions=settings.retentions)
    opened = memory_kc.make_service

    def open_with_retentions(*arguments: Any, **options: Any) -> Any:
        service = opened(*arguments, **options)
        service.store.close()
        service.store = open_store(settings.store_url, retentions=settings.retentions)
        return service

    import conftest

    conftest.make_service = open_with_retentions
    try:
        done = kept("store", "compact", "-o", "json").json()
        again = kept("store", "compact")
    finally:
        conftest.make_service = opened
    assert done["versions"] >= 2
    assert done["bytesBefore"] > 0
    assert again.out.splitlines()[0].split() == ["versions", "dropped", "0"]
    assert [entry.version for entry in kept.service.history("VM", "web")][-1] == 4


def test_all_of_a_store_is_copied_into_an_empty_one(kept: Any, tmp_path: Path) -> None:
    kept.add_vm("web")
    kept.set_memory("web", 768)
    source, target = kept.service.store.url, f"tinydb:{tmp_path}/copy.db"
    done = kept("store", "copy", source, target)
    assert done.code == 0, done.err
    assert f"KC_STORE={target} uses them" in done.err
    from contextlib import closing

    from backend.store.opening import open_store

    with closing(open_store(target, create=False)) as copy:
        assert list(copy.dump())[1:] == list(kept.service.store.dump())[1:]
    full = kept("store", "copy", source, target, "-o", "json")
    assert full.code == 4
    assert full.problem()["detail"] == "it is not empty"
    missing = kept("store", "copy", f"tinydb:{tmp_path}/none.db", f"tinydb:{tmp_path}/other.db")
    assert missing.code in (3, 8)
    assert not (tmp_path / "none.db").exists()
    assert kept("store", "copy", "nonsense", target).code == 8
    assert kept("store", "copy", source).code == 2
