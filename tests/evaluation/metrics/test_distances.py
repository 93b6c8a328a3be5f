from __future__ import annotations

import tracemalloc

import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.special import erf
from sklearn.metrics.pairwise import rbf_kernel

from celldit.errors import InputError
from celldit.evaluation.metrics import (
    energy_distance,
    median_distance,
    mmd,
    sliced_wasserstein,
    wasserstein,
)
from celldit.evaluation.metrics.distances import mean_over_pairs, projections

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(2, 40)


def brute_energy(x: np.ndarray, y: np.ndarray) -> float:
    n, m = len(x), len(y)
    within = cdist(x, x).sum() / (n * (n - 1)) + cdist(y, y).sum() / (m * (m - 1))
    return float(2 * cdist(x, y).mean() - within)


def brute_mmd(x: np.ndarray, y: np.ndarray, widths: list[float]) -> float:
    n, m = len(x), len(y)
    total = 0.0
    for width in widths:
        gamma = 0.5 / width**2
        within = (rbf_kernel(x, gamma=gamma).sum() - n) / (n * (n - 1))
        within += (rbf_kernel(y, gamma=gamma).sum() - m) / (m * (m - 1))
        total += within - 2 * rbf_kernel(x, y, gamma=gamma).mean()
    return total / len(widths)


@given(seeds, sizes, sizes)
@settings(deadline=None, max_examples=25)
def test_energy_equals_brute_force(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, 5)), rng.normal(size=(m, 5)) + 1
    assert energy_distance(x, y) == pytest.approx(brute_energy(x, y), abs=1e-9)
    assert energy_distance(x, y) == pytest.approx(energy_distance(y, x), abs=1e-9)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_energy_in_float32_keeps_six_digits_far_from_the_origin(offset: float) -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(700, 50)) + offset).astype(np.float32)
    y = (rng.normal(size=(600, 50)) + offset + 0.1).astype(np.float32)
    assert energy_distance(x, y) == pytest.approx(brute_energy(x, y), abs=1e-6)


@pytest.mark.parametrize("n_copies", [1, 3, 300])
def test_energy_in_float32_survives_identical_cells(n_copies: int) -> None:
    rng = np.random.default_rng(0)
    x = np.repeat(10 * rng.normal(size=(900 // n_copies, 20)), n_copies, axis=0)
    x, y = x.astype(np.float32), (10 * rng.normal(size=(200, 20))).astype(np.float32)
    assert energy_distance(x, y) == pytest.approx(brute_energy(x, y), abs=3e-5)


def test_energy_of_two_gaussians_has_its_closed_form() -> None:
    rng = np.random.default_rng(1)
    d = 1.5
    x, y = rng.normal(size=(3000, 1)), rng.normal(size=(3000, 1)) + d
    between = 2 / np.sqrt(np.pi) * np.exp(-(d**2) / 4) + d * erf(d / 2)
    expected = 2 * between - 4 / np.sqrt(np.pi)
    assert energy_distance(x, y) == pytest.approx(expected, abs=0.08)


def test_energy_and_mmd_are_unbiased() -> None:
    rng = np.random.default_rng(2)
    draws = rng.normal(size=(300, 2, 15, 4))
    energies = np.array([energy_distance(x, y) for x, y in draws])
    mmds = np.array([mmd(x, y, bandwidth=2.0) for x, y in draws])
    for values in (energies, mmds):
        assert abs(values.mean()) < 4 * values.std() / np.sqrt(len(values))
        assert values.min() < 0 < values.max()


@given(seeds, sizes, sizes)
@settings(deadline=None, max_examples=15)
def test_mmd_equals_sklearn_kernels(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, 5)), rng.normal(size=(m, 5)) + 1
    median = float(np.median(cdist(y, y)[np.triu_indices(m, k=1)]))
    assert median_distance(y) == pytest.approx(median)
    widths = [f * median for f in (0.25, 0.5, 1, 2, 4)]
    assert mmd(x, y) == pytest.approx(brute_mmd(x, y, widths), abs=1e-9)
    odd = mmd(x, y, bandwidth=1.3)
    assert odd == pytest.approx(brute_mmd(x, y, [1.3 * w / median for w in widths]), abs=1e-9)


def test_mmd_refuses_a_bandwidth_of_zero() -> None:
    with pytest.raises(InputError, match="bandwidth"):
        mmd(np.ones((3, 2)), np.ones((3, 2)))


@pytest.mark.parametrize("tile", [1, 7, 64])
def test_tiles_do_not_change_sums(tile: int) -> None:
    x = np.random.default_rng(0).normal(size=(30, 3))
    expected = np.square(cdist(x, x)).sum() / (30 * 29)
    assert mean_over_pairs(x, None, np.copy, tile=tile) == pytest.approx(expected)
    assert mean_over_pairs(x, x, np.copy, tile=tile) == pytest.approx(expected * 29 / 30)


def test_too_few_cells_are_nan() -> None:
    one, two, none = np.ones((1, 3)), np.eye(3)[:2], np.ones((0, 3))
    assert np.isnan(energy_distance(one, two))
    assert np.isnan(mmd(one, two))
    assert np.isnan(sliced_wasserstein(none, two))
    assert np.isnan(wasserstein(none, two))


@given(seeds, sizes, sizes)
@settings(deadline=None, max_examples=15)
def test_sliced_wasserstein_equals_pot(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, 4)), 2 * rng.normal(size=(m, 4)) + 1
    directions = projections(4, 20, seed)
    expected = ot.sliced_wasserstein_distance(x, y, projections=directions.T)
    found = sliced_wasserstein(x, y, n_projections=20, seed=seed)
    assert found == pytest.approx(float(expected), abs=1e-8)


def test_wasserstein_of_a_moved_sample_is_the_way_it_moved() -> None:
    x = np.random.default_rng(0).normal(size=(60, 3))
    move = np.array([3.0, 0.0, 4.0])
    assert wasserstein(x, x + move) == pytest.approx(5.0)
    assert wasserstein(x, x[::-1]) == pytest.approx(0.0, abs=1e-7)
    sliced = sliced_wasserstein(x, x + move, n_projections=4000)
    assert sliced == pytest.approx(5.0 / np.sqrt(3), rel=0.03)


def test_memory_does_not_grow_with_pairs() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 5000, 10)).astype(np.float32)
    tracemalloc.start()
    energy_distance(x, y)
    mmd(x, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # One 5,000 x 5,000 matrix of float32 alone is 100 MB.
    assert peak < 90e6


@pytest.mark.slow
def test_twenty_thousand_cells_fit_in_a_gigabyte() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 20_000, 50)).astype(np.float32)
    tracemalloc.start()
    assert abs(energy_distance(x, y)) < 0.01
    assert abs(mmd(x, y)) < 0.001
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.5e9
