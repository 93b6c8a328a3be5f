"""What a study makes of scores that do not vary (``notebooks/benchmarks/escapers.py``)."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[2] / "notebooks" / "benchmarks"))
from escapers import spread_ratio

TABLE = Path(__file__).parents[2] / "docs" / "results" / "escapers.csv"


def test_there_is_no_ratio_to_a_spread_of_rounding_errors() -> None:
    scores = np.random.default_rng(0).normal(size=100)
    assert spread_ratio(3 * scores, scores) == 3
    # One value added up in another order in each cell.
    alike = 0.3 + np.array([0.0, 1e-16, -2e-16, 5e-17])
    assert np.isnan(spread_ratio(scores, alike))
    assert spread_ratio(alike, scores) < 1e-6


def test_the_committed_table_holds_no_such_ratio() -> None:
    table = pd.read_csv(TABLE)
    assert table["score_sd"].max() < 100
    assert table["score_sd"].isna().sum() <= 3
