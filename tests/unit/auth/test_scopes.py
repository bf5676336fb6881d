"""What scopes allow, and when some scopes allow all that others do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.auth.protocol import EVERYTHING, Scope
from backend.auth.scopes import check_scope, covers, may_some, permits, restriction
from backend.errors import RefusedError
from backend.model.actions import list_actions


def vm(name: str = "web", **metadata: Any) -> dict[str, Any]:
    return {
        "kind": "VM",
        "name": name,
        "metadata": metadata,
        "spec": {"type": {"name": "tiny"}},
        "status": {"power": "x"},
    }


@pytest.mark.parametrize(
    ("actions", "selector", "action", "allowed"),
    [
        (("*",), "", "vm.start", True),
        (("vm.*",), "", "vm.start", True),
        (("vm.*",), "", "image.read", False),
        (("vm.start",), "", "vm.stop", False),
        (("vm.start",), "", "vm.read", True),
        (("vm.start",), "tenant=acme", "vm.start", True),
        (("vm.start",), "tenant=globex", "vm.start", False),
        (("vm.start",), "tenant=globex", "vm.read", False),
        (("vm.start",), "spec.type.name=tiny", "vm.start", True),
        (("vm.start",), "name~web*", "vm.start", True),
        (("vm.start",), "name~db*", "vm.start", False),
        (("VM.start", "vm", "vm.", "vm.sta", "*.*"), "", "vm.start", False),
        ((), "", "vm.start", False),
        (("vm.start",), "this is (no selector", "vm.start", False),
        (("vm.start",), "status.power=x", "vm.start", False),
        (("vm.start",), "status.power!=y", "vm.start", False),
        (("vm.start",), "!status", "vm.start", False),
    ],
)
def test_a_scope_allows_its_actions_on_what_its_selector_takes(
    actions: tuple[str, ...], selector: str, action: str, allowed: bool
) -> None:
    assert permits([Scope(actions, selector)], action, vm(tenant="acme")) is allowed


def test_rights_of_several_scopes_are_not_mixed() -> None:
    scopes = [Scope(("vm.start",), "tenant=acme"), Scope(("vm.delete",), "tenant=globex")]
    assert permits(scopes, "vm.start", vm(tenant="acme"))
    assert not permits(scopes, "vm.delete", vm(tenant="acme"))
    assert permits(scopes, "vm.read", vm(tenant="globex"))


@pytest.mark.parametrize("selector", ["spec.hidden!=true", "!spec.hidden", "spec.type.name=tiny"])
def test_a_selector_on_specs_takes_nothing_of_which_only_the_metadata_is_known(selector: str) -> None:
    whole = vm()
    assert permits([Scope(("vm.*",), selector)], "vm.read", whole)
    assert not permits(
        [Scope(("vm.*",), selector)], "vm.read", {key: whole[key] for key in ("kind", "name", "metadata")}
    )


def test_who_may_do_nothing_to_any_object_is_told_apart() -> None:
    assert may_some([Scope(("vm.start",), "tenant=acme")], "vm.start")
    assert may_some([Scope(("vm.start",), "tenant=acme")], "vm.read")
    assert not may_some([Scope(("vm.start",), "tenant=acme")], "vm.stop")
    assert not may_some([Scope(("vm.start",), "a b c")], "vm.start")


@pytest.mark.parametrize(
    ("selectors", "expected"),
    [
        ([], []),
        ([""], None),
        (["tenant=acme", " "], None),
        (["tenant=acme"], ["tenant=acme"]),
        (["tenant=acme", "metadata.tenant==acme"], ["tenant=acme"]),
        (["tenant=acme", "tenant=acme,name~w*"], ["tenant=acme"]),
        (["tenant=acme,name~w*", "tenant=acme"], ["tenant=acme"]),
        (["tenant=acme", "tenant=globex"], ["tenant=acme", "tenant=globex"]),
        (["tenant in (acme,globex)", "tenant=globex"], ["tenant in (acme,globex)"]),
        (["no (selector", "tenant=acme"], ["tenant=acme"]),
    ],
)
def test_the_selectors_of_an_action_are_those_that_no_other_includes(
    selectors: list[str], expected: list[str] | None
) -> None:
    scopes = [Scope(("vm.read",), selector) for selector in selectors]
    assert restriction([*scopes, Scope(("image.*",), "")], "vm.read") == expected


@pytest.mark.parametrize(
    ("ours", "wanted", "covered"),
    [
        (("*", ""), ("*", ""), True),
        (("vm.*", ""), ("*", ""), False),
        (("*", "tenant=acme"), ("*", ""), False),
        (("*", "tenant=acme"), ("vm.start", "tenant=acme,name=web"), True),
        (("*", "tenant=acme"), ("vm.start", "tenant=globex"), False),
        (("vm.start", ""), ("vm.read", ""), True),
        (("vm.read", ""), ("vm.start", ""), False),
        (("vm.start", ""), ("vm.*", ""), False),
        (("vm.*", "tenant in (acme,globex)"), ("vm.*", "tenant=acme"), True),
        (("vm.*", "tenant=acme"), ("vm.*", "tenant in (acme,globex)"), False),
        (("vm.*", "tenant!=acme"), ("vm.*", "tenant notin (acme,globex)"), True),
        (("vm.*", "tenant notin (acme,globex)"), ("vm.*", "tenant!=acme"), False),
        (("vm.*", "tenant=acme"), ("vm.*", "no (selector"), True),
        (("vm.*", "no (selector"), ("vm.*", "tenant=acme"), False),
    ],
)
def test_nobody_hands_on_more_than_they_have(ours: tuple[str, str], wanted: tuple[str, str], covered: bool) -> None:
    assert covers([Scope((ours[0],), ours[1])], [Scope((wanted[0],), wanted[1])]) is covered


VALUES = st.sampled_from(["acme", "globex", "3", '"3"', "true", "null"])
KEYS = st.sampled_from(["tenant", "metadata.tenant", "tier", "name", "kind", "spec.type.name"])
TERMS = st.one_of(
    st.builds("{}={}".format, KEYS, VALUES),
    st.builds("{}!={}".format, KEYS, VALUES),
    st.builds(lambda key, values: f"{key} in ({','.join(values)})", KEYS, st.lists(VALUES, min_size=1, max_size=3)),
    st.builds(lambda key, values: f"{key} notin ({','.join(values)})", KEYS, st.lists(VALUES, min_size=1, max_size=3)),
    st.builds("{}>{}".format, KEYS, VALUES),
    st.builds("{}~{}*".format, KEYS, st.sampled_from("aw")),
    KEYS,
    st.builds("!{}".format, KEYS),
)
SELECTORS = st.lists(TERMS, max_size=3).map(",".join)
PATTERNS = st.sampled_from(["*", "vm.*", "image.*", "vm.read", "vm.start", "vm.stop", "image.read"])
SCOPES = st.lists(st.builds(Scope, st.lists(PATTERNS, max_size=3).map(tuple), SELECTORS), max_size=3)
SCALARS = st.sampled_from(["acme", "globex", 3, "3", True, None, ["acme", "globex"], [], {"deep": 3}])
DOCUMENTS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["VM", "Image"]),
        "name": st.sampled_from(["acme", "web", "a"]),
        "metadata": st.dictionaries(st.sampled_from(["tenant", "tier"]), SCALARS),
    },
    optional={"spec": st.sampled_from([{}, {"type": {"name": "acme"}}, {"type": None}])},
)


@given(ours=SCOPES, wanted=SCOPES, action=st.sampled_from(list_actions()), document=DOCUMENTS)
def test_what_is_covered_allows_nothing_more(
    ours: list[Scope], wanted: list[Scope], action: str, document: dict[str, Any]
) -> None:
    if covers(ours, wanted) and permits(wanted, action, document):
        assert permits(ours, action, document)


@given(ours=SCOPES, added=SELECTORS, action=st.sampled_from(list_actions()), document=DOCUMENTS)
def test_a_narrowed_scope_is_covered(ours: list[Scope], added: str, action: str, document: dict[str, Any]) -> None:
    narrowed = [scope._replace(selector=",".join(filter(None, (scope.selector, added)))) for scope in ours]
    assert covers(ours, narrowed)
    assert covers(EVERYTHING, ours)
    assert permits(ours, action, document) or not permits(narrowed, action, document)


@given(scopes=SCOPES, action=st.sampled_from(list_actions()), document=DOCUMENTS)
def test_the_selectors_of_an_action_take_what_is_permitted(
    scopes: list[Scope], action: str, document: dict[str, Any]
) -> None:
    left = restriction(scopes, action)
    kept = [Scope((action,), selector) for selector in ([""] if left is None else left)]
    assert permits(kept, action, document) is permits(scopes, action, document)


@pytest.mark.parametrize(
    "scope", [Scope(("vm.fly",)), Scope(("vm",)), Scope(("*",), "a b"), Scope(("*",), "status.power=on")]
)
def test_a_scope_that_would_allow_nothing_is_refused(scope: Scope) -> None:
    with pytest.raises(RefusedError):
        check_scope(scope)


def test_a_scope_that_allows_something_is_taken() -> None:
    check_scope(Scope(("*", "vm.*", "vm.start"), "tenant=acme"))
