from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr
from sklearn.metrics.pairwise import cosine_similarity

from celldit.evaluation.metrics import (
    cosine_shift,
    largest,
    normalized_squared_error,
    pearson_shift,
)

seeds = st.integers(0, 2**32 - 1)


@given(seeds)
@settings(deadline=None, max_examples=25)
def test_values_are_those_of_scipy_and_sklearn(seed: int) -> None:
    u, v = np.random.default_rng(seed).normal(size=(2, 40))
    assert pearson_shift(u, v) == pytest.approx(pearsonr(u, v).statistic, abs=1e-9)
    assert cosine_shift(u, v) == pytest.approx(cosine_similarity([u], [v])[0, 0], abs=1e-9)
    assert normalized_squared_error(u, v) == pytest.approx(np.sum((u - v) ** 2) / np.sum(v**2))


@given(seeds, st.floats(0.01, 100))
@settings(deadline=None, max_examples=25)
def test_direction_ignores_size_and_error_does_not(seed: int, scale: float) -> None:
    v = np.random.default_rng(seed).normal(size=30)
    assert pearson_shift(scale * v, v) == pytest.approx(1.0)
    assert cosine_shift(-scale * v, v) == pytest.approx(-1.0)
    assert normalized_squared_error(scale * v, v) == pytest.approx((scale - 1) ** 2, abs=1e-9)


def test_no_change_scores_zero_and_one() -> None:
    v = np.random.default_rng(0).normal(size=30)
    assert pearson_shift(np.zeros(30), v) == 0.0
    assert pearson_shift(np.full(30, 0.1), v) == 0.0
    assert cosine_shift(np.zeros(30), v) == 0.0
    assert normalized_squared_error(np.zeros(30), v) == 1.0


def test_undefined_is_nan() -> None:
    v = np.ones(3)
    none = np.array([], dtype=int)
    assert np.isnan(pearson_shift(v, v, none))
    assert np.isnan(cosine_shift(none, none))
    assert np.isnan(normalized_squared_error(v, np.zeros(3)))


def test_largest_takes_absolute_values_and_breaks_ties_by_order() -> None:
    v = np.array([1.0, -3.0, 3.0, 0.0, 2.0])
    assert largest(v, 3).tolist() == [1, 2, 4]
    assert pearson_shift(v, v[::-1], largest(v, 5)) == pearson_shift(v, v[::-1])
