from __future__ import annotations

import ast
from pathlib import Path

import pytest

import celldit.flow

FILES = sorted(Path(celldit.flow.__file__).parent.rglob("*.py"))
ALLOWED = {"__future__", "celldit", "collections", "copy", "dataclasses", "itertools", "math"}
ALLOWED |= {"operator", "torch", "typing"}
INSIDE = ("celldit.errors", "celldit.flow", "celldit.nn", "celldit.random")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_flow_is_torch_only(file):
    """At import time; scipy and POT are loaded inside the functions that need them."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    names = set()
    for node in body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    assert {name.split(".")[0] for name in names} <= ALLOWED
    inside = {name for name in names if name.startswith("celldit")}
    assert all(name.startswith(INSIDE) for name in inside)
