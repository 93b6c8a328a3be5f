from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from celldit.evaluation.metrics import (
    DifferentialExpression,
    de_direction,
    de_overlap,
    differential_expression,
    lfc_error,
)


def result(lfc: list[float], q: list[float]) -> DifferentialExpression:
    return DifferentialExpression(np.array(lfc), np.array(q), np.array(q))


@given(st.integers(0, 2**32 - 1), st.integers(3, 30), st.integers(3, 30))
@settings(deadline=None, max_examples=20)
def test_p_values_are_those_of_scipy(seed: int, n: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    # Counts, so that there are ties, and one gene that is constant.
    x = np.log1p(rng.poisson([0.3, 1.0, 3.0, 0.0], size=(n, 4)))
    y = np.log1p(rng.poisson([0.3, 2.0, 3.5, 0.0], size=(k, 4)))
    found = differential_expression(x, y)
    with np.errstate(invalid="ignore", divide="ignore"):
        expected = stats.mannwhitneyu(
            x, y, axis=0, method="asymptotic", use_continuity=False
        ).pvalue
    tested = np.expm1(y).mean(axis=0) > 0.05
    np.testing.assert_allclose(
        found.p_value[tested], np.nan_to_num(expected[tested], nan=1.0), atol=1e-10
    )
    q = stats.false_discovery_control(found.p_value[tested])
    np.testing.assert_allclose(found.q_value[tested], q)
    # What no control cell shows is not tested, and never called.
    assert np.isnan(found.p_value[~tested]).all()
    assert np.isnan(found.q_value[3])
    assert found.log2_fold_change[3] == 0.0


def test_fold_changes_are_ratios_of_means() -> None:
    x = np.log1p(np.array([[2.0], [10.0], [0.0], [12.0]]))
    y = np.log1p(np.array([[1.0], [2.0], [1.5], [3.0], [0.0]]))
    assert differential_expression(x, y).log2_fold_change[0] == pytest.approx(2.0)


def test_a_gene_below_zero_counts_as_absent() -> None:
    x, y = np.full((4, 1), -0.5), np.log1p(np.ones((4, 1)))
    assert -40 < differential_expression(x, y).log2_fold_change[0] < -20


def test_overlap_direction_and_error_by_hand() -> None:
    true = result([3.0, -2.0, 1.0, 5.0], [0.01, 0.01, 0.01, 0.9])
    found = result([2.0, 0.5, 4.0, 9.0], [0.01, 0.9, 0.01, 0.01])
    # The three largest significant predictions are genes 3, 2 and 0.
    assert de_overlap(found, true) == pytest.approx(2 / 3)
    assert de_direction(found, true) == pytest.approx(2 / 3)
    assert lfc_error(found, true) == pytest.approx((1.0 + 2.5 + 3.0) / 3)
    assert de_overlap(true, true) == 1.0


def test_without_true_genes_nothing_is_defined() -> None:
    none = result([1.0], [0.5])
    assert np.isnan([de_overlap(none, none), de_direction(none, none), lfc_error(none, none)]).all()


def test_absence_is_a_bounded_error() -> None:
    true, absent = result([1.0], [0.01]), result([-30.0], [0.01])
    assert lfc_error(absent, true) == pytest.approx(11.0)


def test_many_genes_take_no_more_memory_than_some() -> None:
    rng = np.random.default_rng(0)
    x, y = (np.log1p(rng.poisson(1.0, (30, 2300))).astype(np.float32) for _ in range(2))
    tracemalloc.start()
    found = differential_expression(x, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The ranks of all genes together would take more than ten times the cells.
    assert peak < 6 * (x.nbytes + y.nbytes)
    few = differential_expression(x[:, 490:510], y[:, 490:510])
    assert np.array_equal(found.p_value[490:510], few.p_value)
    assert np.array_equal(found.log2_fold_change[490:510], few.log2_fold_change)
