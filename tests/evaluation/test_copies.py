"""Counting copies of training cells."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from celldit.errors import InputError

sys.path.insert(0, str(Path(__file__).parents[2] / "notebooks" / "benchmarks"))
from copies import copies


def cells(n, seed, d=5):
    return np.random.default_rng(seed).normal(size=(n, d))


def test_copies_are_counted_and_new_cells_are_not():
    training = cells(400, 0)
    new = copies(cells(400, 1), training).loc["all"]
    assert new["share_copies"] < 0.05  # 0.01 expected, of 400 cells
    copied = copies(training + 1e-6, training).loc["all"]
    assert copied["share_copies"] == 1
    half = copies(np.vstack([training[:200] + 1e-6, cells(200, 2)]), training).loc["all"]
    assert 0.5 <= half["share_copies"] < 0.53


def test_groups_have_distances_of_their_own():
    training = np.vstack([cells(200, 0), 100 * cells(200, 1)])
    generated = np.vstack([cells(50, 2), 100 * cells(50, 3)])
    groups = np.repeat(["narrow", "wide"], 200)
    table = copies(generated, training, np.repeat(["narrow", "wide"], 50), groups)
    ratio = table["median_distance"] / table["median_among_training"]
    assert (abs(np.log(ratio)) < 0.3).all()
    assert table.loc["wide", "threshold"] > 20 * table.loc["narrow", "threshold"]


def test_a_group_that_vanished_is_listed():
    table = copies(cells(5, 0), cells(20, 1), np.repeat("a", 5), np.repeat(["a", "b"], 10))
    assert table.loc["b", "n_generated"] == 0
    assert np.isnan(table.loc["b", "share_copies"])


def test_a_single_training_cell_has_no_distance():
    row = copies(cells(5, 0), cells(1, 1)).loc["all"]
    assert np.isnan(row["n_copies"])
    assert np.isfinite(row["median_distance"])


def test_shapes_are_checked():
    with pytest.raises(InputError, match="coordinates"):
        copies(cells(5, 0, 3), cells(5, 0, 4))
    with pytest.raises(InputError, match="generated_groups"):
        copies(cells(5, 0), cells(5, 1), np.repeat("a", 4))
