"""What scopes allow: pure functions on actions, selectors and documents, for single objects and for whole lists.

A pattern is an action (`vm.start`), all of a kind (`vm.*`) or everything (`*`). Whoever may do anything to an object
may read it: each action of a kind includes the kind's `read`. A selector sees what is written of an object, never its
status: a right does not come and go with what a host says. A scope that cannot be understood allows nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from backend.errors import RefusedError
from backend.model.actions import find_fault
from backend.model.selector_terms import Term, split_root
from backend.model.selectors import Selector, parse
from backend.text import sanitise

if TYPE_CHECKING:
    from backend.auth.protocol import Scope
    from backend.model.documents import Document

_POSITIVE: Final = ("=", "in")
_NEGATIVE: Final = ("!=", "notin")


def permits(scopes: Iterable[Scope], action: str, document: Document) -> bool:
    """Return whether some scope allows an action on a document.

    Of a document without a `spec` only its head and metadata are known: no selector that speaks of the spec takes it.
    """
    return any(matches(scope.actions, action) and _takes(scope.selector, document) for scope in scopes)


def may_some(scopes: Iterable[Scope], action: str) -> bool:
    """Return whether some scope allows an action on any object at all."""
    return any(matches(scope.actions, action) and _compile(scope.selector) is not None for scope in scopes)


def restriction(scopes: Iterable[Scope], action: str) -> list[str] | None:
    """Return the selectors of the objects that an action is allowed on; None: on all, an empty list: on none.

    One that another one includes is left out.
    """
    found = [scope.selector for scope in scopes if matches(scope.actions, action)]
    compiled = [selector for selector in map(_compile, dict.fromkeys(found)) if selector is not None]
    if any(not selector.terms for selector in compiled):
        return None
    kept: list[Selector] = []
    for selector in compiled:
        if any(_includes(other, selector) for other in kept):
            continue
        kept = [other for other in kept if not _includes(selector, other)]
        kept.append(selector)
    return [str(selector) for selector in kept]


def covers(scopes: Sequence[Scope], wanted: Iterable[Scope]) -> bool:
    """Return whether all that `wanted` allows is allowed by `scopes` too.

    Each wanted pattern must be within one pattern of ours whose selector takes at least as much; so a `True` is
    certain, while rights that only several scopes together have are not found.
    """
    return all(_is_covered(scopes, pattern, scope.selector) for scope in wanted for pattern in scope.actions)


def check_scope(scope: Scope) -> None:
    """Raise RefusedError for a scope that would allow nothing: an unknown action, a bad selector, one on a status."""
    for pattern in scope.actions:
        fault = find_fault(pattern)
        if fault:
            raise RefusedError("scope", sanitise(fault, 400), "write KIND.VERB, KIND.* or *")
    if any(term.speaks_of("status") for term in parse(scope.selector).terms):
        raise RefusedError("scope", "its selector asks for a status, which is observed", "use metadata, spec or name")


def matches(patterns: Iterable[str], action: str) -> bool:
    """Return whether a pattern allows an action, on whatever object."""
    return any(_contains(pattern, action) for pattern in patterns)


def _contains(pattern: str, wanted: str) -> bool:
    """Return whether a pattern includes an action, or all of another pattern."""
    if pattern in ("*", wanted):
        return True
    kind, _, verb = wanted.partition(".")
    return pattern == f"{kind}.*" or (verb == "read" and pattern.startswith(f"{kind}."))


@lru_cache(maxsize=1024)
def _compile(text: str) -> Selector | None:
    """Return a scope's selector; None for one that is not to be understood."""
    try:
        selector = parse(text)
    except RefusedError:
        return None
    return None if any(term.speaks_of("status") for term in selector.terms) else selector


@lru_cache(maxsize=1024)
def asks_spec(text: str) -> bool:
    """Return whether a scope's selector speaks of an object's spec."""
    selector = _compile(text)
    return selector is not None and any(term.speaks_of("spec") for term in selector.terms)


def _takes(text: str, document: Document) -> bool:
    selector = _compile(text)
    if selector is None or ("spec" not in document and asks_spec(text)):
        return False
    return selector.holds(document)


def _is_covered(scopes: Sequence[Scope], pattern: str, text: str) -> bool:
    wanted = _compile(text)
    if wanted is None:
        return True  # it allows nothing
    return any(
        (ours := _compile(scope.selector)) is not None and matches(scope.actions, pattern) and _includes(ours, wanted)
        for scope in scopes
    )


def _includes(wide: Selector, narrow: Selector) -> bool:
    """Return whether every object that `narrow` takes is taken by `wide`, as far as the terms tell."""
    return all(any(_follows(term, other) for other in narrow.terms) for term in wide.terms)


def _follows(term: Term, given: Term) -> bool:
    """Return whether a term holds wherever another one does."""
    if term == given:
        return True
    if split_root(term.path) != split_root(given.path):
        return False
    if term.operator in _POSITIVE and given.operator in _POSITIVE:
        return set(given.values) <= set(term.values)
    if term.operator in _NEGATIVE and given.operator in _NEGATIVE:
        return set(term.values) <= set(given.values)
    return (term.operator, term.values) == (given.operator, given.values)
