"""Docstrings speak of parameters and attributes that there are."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "celldit"
RULE = re.compile(r"\s*-{3,}\s*")


def entries(docstring: str, section: str) -> list[str]:
    """Names listed in a section of a NumPy docstring."""
    lines = inspect.cleandoc(docstring).split("\n")
    starts = [
        i for i, line in enumerate(lines[:-1]) if line == section and RULE.match(lines[i + 1])
    ]
    found = []
    for line in lines[starts[0] + 2 :] if starts else ():
        if RULE.fullmatch(line):
            found.pop()  # the title of the next section
            break
        if line and not line.startswith(" "):
            found.append(line)
    return [name.strip().lstrip("*") for line in found for name in line.split(" : ")[0].split(",")]


def arguments(function: ast.FunctionDef) -> set[str]:
    own = function.args
    named = [*own.posonlyargs, *own.args, *own.kwonlyargs, *filter(None, (own.vararg, own.kwarg))]
    return {argument.arg for argument in named}


def members(cls: ast.ClassDef) -> set[str]:
    """Fields, methods, arguments of the constructor, and what methods set on themselves."""
    found = set()
    for node in ast.walk(cls):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.FunctionDef):
            found |= {node.name} | (arguments(node) if node.name == "__init__" else set())
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
    return found


def unknown(source: str) -> Iterator[str]:
    """Names that docstrings of a file list and its code has not."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        docstring = ast.get_docstring(node) or ""
        if isinstance(node, ast.FunctionDef):
            listed, there = entries(docstring, "Parameters"), arguments(node)
        elif node.bases:
            continue  # what it inherits stands in another file
        else:
            listed = entries(docstring, "Attributes") + entries(docstring, "Parameters")
            there = members(node)
        yield from (f"{node.name} (line {node.lineno}): {name}" for name in {*listed} - there)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.stem)
def test_what_a_docstring_lists_is_there(path: Path) -> None:
    assert not list(unknown(path.read_text(encoding="utf-8")))


def test_a_name_that_was_changed_is_noticed() -> None:
    source = (
        'def f(new):\n    """One.\n\n    Parameters\n    ----------\n    old\n        x.\n    """'
    )
    assert list(unknown(source)) == ["f (line 1): old"]
    assert not list(unknown(source.replace("old", "new")))
