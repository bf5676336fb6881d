"""Each kind's schema fits its documents; what a newer KC wrote is shown and handed on as it is, and changed by none."""

from __future__ import annotations

import copy
import json
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from backend.model.kinds import KEPT_KINDS, KINDS

ALIEN = {
    "shape": "round",
    "image": "starter",
    "type": 7,
    "nics": {"first": ["lab"]},
    "uplink": None,
    "power": {"on": 1},
}


@pytest.fixture
def every(kept: Any) -> Any:
    """A KC with a document of each kind."""
    kept.add_vm("web", metadata={"tenant": "acme"})
    kept.add_vm("old")
    assert kept("vm", "delete", "old", "--yes").code == 0
    assert kept("token", "create", "ci", "--allow", "vm.*", "-l", "tenant=acme").code == 0
    return kept


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.command)
def test_the_schema_of_a_kind_fits_its_documents(every: Any, kind: Any) -> None:
    schema = every("schema", kind.command, "-o", "json").json()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    documents = every(kind.command, "list", "-o", "json").json()["items"]
    assert documents
    for document in documents:
        validator.validate(document)
        validator.validate({key: document[key] for key in ("kind", "name", "metadata", "spec")})
        wrong = copy.deepcopy(document)
        wrong["spec"]["colour"] = "red"
        with pytest.raises(ValidationError, match="colour"):
            validator.validate(wrong)
        with pytest.raises(ValidationError):
            validator.validate({**document, "name": "../etc"})


def test_all_schemas_together_tell_the_kinds_apart(every: Any) -> None:
    schema = every("schema").json()
    validator = Draft202012Validator(schema)
    for kind in KINDS:
        for document in every(kind.command, "list", "-o", "json").json()["items"]:
            validator.validate(document)
    with pytest.raises(ValidationError):
        validator.validate({"kind": "Cat", "name": "tom", "spec": {}})
    assert every("schema", "-o", "name").out.split() == [kind.command for kind in KINDS]
    assert yaml.safe_load(every("schema", "trash", "-o", "yaml").out)["title"] == "Trash"
    assert every("schema", "cat").code == 2


@pytest.fixture
def newer(kept: Any) -> Any:
    """A store into which a newer KC has written an object of each kind, each in a shape that this one does not know."""
    kept.add_vm("web")
    for kind in KEPT_KINDS:
        body = {
            "apiVersion": "kc/v9", "kind": kind.name, "name": "alien", "uid": str(uuid.uuid4()),
            "metadata": {"tenant": "acme"}, "spec": ALIEN, "moons": [1, 2], "createdAt": "2026-01-02T03:04:05.000Z",
            "updatedAt": "2026-01-02T03:04:05.000Z", "updatedBy": "newer",
        }  # fmt: skip
        with kept.service.store.transaction() as transaction:
            transaction.put(body, expect=0)
    return kept


@pytest.mark.parametrize("kind", KEPT_KINDS, ids=lambda kind: kind.command)
def test_what_a_newer_kc_wrote_is_listed_and_shown_as_it_is(newer: Any, kind: Any) -> None:
    items = {item["name"]: item for item in newer(kind.command, "list", "-o", "json").json()["items"]}
    assert len(items) > 1
    shown = newer(kind.command, "show", "alien", "-o", "json")
    assert shown.code == 0, shown.err
    for document in (items["alien"], shown.json()):
        assert (document["apiVersion"], document["spec"], document["moons"]) == ("kc/v9", ALIEN, [1, 2])
    for arguments in (("list",), ("show", "alien"), ("history", "alien"), ("list", "-l", "tenant=acme")):
        result = newer(kind.command, *arguments)
        assert result.code == 0, result.err
        assert "alien" in result.out or arguments[0] == "history"
    watched = newer("watch", kind.command, "-l", "name=alien", "--since", "0", "--limit", "1")
    assert json.loads(watched.out)["document"]["moons"] == [1, 2]


def test_what_a_newer_kc_wrote_is_exported_as_it_is(newer: Any, tmp_path: Path) -> None:
    path = tmp_path / "store.jsonl"
    assert newer("export", str(path)).code == 0
    documents = [json.loads(line).get("document") for line in path.read_text().splitlines()]
    found = [document for document in documents if document and document.get("name") == "alien"]
    assert [(item["apiVersion"], item["spec"], item["moons"]) for item in found] == [("kc/v9", ALIEN, [1, 2])] * 4


@pytest.mark.parametrize("kind", KEPT_KINDS, ids=lambda kind: kind.command)
def test_what_a_newer_kc_wrote_is_not_changed(newer: Any, kind: Any, tmp_path: Path) -> None:
    revision = newer.service.store.revision()
    document = newer(kind.command, "show", "alien", "-o", "json").out
    (tmp_path / "own.json").write_text(document)
    (tmp_path / "known.json").write_text(json.dumps({"kind": kind.name, "name": "alien", "metadata": {"a": 1}}))
    for arguments in (
        (kind.command, "set", "alien", "--meta", "tier=1"),
        ("apply", "-f", str(tmp_path / "known.json")),
        ("apply", "-f", str(tmp_path / "own.json")),
    ):
        result = newer(*arguments)
        assert result.code == 8, (arguments, result.out, result.err)
        assert "newer KC" in result.err or "apiVersion" in result.err
    assert newer.service.store.revision() == revision


def test_what_a_newer_kc_wrote_is_in_nobodys_way(newer: Any) -> None:
    assert newer("vm", "stop", "web").code == 0
    assert newer("vm", "delete", "web", "--yes", "--now").code == 0
    assert newer("network", "delete", "default", "--yes").code == 0
    assert newer("type", "delete", "tiny", "--yes").code == 0
    newer("vm", "delete", "alien", "--yes")
