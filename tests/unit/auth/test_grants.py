"""What `[[auth.grants]]` gives to whom, and that no name can take more."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.auth.grants import find_fault, read_grants
from backend.auth.protocol import Scope
from backend.errors import RefusedError
from backend.model.selectors import parse

HOSTILE = [
    "x,tenant=other", 'x",tenant="other', "x\ny", "\\", '"', "(a,b)", "*", "{subject}", "", " x ", "x in (a)",
    "null", "3", "ü\u2028\u202e", "a'b", "x) , kind notin (VM",
]  # fmt: skip


def grants(*tables: dict[str, Any]) -> Any:
    return read_grants(tables, "config.toml: auth.grants")


def test_subjects_groups_and_everybody_get_what_is_theirs() -> None:
    found = grants(
        {"subject": "alice", "actions": ["vm.*"], "selector": "tenant=acme"},
        {"group": "operators", "actions": ["*"]},
        {"actions": ["vm.read", "image.read"]},
    )
    everybody = Scope(("vm.read", "image.read"))
    assert found.scopes_for("alice", ()) == (Scope(("vm.*",), "tenant=acme"), everybody)
    assert found.scopes_for("bob", ("operators", "staff")) == (Scope(("*",)), everybody)
    assert found.scopes_for("operators", ()) == (everybody,)
    assert found.scopes_for("bob", ("alice",)) == (everybody,)


def test_nobody_is_given_anything_by_no_grant() -> None:
    assert grants().scopes_for("alice", ("operators",)) == ()
    assert grants({"subject": "alice", "actions": ["*"]}).scopes_for("Alice", ()) == ()


@pytest.mark.parametrize("subject", HOSTILE)
def test_a_hostile_name_is_one_value(subject: str) -> None:
    check_subject(subject)


@given(st.text(max_size=200))
def test_any_name_is_one_value(subject: str) -> None:
    check_subject(subject)


def check_subject(subject: str) -> None:
    found = grants({"actions": ["vm.read"], "selector": "tenant=acme,owner in ({subject}, shared),team!={subject}"})
    (scope,) = found.scopes_for(subject, ())
    selector = parse(scope.selector)
    assert [str(term.path[0]) for term in selector.terms] == ["tenant", "owner", "team"]
    document = {"metadata": {"tenant": "acme", "owner": subject, "team": "other than that"}}
    assert selector(document)
    assert not selector({"metadata": {**document["metadata"], "tenant": "other"}})
    assert not selector({"metadata": {**document["metadata"], "owner": f"{subject}x"}})
    assert not selector({"metadata": {**document["metadata"], "team": subject}})


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"actions": ["vm.fly"]}, "vm.fly"),
        ({"actions": ["vm"]}, "vm"),
        ({"actions": ["*.read"]}, "read"),
        ({"actions": []}, "actions is missing"),
        ({}, "actions is missing"),
        ({"actions": "vm.read"}, "no list"),
        ({"actions": ["vm.read"], "selector": "tenant>"}, "selector is none"),
        ({"actions": ["vm.read"], "selector": "status.power=running"}, "which is observed"),
        ({"actions": ["vm.read"], "selector": 'owner="{subject}"'}, "part of a value"),
        ({"actions": ["vm.read"], "selector": "owner={subject}-x"}, "part of a value"),
        ({"actions": ["vm.read"], "selector": "name~{subject}"}, "with ~"),
        ({"actions": ["vm.read"], "selector": "rank>{subject}"}, "with >"),
        ({"actions": ["vm.read"], "selector": "{subject}=x"}, "in a key"),
        ({"actions": ["vm.read"], "subject": ""}, "subject is empty"),
        ({"actions": ["vm.read"], "group": ""}, "group is empty"),
        ({"actions": ["vm.read"], "subject": "a", "group": "b"}, "beside a subject"),
        ({"actions": ["vm.read"], "subjects": ["a"]}, "subjects is no setting"),
    ],
)
def test_a_bad_grant_is_refused_with_its_place(table: dict[str, Any], said: str) -> None:
    with pytest.raises(RefusedError) as error:
        grants({"actions": ["*"]}, table)
    assert said in error.value.why
    assert error.value.what == "settings config.toml: auth.grants[2]"


def test_scopes_of_others_are_held_to_the_same() -> None:
    assert find_fault(Scope(("vm.read", "image.*", "*"), "tenant=acme")) == ""
    assert find_fault(Scope(("vm.fly",)))
    assert find_fault(Scope(("vm.read",), "status.power=running"))
    assert find_fault(Scope(("vm.read",), "tenant>"))
