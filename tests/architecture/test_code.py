"""Files and functions stay small, errors are not swallowed, and data is never taken for markup or XML."""

import ast
import re
from collections.abc import Iterator

import pytest
from sources import Source, called, functions, sources

MAXIMUM_FILE_LINES = 450
MAXIMUM_FUNCTION_LINES = 50
# FILE or FILE:FUNCTION -> why it may be longer.
LONGER = {
    "kc_tui/terminal/parser.py:Parser.__init__": "four tables, one line a control or escape sequence",
}
# Where everything may be caught, and why.
BOUNDARIES = {
    "backend/operations/runner.py": "whatever a step raises ends in the journal",
    "kc_tui/gateway.py": "whatever a call raises ends on the screen",
    "kc_tui/console_link.py": "the gateway's part for a console's stream: the same",
    "backend/api/app.py": "whatever a handler raises ends in the log, and tells the client nothing",
    "backend/api/racing.py": "whatever one of several works raises ends the others, and is raised again",
    "backend/auth/links.py": "whatever an authenticator raises, a plugin's too, decides against the request",
    "backend/credentials.py": "a keyring is somebody else's program; what it raises is why nothing is kept",
    "backend/hypervisor/lanes.py": "carries what a call raised from its thread to the caller's",
}
BROAD = {"Exception", "BaseException"}
XML = re.compile(r"<[/?]?[A-Za-z][\w:.-]*[\s/>\0]")


def every(source: Source, kind: type[ast.AST]) -> Iterator[ast.AST]:
    yield from (node for node in ast.walk(source.tree) if isinstance(node, kind))


# --- sizes


def lengths() -> dict[str, int]:
    """Return the lines of every file and function that is longer than its kind may be."""
    files = {source.name: source.text.count("\n") for source in sources()}
    parts = {
        f"{source.name}:{name}": (function.end_lineno or 0) - function.lineno + 1
        for source in sources()
        for name, function in functions(source.tree)
    }
    return {name: n for name, n in files.items() if n > MAXIMUM_FILE_LINES} | {
        name: n for name, n in parts.items() if n > MAXIMUM_FUNCTION_LINES
    }


def test_no_file_or_function_is_longer_than_it_may_be() -> None:
    assert {name: n for name, n in lengths().items() if name not in LONGER} == {}


def test_every_exception_from_the_lengths_is_still_needed() -> None:
    assert set(LONGER) - set(lengths()) == set()


# --- errors


def catches_everything(handler: ast.ExceptHandler) -> bool:
    names = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(name is None or ast.unparse(name) in BROAD for name in names)


def passes_on(handler: ast.ExceptHandler) -> bool:
    """Return whether a handler only cleans up: it ends in a bare `raise`."""
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def test_everything_is_caught_at_the_boundaries_alone() -> None:
    broad = {
        f"{source.name}:{handler.lineno}"
        for source in sources()
        if source.name not in BOUNDARIES
        for handler in every(source, ast.ExceptHandler)
        if catches_everything(handler) and not passes_on(handler)
    }
    suppressed = {
        f"{source.name}:{call.lineno}"
        for source in sources()
        for call in every(source, ast.Call)
        if called(call) == "suppress" and BROAD & {ast.unparse(argument) for argument in call.args}
    }
    assert broad | suppressed == set()


def test_every_boundary_is_still_one() -> None:
    for name in BOUNDARIES:
        source = next(source for source in sources() if source.name == name)
        assert any(catches_everything(handler) for handler in every(source, ast.ExceptHandler)), name


# --- documentation


def public(source: Source) -> Iterator[ast.AST]:
    """Yield the module and what of its classes, functions and methods has a public name in public company."""
    yield source.tree
    waiting: list[ast.AST] = [source.tree]
    while waiting:
        for node in ast.iter_child_nodes(waiting.pop()):
            if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
                continue
            # A property is described once, and overloads by what they are overloads of.
            if not any(ast.unparse(part).endswith(("overload", ".setter")) for part in node.decorator_list):
                yield node
            if isinstance(node, ast.ClassDef):
                waiting.append(node)


def test_everything_public_is_described_by_a_sentence() -> None:
    bare = {
        f"{source.name}: {getattr(node, 'name', 'module')}"
        for source in sources()
        for node in public(source)
        if not (ast.get_docstring(node) or "").split("\n")[0].endswith((".", ":"))
    }
    assert bare == set()


# --- XML


def text_of(node: ast.AST) -> str:
    """Return the text of a string or an f-string, NUL for what is filled in."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) if isinstance(part, ast.Constant) else "\0" for part in node.values)
    return ""


def fills_in(node: ast.AST) -> str:
    """Return the text into which an expression fills values, or an empty one."""
    if isinstance(node, ast.JoinedStr):
        text = text_of(node)
        return text if "\0" in text else ""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod | ast.Add):
        return text_of(node.left) + text_of(node.right)
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("format", "substitute")
    ):
        return text_of(node.func.value)
    return ""


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("f'<name>{x}</name>'", True),
        ("f'<disk type=\"{x}\"/>'", True),
        ("f'<{x}>'", False),
        ("'<name>' + x", True),
        ("'<name>%s</name>' % x", True),
        ("'<a>{}</a>'.format(x)", True),
        ("'<name/>'", False),
        ("f'{a} < {b}'", False),
    ],
)
def test_the_search_for_xml_finds_it(code: str, found: bool) -> None:
    assert bool(XML.search(fills_in(ast.parse(code, mode="eval").body))) is found


def test_no_xml_is_pasted_together_from_text() -> None:
    pasted = {
        f"{source.name}:{node.lineno}"
        for source in sources()
        for node in every(source, ast.expr)
        if XML.search(fills_in(node))
    }
    assert pasted == set()
