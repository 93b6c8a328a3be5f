"""The shortcuts of the posterior are the textbook's formulas."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from celldit.effects.posterior import Observed


@dataclass(frozen=True)
class Design:
    """C observed and Q asked conditions with one joint covariance."""

    observed: Observed
    across_QC: np.ndarray
    totals_Q: np.ndarray
    variances_Q: np.ndarray
    further: tuple[np.ndarray | None, ...]

    def dense(self, keep: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance in dimension k from the observed conditions in `keep`, written out."""
        o = self.observed
        a, signal, common = o.totals_C, o.signal_F[k], o.common_F[k]
        total = signal * o.kernel_CC + common * np.outer(a, a) + np.diag(o.noise_C)
        across = signal * self.across_QC + common * np.outer(self.totals_Q, a)
        variance = signal * self.variances_Q + common * self.totals_Q**2
        for own_CF, asked_QF in zip(o.further, self.further, strict=True):
            total = total + np.outer(own_CF[:, k], own_CF[:, k])
            if asked_QF is not None:
                across = across + np.outer(asked_QF[:, k], own_CF[:, k])
                variance = variance + asked_QF[:, k] ** 2
        weights = np.linalg.solve(total[np.ix_(keep, keep)], across[:, keep].T).T
        mean = weights @ o.shifts_CF[keep, k]
        return mean, variance - (weights * across[:, keep]).sum(1)


def design(
    seed: int, n_observed: int = 6, n_asked: int = 6, n_dims: int = 4, n_further: int = 3
) -> Design:
    """Every asked condition is an observed one, or unlike it, in random covariance."""
    rng = np.random.default_rng(seed)
    n = n_observed + n_asked
    root = rng.normal(size=(n, n + 2))
    joint, totals = root @ root.T / n, rng.integers(0, 3, n).astype(float)
    common = rng.gamma(1, 1, n_dims) * rng.integers(0, 2, n_dims)
    seen, asked = slice(n_observed), slice(n_observed, None)
    observed = Observed(
        rng.normal(size=(n_observed, n_dims)),
        rng.gamma(2, 0.1, n_observed),
        totals[seen],
        joint[seen, seen],
        rng.gamma(1, 1, n_dims),
        common,
        tuple(rng.normal(size=(n_observed, n_dims)) for _ in range(n_further)),
    )
    # What is asked has no part in one of the columns.
    further = tuple(
        None if r == 1 else rng.normal(size=(n_asked, n_dims)) for r in range(n_further)
    )
    return Design(observed, joint[asked, seen], totals[asked], np.diag(joint)[asked], further)


@given(st.integers(0, 10_000), st.integers(0, 3))
def test_predictions(seed: int, n_further: int) -> None:
    made = design(seed, n_further=n_further)
    asked = made.across_QC, made.totals_Q, made.variances_Q, made.further
    mean, variance = made.observed.predict(*asked)
    for k in range(4):
        expected = made.dense(np.arange(6), k)
        np.testing.assert_allclose(mean[:, k], expected[0], atol=1e-8)
        np.testing.assert_allclose(variance[:, k], expected[1], atol=1e-8)


@given(st.integers(0, 10_000), st.integers(0, 3))
def test_predictions_without_one_observed_condition_each(seed: int, n_further: int) -> None:
    made = design(seed, n_further=n_further)
    rows = np.random.default_rng(seed).integers(0, 6, 6)
    mean, variance = made.observed.predict_without(
        made.across_QC, made.totals_Q, made.variances_Q, rows, made.further
    )
    for q, row in enumerate(rows):
        for k in range(4):
            expected = made.dense(np.delete(np.arange(6), row), k)
            np.testing.assert_allclose(mean[q, k], expected[0][q], atol=1e-8)
            np.testing.assert_allclose(variance[q, k], expected[1][q], atol=1e-8)


def test_leaving_one_out_is_asking_for_an_observed_condition_without_itself() -> None:
    observed = design(3).observed
    own = observed.kernel_CC, observed.totals_C, np.diag(observed.kernel_CC)
    for one, two in zip(
        observed.leave_one_out(),
        observed.predict_without(*own, np.arange(6), observed.further),
        strict=True,
    ):
        np.testing.assert_allclose(one, two, atol=1e-9)


def test_what_all_share_is_pooled_only_where_it_varies() -> None:
    """Many noisy looks at one effect: its mean in one dimension, nothing in the other."""
    rng = np.random.default_rng(0)
    shifts = 5 + rng.normal(size=(40, 2))
    observed = Observed(
        shifts, np.ones(40), np.ones(40), np.eye(40), np.full(2, 1e-6), np.array([100.0, 0.0])
    )
    mean, _ = observed.predict(np.zeros((1, 40)), np.ones(1), np.ones(1))
    assert mean[0, 0] == pytest.approx(shifts[:, 0].mean(), rel=0.01)
    assert mean[0, 1] == 0


@given(st.integers(0, 10_000))
def test_likelihoods_are_those_of_the_normal_distribution(seed: int) -> None:
    made = design(seed).observed
    signals, commons = (0.0, 0.3, 2.0), (0.5, 0.0, 1.5)
    found_LF = made.log_likelihoods(signals, commons)
    for row_F, signal, common in zip(found_LF, signals, commons, strict=True):
        total = signal * made.kernel_CC + common * np.outer(made.totals_C, made.totals_C)
        density = multivariate_normal(cov=total + np.diag(made.noise_C))
        constant = multivariate_normal(cov=np.diag(made.noise_C)).logpdf(np.zeros(6))
        np.testing.assert_allclose(
            row_F, density.logpdf(made.shifts_CF.T) - constant, rtol=1e-6, atol=1e-6
        )


def test_other_dimensions_share_the_decomposition() -> None:
    made, other = design(1, n_further=0), design(2, n_further=0).observed
    moved = made.observed.with_shifts(other.shifts_CF, other.signal_F, other.common_F)
    anew = replace(made.observed, **{k: getattr(moved, k) for k in ("shifts_CF", "signal_F")})
    anew = replace(anew, common_F=other.common_F)
    asked = made.across_QC, made.totals_Q
    np.testing.assert_allclose(moved.mean(*asked), anew.mean(*asked), rtol=1e-9)
    np.testing.assert_array_equal(moved.mean(*asked), moved.predict(*asked, made.variances_Q)[0])
