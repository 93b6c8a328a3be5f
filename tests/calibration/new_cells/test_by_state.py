"""What genes do in one state and not in others."""

from __future__ import annotations

import numpy as np
import pytest

from celldit.calibration.new_cells.by_state import MOST_LOG_FACTOR, Moments, towards


def draw(
    rng: np.random.Generator, rate: np.ndarray, theta: np.ndarray, row_N: np.ndarray
) -> np.ndarray:
    """Counts of one gene at 10,000 per cell, rate and inverse dispersion by state."""
    noise = rng.gamma(theta[row_N], 1 / theta[row_N])
    return rng.poisson(rate[row_N] * noise)[:, None].astype(np.float32)


def test_moments_are_those_of_log_expression() -> None:
    rng = np.random.default_rng(0)
    counts, row = rng.poisson(2.0, (50, 3)).astype(np.float32), rng.integers(0, 2, 50)
    size = rng.uniform(5e3, 2e4, 50)
    log = np.log1p(1e4 * counts / size[:, None])
    found = Moments.of(counts, size, row, 3)
    np.testing.assert_allclose(found.mean_XG[1], log[row == 1].mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.variance_XG[1], log[row == 1].var(0), rtol=1e-4)
    assert np.array_equal(found.present_XG[0], (counts[row == 0] > 0).sum(0))
    np.testing.assert_allclose(found.mean_G, log.mean(0), rtol=1e-5)
    assert not found.mean_XG[2].any()


def test_each_state_finds_its_mean_and_its_dispersion() -> None:
    rng = np.random.default_rng(1)
    row, size = np.repeat([0, 1, 2], [600, 600, 4]), np.full(1204, 1e4)
    rate, theta = np.array([40.0, 40.0, 40.0]), np.array([2.0, 2.0, 2.0])
    true_rate, true_theta = np.array([60.0, 25.0, 80.0]), np.array([10.0, 0.6, 2.0])
    measured = Moments.of(draw(rng, true_rate, true_theta, row), size, row, 3)
    offset_XG, log_factor_XG = np.zeros((2, 3, 1))
    for round_ in range(12):
        now = rate * np.exp(offset_XG[:, 0]), theta * np.exp(log_factor_XG[:, 0])
        drawn = Moments.of(draw(rng, *now, row), size, row, 3)
        step = 0.7 * min(1, 3 / max(round_, 1))
        offset_XG, log_factor_XG = towards(offset_XG, log_factor_XG, measured, drawn, step)
    assert now[1][0] == pytest.approx(10, rel=0.4)
    assert now[1][1] == pytest.approx(0.6, rel=0.4)
    # What is common to the states is not theirs to follow.
    assert np.log(now[0][0] / now[0][1]) == pytest.approx(np.log(60 / 25), abs=0.2)
    # Four cells hardly say that their state differs.
    assert abs(log_factor_XG[2, 0]) < 0.5
    assert abs(offset_XG).max() < 1
    assert abs(log_factor_XG).max() <= MOST_LOG_FACTOR
