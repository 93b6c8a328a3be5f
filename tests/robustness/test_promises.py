"""Every promise in docs/promises.md names tests, and the tests exist."""

from __future__ import annotations

import ast
import csv
import re
import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_tests_of_all_promises_exist() -> None:
    text = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
    # What follows "Measured" is a table of runs.
    tables = text.partition("## Measured")[0].splitlines()
    rows = [line for line in tables if line.startswith("| ") and "---" not in line]
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


def test_the_fuzzing_that_is_quoted_is_that_of_the_table() -> None:
    script = runpy.run_path(str(ROOT / "tests" / "tools" / "fuzz.py"))
    text = (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
    with (ROOT / "docs" / "results" / "fuzz.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["kind"]: int(row["n"]) for row in rows} == {
        "anndata": script["N_ANNDATA"],
        **script["FILES"],
    }
    for row in rows:
        assert script["quoted"](row) in text
        assert int(row["foreign"]) == 0
        assert float(row["longest_s"]) < 5
        assert float(row["peak_mb"]) < 1000


def test_the_lines_that_the_mutation_check_breaks_are_there() -> None:
    """It runs before a release only, and must not then turn out to be out of date."""
    mutations = runpy.run_path(str(ROOT / "tests" / "tools" / "mutation.py"))["MUTATIONS"]
    assert len(mutations) == 10
    for mutation in mutations:
        whole = (ROOT / "celldit" / mutation.file).read_text(encoding="utf-8")
        assert whole.count(mutation.old) == 1, f"{mutation.file}: {mutation.old}"
        assert (ROOT / "tests" / mutation.tests).is_file(), mutation.tests
