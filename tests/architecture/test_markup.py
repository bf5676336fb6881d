"""Data reaches Textual as `Content`, or with `markup=False`: `[@click=…]` in a VM's name is an action otherwise."""

import ast

import pytest
from sources import Source, called, sources

SHOWING = {"Static", "Label"}
# Attributes whose text Textual takes for markup.
MARKED_UP = {"border_title", "border_subtitle", "tooltip"}


class Contents:
    """What of a module is known to be `Content`: by its call, or by the name that it was given."""

    def __init__(self, tree: ast.AST, makers: frozenset[str] = frozenset()) -> None:
        self._makers = makers
        self._names: set[str] = set()
        for node in ast.walk(tree):
            targets, value = [], None
            if isinstance(node, ast.Assign):
                targets, value = node.targets, node.value
            elif isinstance(node, ast.AnnAssign):
                targets, value = [node.target], node.value
                if "Content" in ast.unparse(node.annotation):
                    self._names.add(ast.unparse(node.target))
            if value is not None and self.has(value):
                self._names |= {ast.unparse(target) for target in targets}

    def has(self, node: ast.AST) -> bool:
        if isinstance(node, ast.Constant):
            return node.value is None or node.value == ""
        if isinstance(node, ast.IfExp):
            decided = ast.unparse(node.test).startswith(f"isinstance({ast.unparse(node.body)}, Content)")
            return (decided or self.has(node.body)) and self.has(node.orelse)
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            return (name.startswith("Content") and name != "Content.from_markup") or called(node) in self._makers
        return ast.unparse(node) in self._names


def makers() -> frozenset[str]:
    """Return the names of the project's functions that are annotated to return `Content`."""
    return frozenset(
        node.name
        for source in sources()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef) and node.returns and ast.unparse(node.returns) == "Content"
    )


def is_plain(call: ast.Call) -> bool:
    return any(
        word.arg == "markup" and isinstance(word.value, ast.Constant) and word.value.value is False
        for word in call.keywords
    )


def plain_by_themselves(all_sources: tuple[Source, ...]) -> set[str]:
    """Return the widgets of ours that tell their base class to take text as it is."""
    return {
        node.name
        for source in all_sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef) and {ast.unparse(base) for base in node.bases} & SHOWING
        if any(isinstance(call, ast.Call) and called(call) == "__init__" and is_plain(call) for call in ast.walk(node))
    }


def violations(tree: ast.AST, known: frozenset[str] = frozenset()) -> list[int]:
    """Return the lines of a module where text that is not written there may be taken for markup."""
    contents, lines = Contents(tree, known), []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = called(node)
            if name in SHOWING and not is_plain(node):
                first = node.args[0] if node.args else None
                safe = first is not None and contents.has(first)
            elif name == "notify":
                safe = is_plain(node) or (bool(node.args) and isinstance(node.args[0], ast.Constant))
            else:
                safe = name not in ("from_markup", "Text.from_markup")
            if not safe:
                lines.append(node.lineno)
        elif isinstance(node, ast.Assign):
            titled = any(isinstance(target, ast.Attribute) and target.attr in MARKED_UP for target in node.targets)
            if titled and not contents.has(node.value):
                lines.append(node.lineno)
    return lines


@pytest.mark.parametrize(
    ("code", "safe"),
    [
        ("Static(name)", False),
        ("Static('a title')", False),
        ("Static(f'{name}')", False),
        ("Static(name, markup=True)", False),
        ("Static()", False),
        ("Static(Content.from_markup(name))", False),
        ("Static(name, markup=False)", True),
        ("Static(Content(name))", True),
        ("Label(Content.styled(name, '$muted'))", True),
        ("line = Content(name)\nStatic(line)", True),
        ("line: Content = draw()\nStatic(line)", True),
        ("Static(draw_lines(x))", True),
        ("self.notify(name)", False),
        ("self.notify('done')", True),
        ("self.notify(name, markup=False)", True),
        ("panel.border_title = name", False),
        ("panel.border_title = Content(name)", True),
        ("panel.border_title = Content(name) if name else None", True),
        ("widget.tooltip = f'{name}'", False),
    ],
)
def test_the_search_for_markup_finds_it(code: str, safe: bool) -> None:
    assert (violations(ast.parse(code), frozenset({"draw_lines"})) == []) is safe


def test_no_data_can_become_markup() -> None:
    known = makers()
    found = [
        f"{source.name}:{line}"
        for source in sources()
        if source.name.startswith("kc_tui/")
        for line in violations(source.tree, known)
    ]
    assert found == []


def test_widgets_that_show_text_take_it_as_it_is() -> None:
    ours = {
        node.name
        for source in sources()
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef) and {ast.unparse(base) for base in node.bases} & SHOWING
    }
    assert ours - plain_by_themselves(sources()) == set()
