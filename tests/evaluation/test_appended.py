"""Studies run what has no rows, and nothing twice (``notebooks/benchmarks/appended.py``)."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "notebooks" / "benchmarks" / "appended.py"
COLUMNS = ["problem", "seed", "start", "error"]
CASES = [{"problem": name, "seed": seed} for seed in (0, 1) for name in ("a, split 1", "b")]


@pytest.fixture
def append() -> Any:
    return runpy.run_path(str(SCRIPT))["append_missing"]


def test_what_has_rows_is_not_run_again(append: Any, tmp_path: Path) -> None:
    out, ran = tmp_path / "t.csv", []

    def run(case: Any) -> Any:
        ran.append((case["problem"], case["seed"]))
        for start in ("fresh", "carried"):
            yield {"start": start, "error": 0.5}

    append(out, COLUMNS, CASES[:3], run)
    append(out, COLUMNS, CASES, run)
    assert ran == [(case["problem"], case["seed"]) for case in CASES]
    table = pd.read_csv(out)
    assert list(table) == COLUMNS
    assert len(table) == 2 * len(CASES) == len(table.drop_duplicates())
    assert b"\r" not in out.read_bytes()


def test_a_case_that_fails_leaves_no_rows(append: Any, tmp_path: Path) -> None:
    out = tmp_path / "t.csv"

    def fail(case: Any) -> Any:
        yield {"start": "fresh", "error": 0.5}
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        append(out, COLUMNS, CASES, fail)
    assert pd.read_csv(out).empty
