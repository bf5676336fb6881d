"""The project's own source files, parsed once for all tests of this folder."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("backend", "kc_tui")


class Source(NamedTuple):
    """A file of the packages: its path below the root, its text and its syntax tree."""

    name: str
    text: str
    tree: ast.Module

    def __str__(self) -> str:
        return self.name

    @property
    def imports(self) -> set[str]:
        """Every module that it imports anywhere, with the names taken from it, as dotted names."""
        found = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        return found

    def imports_any(self, *packages: str) -> set[str]:
        """Return those of the imports that are one of the packages, or in one."""
        return {name for name in self.imports if any(f"{name}.".startswith(f"{package}.") for package in packages)}


@cache
def sources() -> tuple[Source, ...]:
    """Return all Python files of both packages."""
    paths = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    texts = [(path.relative_to(ROOT).as_posix(), path.read_text()) for path in paths]
    return tuple(Source(name, text, ast.parse(text, name)) for name, text in texts)


def functions(tree: ast.AST, inside: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield every function and method with its qualified name."""
    for node in ast.iter_child_nodes(tree):
        name = inside
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            name = f"{inside}.{node.name}".lstrip(".")
            if not isinstance(node, ast.ClassDef):
                yield name, node
        yield from functions(node, name)


def called(call: ast.Call) -> str:
    """Return the last part of the name of what is called."""
    return ast.unparse(call.func).rpartition(".")[2]
