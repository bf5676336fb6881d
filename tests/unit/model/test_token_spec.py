"""The spec of tokens: what there is to allow, whose it is, until when; and the arithmetic of actions."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from backend.errors import RefusedError
from backend.model.actions import ACTIONS, ANY, PATTERNS, check_selector, covers, find_fault, intersect, list_actions
from backend.model.documents import parse_time
from backend.model.kinds import TOKEN
from backend.model.schemas import document_schema, validate_document

SCOPES = [{"actions": ["vm.start", "vm.*"], "selector": "tenant=acme"}]


def validate(**spec: Any) -> dict[str, Any]:
    document = {"kind": "Token", "name": "ci", "spec": spec}
    checked: dict[str, Any] = validate_document(document)["spec"]
    return checked


def test_a_limited_token_holds_ninety_days_where_nobody_says() -> None:
    spec = validate(type="limited", scopes=SCOPES)
    assert spec["scopes"] == SCOPES
    assert parse_time(spec["expiresAt"]) == pytest.approx(time.time() + 90 * 86400, abs=60)
    assert (spec["subject"], spec["groups"], spec["digest"]) == ("", [], "")
    assert validate(type="limited", scopes=SCOPES, expiresAt=None)["expiresAt"] is None
    for milliseconds in range(100, 1000, 7):
        text = f"2026-12-01T23:59:59.{milliseconds}Z"
        assert validate(type="limited", scopes=SCOPES, expiresAt=text)["expiresAt"] == text
    assert validate(type="limited", scopes=SCOPES, expiresAt="2026-12-01T00:00:00.123456Z")["expiresAt"][-5:] == ".123Z"
    assert validate(type="limited", scopes=SCOPES, expiresAt="2026-12-01T00:00:00Z")["expiresAt"] == (
        "2026-12-01T00:00:00.000Z"
    )


def test_a_god_token_may_do_everything_and_says_so() -> None:
    assert validate(type="god")["scopes"] == [{"actions": ["*"], "selector": ""}]
    assert validate(**validate(type="god", digest="5" * 64))["digest"] == "5" * 64
    assert validate(type="session", subject="alice", groups=["staff"], scopes=None)["scopes"] is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"type": "divine"}, "spec.type"),
        ({"type": "god"}, "god token may do everything"),
        ({"scopes": None}, "spec.scopes: a limited token needs one"),
        ({"scopes": []}, "spec.scopes: a limited token needs one"),
        ({"scopes": SCOPES * 33}, "spec.scopes"),
        ({"scopes": [{"actions": []}]}, "spec.scopes.0.actions"),
        ({"scopes": [{"actions": ["vm.strt"]}]}, "the nearest is vm.start"),
        ({"scopes": [{"actions": ["vm.teleportation"]}]}, "those of vm are read, create"),
        ({"scopes": [{"actions": ["cat.feed.now.please"]}]}, "the kinds are vm, image"),
        ({"scopes": [{"actions": ["*.read"]}]}, "no action"),
        ({"scopes": [{"actions": ["vm."]}]}, "no action"),
        ({"scopes": [{"actions": ["vm.read"], "selector": "tenant="}, {"actions": ["vm.read"], "selector": "a("}]},
         "spec.scopes.1.selector"),
        ({"scopes": [{"actions": ["vm.read"], "selector": "status.power=running"}]}, "asks for a status"),
        ({"scopes": [{"actions": ["vm.read"], "selector": "a" * 1025}]}, "spec.scopes.0.selector"),
        ({"scopes": [{"actions": ["vm.read"], "until": 3}]}, "unknown field"),
        ({"expiresAt": "soon"}, "spec.expiresAt"),
        ({"expiresAt": ""}, "spec.expiresAt"),
        ({"expiresAt": "2026-02-30T00:00:00Z"}, "is no time"),
        ({"expiresAt": "2026-12-01T00:00:00+01:00"}, "spec.expiresAt"),
        ({"subject": "alice"}, "only a session has one"),
        ({"groups": ["staff"]}, "only a session has one"),
        ({"digest": "5" * 64}, "only a god token has one"),
        ({"digest": "kcg_secret"}, "spec.digest"),
        ({"secret": "x"}, "unknown field"),
    ],
    ids=lambda value: value.replace(" ", "-")[:30] if isinstance(value, str) else "",
)  # fmt: skip
def test_what_makes_no_token_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(RefusedError) as caught:
        validate(**{"type": "limited", "scopes": SCOPES, **change})
    assert words in str(caught.value)


def test_what_is_refused_steers_no_terminal() -> None:
    with pytest.raises(RefusedError) as caught:
        validate(type="limited", scopes=[{"actions": ["\x1b]52;c;AAAA\x07\u202evm"]}])
    assert str(caught.value).isprintable()


def test_the_schema_takes_what_the_model_takes() -> None:
    schema = document_schema(TOKEN)
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    for spec in (validate(type="god"), validate(type="limited", scopes=SCOPES), {"type": "limited", "scopes": SCOPES}):
        validator.validate({"kind": "Token", "name": "ci", "spec": spec})
    assert not validator.is_valid({"kind": "Token", "name": "ci", "spec": {"type": "limited", "secret": "x"}})


def test_every_pattern_is_one_and_nothing_else() -> None:
    assert {ANY, *list_actions()} < PATTERNS
    assert len(PATTERNS) == 1 + len(list_actions()) + len(ACTIONS)
    assert not any(map(find_fault, PATTERNS))
    for text in ("", "vm", ".read", "vm.read.", "VM.read", "*.*", "vm.read ", "audit.create"):
        assert find_fault(text), text


def mean(pattern: str) -> set[str]:
    """Return the actions that a pattern means, written as plainly as possible."""
    kinds = {kind for kind in ACTIONS if pattern == ANY or pattern.partition(".")[0] == kind}
    found = {
        f"{kind}.{verb}" for kind in kinds for verb in ACTIONS[kind] if pattern in (ANY, f"{kind}.*", f"{kind}.{verb}")
    }
    return found | {f"{kind}.read" for kind in kinds if "read" in ACTIONS[kind]}


def mean_all(patterns: Any) -> set[str]:
    return set().union(*map(mean, patterns)) if patterns else set()


def test_the_intersection_is_exact() -> None:
    some = ["*", "vm.*", "vm.read", "vm.start", "image.*", "image.upload", "store.export", "store.*", "token.read"]
    lists = [list(one) for size in (1, 2) for one in itertools.combinations(some, size)]
    for left, right in itertools.product(lists, repeat=2):
        found = intersect(left, right)
        assert mean_all(found) == mean_all(left) & mean_all(right), (left, right, found)
        assert set(found) <= PATTERNS
    assert intersect(["vm.*"], ["vm.start"]) == ("vm.start",)
    assert intersect(["vm.start"], ["vm.stop"]) == ("vm.read",)
    assert intersect(["vm.fly", "*"], ["vm.fly"]) == ()
    assert intersect([], ["*"]) == ()


def test_what_covers_what() -> None:
    for left, right in itertools.product(sorted(PATTERNS), repeat=2):
        # Of a kind with but one action, that one covers all; a pattern is not taken apart for it.
        if covers([left], right):
            assert mean(right) <= mean(left), (left, right)
        elif not right.endswith("*"):
            assert not mean(right) <= mean(left), (left, right)


def test_a_scope_asks_what_is_written() -> None:
    check_selector("tenant=acme,spec.host=a,name~web*")
    check_selector('"status"=on')
    for text in ("status.power=running", "status", "tenant=acme,status.x>3"):
        with pytest.raises(RefusedError, match="status"):
            check_selector(text)
    with pytest.raises(RefusedError):
        check_selector("tenant in (acme")
