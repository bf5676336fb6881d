"""`[[auth.grants]]`: what subjects and groups may do, where the authenticator said who it is and no more.

    [[auth.grants]]
    group = "operators"                 subject = "…", or group = "…", or neither: whoever is authenticated
    actions = ["vm.*", "image.read"]    KIND.VERB, KIND.*, or *
    selector = "owner={subject}"        which objects; left out: all

`{subject}` stands for the subject's name as one quoted value. It is put in where the selector has been read already,
so that no name can add a term to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from backend.auth.protocol import Scope
from backend.auth.tables import Table
from backend.errors import RefusedError
from backend.model.actions import PATTERNS, check_selector
from backend.model.actions import find_fault as find_action_fault
from backend.model.selectors import Selector, Term, Word, parse
from backend.text import sanitise

PLACEHOLDER: Final = "{subject}"
_SELF = Word(PLACEHOLDER)
_EXACT_OPERATORS = ("=", "!=", "in", "notin")


class Grant(NamedTuple):
    """One table: to whom (both empty: to everybody), which actions, on what."""

    subject: str
    group: str
    actions: tuple[str, ...]
    terms: tuple[Term, ...]

    def is_for(self, subject: str, groups: Sequence[str]) -> bool:
        """Return whether it is somebody's."""
        if self.subject:
            return self.subject == subject
        return not self.group or self.group in groups

    def scope_for(self, subject: str) -> Scope:
        """Return what it gives to a subject."""
        return Scope(self.actions, str(Selector(tuple(_fill(term, subject) for term in self.terms))))


class Grants(NamedTuple):
    """All grants, in the order of the file."""

    items: tuple[Grant, ...] = ()

    def scopes_for(self, subject: str, groups: Sequence[str]) -> tuple[Scope, ...]:
        """Return what a subject may do; nothing where no grant is theirs."""
        return tuple(dict.fromkeys(item.scope_for(subject) for item in self.items if item.is_for(subject, groups)))


NO_GRANTS: Final = Grants()


def read_grants(tables: Sequence[Mapping[str, Any]], where: str) -> Grants:
    """Return the grants that the settings say; raise RefusedError naming `where` and the key."""
    return Grants(tuple(_read(Table(table, f"{where}[{index}]")) for index, table in enumerate(tables, 1)))


@lru_cache(maxsize=1024)
def find_fault(scope: Scope) -> str:
    """Return what is wrong with a scope that somebody else made, empty where it is sound."""
    if not PATTERNS.issuperset(scope.actions):
        return "it names an action that KC does not know"
    try:
        check_selector(scope.selector)
    except RefusedError as error:
        return f"selector: {error.why}"
    return ""


def _read(table: Table) -> Grant:
    table.check_keys({"subject", "group", "actions", "selector"})
    subject, group = table.text("subject"), table.text("group")
    for key in ("subject", "group"):
        # An empty name would be a grant to everybody, which nobody means who writes it.
        if key in table.values and not table.values[key]:
            raise table.refuse(key, "is empty", f"name the {key}, or leave it out to mean everybody")
    if subject and group:
        raise table.refuse("group", "stands beside a subject", "write one table for each")
    actions = table.texts("actions")
    if not actions:
        raise table.refuse("actions", "is missing", 'write it as actions = ["vm.read"]')
    for action in actions:
        if fault := find_action_fault(action):
            raise table.refuse("actions", f"are wrong: {sanitise(fault, 300)}", "write KIND.VERB, KIND.* or *")
    return Grant(subject, group, actions, _read_terms(table))


def _read_terms(table: Table) -> tuple[Term, ...]:
    try:
        check_selector(table.text("selector"))
        terms = parse(table.text("selector")).terms
    except RefusedError as error:
        raise table.refuse("selector", f"is none: {error.why}", error.hint) from error
    for term in terms:
        if any(PLACEHOLDER in word.text for word in term.path):
            raise table.refuse("selector", f"has {PLACEHOLDER} in a key", "use it as a value")
        for word in term.values:
            if PLACEHOLDER in word.text and (word != _SELF or term.operator not in _EXACT_OPERATORS):
                why = f"has {PLACEHOLDER} as a part of a value, or with {term.operator}"
                raise table.refuse("selector", why, f"write it as KEY={PLACEHOLDER}, without quotes")
    return terms


def _fill(term: Term, subject: str) -> Term:
    if _SELF not in term.values:
        return term
    name = Word(subject, quoted=True)
    return term._replace(values=tuple(name if value == _SELF else value for value in term.values))
