"""The OpenAPI document: sound, its examples true, and the server as it says, to an independent judge."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from support.api_server import ApiServer, running_server

from backend.api.openapi import build_document
from backend.api.schemas import COMPONENTS
from backend.api.table import ROWS

METHODS = {"get", "put", "post", "delete", "options", "head", "patch"}
# What it is to a judge who knows the shapes alone: a document can be well formed and yet name what is not there, which
# is 400, 409 or 422; and a request may be refused for its state.
JUDGE = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "304", "400", "401", "403", "404", "409", "412", "422", "503"]
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "405", "406", "409", "410", "412", "413", "414", "415", "422", "5xx"]
"""
# Streams do not end by themselves and uploads speak tus: both have tests of their own. Ending the judge's own token, or
# filling disks, would end the judgement. Images and networks go through the very handlers of the other kinds.
LEFT_OUT = (
    "watch|wait-|init|export-store|import-store|.*-uploads?$|uploads-options|end-session|copy-store|empty-trash"
    "|(delete|put|patch)-token|.*-(image|network)s?$"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    home: Path = tmp_path_factory.mktemp("judged")
    with running_server(home) as running:
        running.make_vm("web-1", tenant="acme")
        yield running


def resolve(schema: Any) -> Any:
    """Return a schema that stands on its own: the components beside it, where its references lead."""
    components = build_document()["components"]["schemas"]
    return {"components": {"schemas": components}, **schema}


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in build_document()["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_every_operation_of_the_table_is_in_the_document() -> None:
    found = {(method.upper(), path): operation["operationId"] for path, method, operation in operations()}
    assert found == {(row.method, row.path): row.operation_id for row in ROWS if not row.socket}
    assert set(build_document()["x-websockets"]) == {row.path for row in ROWS if row.socket}
    assert {method for _, method, _ in operations()} <= METHODS


def test_every_schema_is_one_and_every_reference_leads_somewhere() -> None:
    document = build_document()
    text = json.dumps(document)
    for name, schema in document["components"]["schemas"].items():
        Draft202012Validator.check_schema(schema)
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name), name
    for reference in set(re.findall(r'"\$ref": "([^"]+)"', text)):
        assert reference.startswith("#/"), reference
        place: Any = document
        for part in reference[2:].split("/"):
            place = place[part]
    assert "#/$defs/" not in text


def test_every_example_is_what_its_schema_says() -> None:
    checked = 0
    for _, _, operation in operations():
        for content in operation.get("requestBody", {}).get("content", {}).values():
            if "example" in content:
                Draft202012Validator(resolve(content["schema"])).validate(content["example"])
                checked += 1
    assert checked > 30


def test_every_error_is_a_problem_and_every_path_parameter_is_described() -> None:
    responses = build_document()["components"]["responses"]
    assert all(list(response["content"]) == ["application/problem+json"] for response in responses.values())
    for path, method, operation in operations():
        errors = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
        assert all("$ref" in answer for answer in errors.values()), (method, path)
        assert {"400", "404", "500"} <= set(errors)
        assert ("401" in errors) == (operation.get("security") != [])
        named = [parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"]
        assert named == re.findall(r"\{(\w+)\}", path)


def test_no_secret_stands_in_the_document() -> None:
    text = json.dumps(build_document())
    assert not re.search(r"kc[gts]_[A-Za-z0-9_-]{20,}", text)


@pytest.mark.parametrize(
    ("path", "schema"),
    [
        ("/v1/vms", "VMList"), ("/v1/vms/web-1", "VM"), ("/v1/operations", "OperationList"), ("/v1/session", "Access"),
        ("/v1/doctor", "Findings"), ("/v1/samples", "Samples"), ("/v1/audit", "AuditList"), ("/v1/tokens", "TokenList"),
        ("/v1/vms/web-1/versions", "Versions"), ("/v1/trash", "TrashList"), ("/nothing", "Problem"),
    ],
)  # fmt: skip
def test_what_is_answered_has_the_shape_that_was_promised(server: ApiServer, path: str, schema: str) -> None:
    with server.client() as client:
        value = client.get(path).json()
    Draft202012Validator(resolve(COMPONENTS[schema])).validate(value)


def judge(server: ApiServer, folder: Path, *arguments: str, phases: str, seconds: int) -> None:
    """Have schemathesis ask the server all that the document allows, and much that it does not."""
    settings = folder / "judge.toml"
    settings.write_text(JUDGE)
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(settings), "run",
        f"{server.url}/openapi.json", "--checks", "all", "--phases", phases, "--max-examples", "4",
        "--max-time", str(seconds),
        "--exclude-operation-id-regex", LEFT_OUT, "--request-timeout", "20", "--no-color", "--continue-on-failure",
        "--generation-deterministic", *arguments,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


@pytest.mark.timeout(290)
def test_an_independent_judge_finds_no_fault(server: ApiServer, tmp_path: Path) -> None:
    judge(
        server,
        tmp_path,
        "-H",
        f"Authorization: Bearer {server.god}",
        phases="examples,coverage,fuzzing,stateful",
        seconds=50,
    )


@pytest.mark.timeout(290)
def test_the_judge_finds_none_with_a_limited_token_either(server: ApiServer, tmp_path: Path) -> None:
    judge(server, tmp_path, "-H", f"Authorization: Bearer {server.acme}", phases="examples,fuzzing", seconds=20)
