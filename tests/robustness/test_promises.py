"""Every promise in docs/promises.md names tests, and the tests exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_tests_of_all_promises_exist() -> None:
    text = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    promises = [row for row in rows if not row.startswith("| promise |")]
    assert len(promises) > 20
    for row in promises:
        assert re.search(r"`tests/\S+::\w+`", row), f"a promise without a test: {row}"
    for file, name in re.findall(r"`(tests/\S+?)::(\w+)`", text):
        path = ROOT / file
        assert path.is_file(), file
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert name in {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}, (
            f"{file} {name}"
        )
