"""Selectors: the grammar, what each term takes, and that no input is too much for them."""

from __future__ import annotations

import fnmatch
import json
import re
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend.errors import RefusedError
from backend.model.selectors import Selector, Term, Word, parse

DOCUMENT = {
    "apiVersion": "kc/v1",
    "kind": "VM",
    "name": "web-1",
    "uid": "u-1",
    "version": 3,
    "metadata": {
        "tenant": "acme",
        "tier": 3,
        "tier-text": "3",
        "ratio": 1.5,
        "gold": True,
        "gone": None,
        "empty": "",
        "owner": {"mail": "anna@example.org", "team": "Blue Team"},
        "tags": ["red", "blue", 7],
        "none": [],
        "app.example.org/tier": "web",
        "example.org/ticket": {"id": 4711},
        "spec": "the customer's own",
        "name": "the customer's own too",
        "with space": "a,b",
    },
    "spec": {"cpus": 2, "power": "running", "nics": [{"network": {"name": "default"}}, {"network": {"name": "lab"}}]},
    "status": {"power": "running", "addresses": []},
    "createdAt": "2026-01-31T10:00:00.000Z",
}


class TestTerms:
    @pytest.mark.parametrize(
        "text",
        [
            "",
            "  ",
            "tenant=acme",
            " tenant = acme ",
            "tenant==acme",
            'tenant="acme"',
            "metadata.tenant=acme",
            "owner.mail=anna@example.org",
            "owner.team=Blue Team",
            "tier=3",
            "tier=3.0",
            "tier-text=3",
            'tier-text="3"',
            "ratio=1.5",
            "ratio=15e-1",
            "gold=true",
            "gone=null",
            "gone",
            "empty",
            "empty=",
            'empty=""',
            "none",
            "tags=blue",
            "tags=7",
            "tags in (green, blue)",
            "tags~r*",
            "tags>6",
            "tenant!=umbrella",
            "nothing!=acme",
            "nothing notin (a,b)",
            "tier!=4",
            'tier!="3"',
            "tenant in (acme)",
            "tenant in(acme,umbrella)",
            "tenant notin (umbrella)",
            "!nothing",
            "! owner.phone",
            "tier>2",
            "tier>=3",
            "tier<4",
            "tier<=3.0",
            "version>2",
            "createdAt>2026-01-01",
            "createdAt<=2027-01",
            "tenant~ac*",
            "tenant~a?me",
            "tenant~*",
            "name~web-*",
            "name=web-1",
            "kind=VM",
            "uid=u-1",
            "version=3",
            "apiVersion=kc/v1",
            "spec.cpus=2",
            "status.power=running",
            "spec.nics.network.name=lab",
            "spec.nics.network",
            "app.example.org/tier=web",
            "example.org/ticket.id=4711",
            '"example.org/ticket".id=4711',
            '"with space"="a,b"',
            '"spec"=the customer\'s own',
            "metadata.name=the customer's own too",
            'owner."mail"~*@example.org',
            "tenant=acme,tier=3,!nothing,status.power in (running,paused)",
        ],
    )
    def test_what_it_takes(self, text: str):
        selector = parse(text)
        assert selector(DOCUMENT)
        assert parse(str(selector)) == selector
        assert str(parse(str(selector))) == str(selector)

    @pytest.mark.parametrize(
        "text",
        [
            "tenant=Acme",
            "tenant=acm",
            'tier="3"',
            "tier=03",
            "tier-text=3.0",
            "gold=1",
            "gold=True",
            'gold="true"',
            "gone=",
            "empty=null",
            "nothing",
            "nothing=",
            "nothing=null",
            "!gone",
            "!tenant",
            "!none",
            "none=",
            "tags=green",
            "tags!=blue",
            "tags notin (blue)",
            "tenant!=acme",
            "tier notin (3)",
            "owner=anna",
            "owner>1",
            "tenant>5",
            'tier>"2"',
            "gold>0",
            "gone<5",
            "nothing<5",
            "tier~3",
            "tenant~*b*",
            "tenant~acm",
            "tenant~?acme",
            "owner.phone~*",
            "tenant.deeper=acme",
            "spec.nics.network.name=other",
            "status.addresses=10.0.0.1",
            "spec=x",
            "name.first=x",
            "createdAt>2026-02",
            '"app"."example.org/tier"=web',
            "tenant=acme,tier=4",
        ],
    )
    def test_what_it_does_not_take(self, text: str):
        assert not parse(text)(DOCUMENT)

    @pytest.mark.parametrize(
        "document", [{}, {"metadata": None}, {"metadata": []}, {"metadata": "x"}, {"metadata": {}, "spec": 5}], ids=str
    )
    def test_an_odd_document_is_no_accident(self, document: Any):
        for text in ("tenant", "tenant=acme", "a.b=1", "tier>2", "spec.cpus=2", "status.power~r*", "name=web"):
            assert not parse(text)(document)
        assert parse("tenant!=acme,!spec.cpus,status.power notin (x)")(document)

    def test_terms_are_there_to_be_shown(self):
        assert parse('a.b in (x,"y z"),!c').terms == (
            Term((Word("a"), Word("b")), "in", (Word("x"), Word("y z", quoted=True))),
            Term((Word("c"),), "missing"),
        )
        assert repr(parse("a=1")) == "parse('a=1')"
        assert parse("a = 1") == parse("a=1")
        assert hash(parse("a = 1")) == hash(parse("a=1"))
        assert parse("a=1") != parse('a="1"')

    def test_what_metadata_alone_can_tell(self):
        selector = parse("tenant=acme,name~web*,spec.cpus=2")
        assert selector.narrow
        assert selector.narrow({"name": "web-1", "metadata": {"tenant": "acme"}})
        assert not selector.narrow({"name": "db-1", "metadata": {"tenant": "acme"}})
        assert selector.needles == ((b'"acme"',),)
        assert parse("tenant in (a,b),tier=3,!x,y!=1").needles == ((b'"a"', b'"b"'), (b'tier"',))
        assert parse('a="x\\"y",b="x\\\\y","c\\""').needles == ()
        assert parse("status.power=running").narrow is None


class TestFaults:
    @pytest.mark.parametrize(
        ("text", "position", "why"),
        [
            ("=x", 0, "key is missing"),
            (",", 0, "key is missing"),
            ("a,", 2, "key is missing"),
            ("a,,b", 2, "key is missing"),
            ("a.", 2, "key is missing"),
            ("!", 1, "key is missing"),
            ("a b", 2, "operator"),
            ("a in x", 2, "operator"),
            ("a(b)", 1, "operator"),
            ("a in ()", 6, "value is missing"),
            ("a in (b,)", 8, "value is missing"),
            ("a in (b", 7, "parenthesis"),
            ("a in (b c(", 9, "parenthesis"),
            ("a in (b)c", 8, "end here"),
            ("!a=1", 2, "end here"),
            ('a="x"y', 5, "end here"),
            ("a>", 2, "value is missing"),
            ("a~ ,b", 2, "value is missing"),
            ('a="x', 2, "quotation mark"),
            (r'a="\q"', 2, "quotation mark"),
            ('a=x"y"', 3, "quotation mark"),
            ('"a=1', 0, "quotation mark"),
            ("a===b", 3, "starts with ="),
        ],
    )
    def test_a_fault_is_shown_where_it_is(self, text: str, position: int, why: str):
        with pytest.raises(RefusedError, match=re.escape(why)) as raised:
            parse(text)
        error = raised.value
        assert error.what == "selector"
        assert error.details["position"] == position
        assert error.hint == f"look at the ^ in {text[:position]}^{text[position:]}"
        assert error.details["caret"] == f"{text}\n{' ' * position}^"

    def test_an_endless_selector_is_refused(self):
        with pytest.raises(RefusedError, match="longer than"):
            parse("a=" + "x" * 5000)

    @pytest.mark.parametrize(
        "text", [",".join(["a"] * 51), ".".join("a" * 21), ",".join("a" * 2000), ".".join("a" * 2000)]
    )
    def test_more_terms_or_parts_than_anyone_needs_are_refused(self, text: str):
        with pytest.raises(RefusedError, match="more than"):
            parse(text)

    def test_as_many_as_are_taken_work(self):
        assert parse(",".join(["tenant=acme"] * 50))(DOCUMENT)
        assert not parse(".".join("a" * 20))(DOCUMENT)
        assert parse(f"tenant in ({','.join(map(str, range(800)))},acme)")(DOCUMENT)

    def test_hostile_text_does_not_reach_the_terminal(self):
        with pytest.raises(RefusedError) as raised:
            parse("\x1b[31ma b\x07")
        assert "\x1b" not in raised.value.hint + raised.value.details["caret"]


# A second opinion: the rules once more, as plainly as they can be said.


def naive_values(value: Any, parts: list[Word]) -> list[Any]:
    if not parts:
        return [value]
    if isinstance(value, list):
        return [found for item in value for found in naive_values(item, parts)]
    if not isinstance(value, dict):
        return []
    found = []
    for count in range(1, len(parts) + 1):
        if count > 1 and any(part.quoted for part in parts[:count]):
            break
        key = ".".join(part.text for part in parts[:count])
        if key in value:
            found += naive_values(value[key], parts[count:])
    return found


def naive_elements(value: Any) -> list[Any]:
    return [found for item in value for found in naive_elements(item)] if isinstance(value, list) else [value]


def naive_equal(value: Any, word: Word) -> bool:
    if isinstance(value, str):
        return value == word.text
    if word.quoted:
        return False
    if value is None or isinstance(value, bool):
        return word.text == {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (int, float)):
        if not re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", word.text):
            return False
        return float(word.text) == value
    return False


def naive_term(term: Term, document: dict[str, Any]) -> bool:
    first = term.path[0]
    roots = ("spec", "status", "metadata")
    own = ("name", "kind", "uid", "version", "apiVersion", "createdAt", "updatedAt", "updatedBy", "message")
    if not first.quoted and first.text in roots and len(term.path) > 1:
        values = naive_values(document.get(first.text), list(term.path[1:]))
    elif not first.quoted and len(term.path) == 1 and first.text in roots + own:
        values = naive_values(document, list(term.path))
    else:
        values = naive_values(document.get("metadata"), list(term.path))
    elements = [element for value in values for element in naive_elements(value)]
    if term.operator in ("exists", "missing"):
        return bool(values) == (term.operator == "exists")
    if term.operator in ("=", "in", "!=", "notin"):
        found = any(naive_equal(element, word) for element in elements for word in term.values)
        return found == (term.operator in ("=", "in"))
    (word,) = term.values
    if term.operator == "~":
        pattern = re.compile(fnmatch.translate(word.text.replace("[", "[[]")))
        return any(isinstance(element, str) and pattern.match(element) for element in elements)
    number = not word.quoted and re.fullmatch(r"-?(0|[1-9]\d*)(\.\d+)?", word.text)
    compare = {">": "__gt__", ">=": "__ge__", "<": "__lt__", "<=": "__le__"}[term.operator]
    for element in elements:
        if number and isinstance(element, (int, float)) and not isinstance(element, bool):
            if getattr(float(element), compare)(float(word.text)):
                return True
        elif not number and isinstance(element, str) and getattr(element, compare)(word.text):
            return True
    return False


keys = st.sampled_from(["a", "b", "a.b", "b.a", "a.b.a", "name", "spec"])
scalars = st.sampled_from(
    [None, True, False, 0, 1, 3, 3.0, -1.5, "", "a", "ab", "abab", "3", "true", "null", "a,b", "é\n"]
)
trees = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(keys, trees, max_size=4)
documents = st.fixed_dictionaries(
    {"name": st.sampled_from(["a", "ab", "3"]), "version": st.integers(0, 4), "metadata": objects | st.none()},
    optional={"spec": objects, "status": objects},
)
plain_words = st.sampled_from(["a", "ab", "3", "3.0", "true", "null", "0", "-1.5", "1", "a*", "*b", "a?*b", "*", "x"])
words = st.builds(Word, plain_words) | st.builds(
    Word, st.sampled_from(["", "a", "3", "a,b", "é\n", "*b\\", '"']), st.just(value=True)
)
parts = st.builds(Word, st.sampled_from(["a", "b", "name", "spec", "status", "metadata", "version"])) | st.builds(
    Word, st.sampled_from(["a", "a.b", "name", "b.a", ""]), st.just(value=True)
)
paths = st.lists(parts, min_size=1, max_size=4).map(tuple)
one_word = st.tuples(words)
several_words = st.lists(words, min_size=1, max_size=3).map(tuple)
terms = (
    st.builds(Term, paths, st.sampled_from(["exists", "missing"]), st.just(()))
    | st.builds(Term, paths, st.sampled_from(["=", "!=", "<", "<=", ">", ">=", "~"]), one_word)
    | st.builds(Term, paths, st.sampled_from(["in", "notin"]), several_words)
)
selectors = st.lists(terms, max_size=3).map(tuple).map(Selector)


@settings(max_examples=300)
@given(selectors, st.lists(documents, min_size=1, max_size=5))
def test_it_takes_what_a_plain_reading_takes(selector: Selector, several: list[dict[str, Any]]):
    for document in several:
        expected = all(naive_term(term, document) for term in selector.terms)
        assert selector(document) is expected
        if expected and selector.narrow:
            data = json.dumps(document["metadata"] or {}, ensure_ascii=False).encode()
            assert all(any(needle in data for needle in group) for group in selector.needles)
            assert selector.narrow({"name": document["name"], "metadata": document["metadata"] or {}})


@given(selectors)
def test_its_text_parses_to_itself(selector: Selector):
    assert parse(str(selector)) == selector


@given(st.text(st.sampled_from('ab.,=!<>~()"\\ in notin3*')) | st.text())
def test_any_text_is_a_selector_or_refused(text: str):
    try:
        selector = parse(text)
    except RefusedError as error:
        position = error.details["position"]
    else:
        position = 0
        selector(DOCUMENT)
        assert parse(str(selector)) == selector
    assert 0 <= position <= len(text)


@given(st.text(st.sampled_from("ab?*"), max_size=12), st.text(st.sampled_from("ab\n"), max_size=16))
def test_globs_are_those_of_the_shell(pattern: str, text: str):
    expected = re.match(fnmatch.translate(pattern), text) is not None
    assert parse(f'k~"{pattern}"')({"metadata": {"k": text}}) is expected


def test_no_pattern_takes_long():
    text = "a" * 20_000
    for pattern in ("*a" * 500 + "*b", "?" * 500 + "*b", "*" * 1000 + "b", "*aaaaaaaaab" * 100):
        selector = parse(f'k~"{pattern}"')
        start = time.perf_counter()
        assert not selector({"metadata": {"k": text}})
        assert time.perf_counter() - start < 1


def test_deep_and_wide_documents_take_no_long_time():
    deep: Any = "x"
    for _ in range(90):
        deep = [deep, deep] if _ < 10 else [deep]
    metadata = {"k": deep, **{f"a{number}": number for number in range(1000)}}
    start = time.perf_counter()
    assert not parse("k=y,a1=1")({"metadata": metadata})
    assert parse("k=x")({"metadata": metadata})
    path = ".".join(["a"] * 20)
    assert not parse(path)({"metadata": metadata})
    assert time.perf_counter() - start < 1
