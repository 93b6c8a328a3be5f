"""The count model equals scipy's negative binomial, and counterfactual counts follow its law."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import nbinom

from celldit.latent.likelihoods import CountModel

means = st.floats(1e-3, 1e3)
thetas = st.floats(1e-2, 1e4)
counts = st.integers(0, 2000)


# Genes of all levels in two cells, and what was counted of them.
MEAN = torch.tensor([[0.0, 0.2, 3.0, 40.0], [0.5, 1.0, 9.0, 2.0]], dtype=torch.float64)
COUNTS = torch.tensor([[0, 1, 0, 55], [2, 0, 12, 0]], dtype=torch.float64)
CELLS = CountModel(MEAN, torch.tensor([0.3, 1.0, 5.0, 50.0], dtype=torch.float64))


def model(mean: float, theta: float) -> CountModel:
    return CountModel(
        torch.tensor([[mean]], dtype=torch.float64), torch.tensor([theta], dtype=torch.float64)
    )


def column(value: float) -> torch.Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


@given(means, thetas, counts)
def test_log_prob_is_scipys(mean: float, theta: float, count: int) -> None:
    expected = nbinom.logpmf(count, theta, theta / (theta + mean))
    got = float(model(mean, theta).log_prob(column(count)))
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)


def test_log_prob_of_many_genes_at_once() -> None:
    rng = np.random.default_rng(0)
    mean, theta, x = (
        rng.gamma(1, 3, (5, 7)),
        rng.gamma(1, 3, 7),
        rng.poisson(3.0, (5, 7)).astype(float),
    )
    got = CountModel(torch.from_numpy(mean), torch.from_numpy(theta)).log_prob(torch.from_numpy(x))
    np.testing.assert_allclose(got, nbinom.logpmf(x, theta, theta / (theta + mean)), rtol=1e-8)


@pytest.mark.parametrize("theta", [1e-1, 49.0, 51.0, 1e2, 1e3, 1e4, 1e6])
def test_log_prob_in_single_precision_is_scipys_in_double(theta: float) -> None:
    """Counts that hardly scatter have a large θ, where gamma functions of θ and θ + x are alike."""
    rng = np.random.default_rng(0)
    mean = rng.uniform(0.01, 300, 500).astype(np.float32)
    x = rng.poisson(mean).astype(np.float32)
    p = theta / (theta + mean.astype(np.float64))
    model = CountModel(torch.from_numpy(mean)[None], torch.full((500,), theta))
    got = model.log_prob(torch.from_numpy(x)[None])[0]
    expected = nbinom.logpmf(x.astype(np.float64), np.float64(np.float32(theta)), p)
    np.testing.assert_allclose(got, expected, rtol=2e-4, atol=1e-3)


def test_the_gradient_of_log_prob_is_that_of_its_finite_difference() -> None:
    mean, x = torch.tensor([[0.1, 3.0, 40.0]]).double(), torch.tensor([[0.0, 5.0, 30.0]]).double()
    for theta in (0.3, 20.0, 80.0, 1e4):
        theta_G = torch.full((3,), theta, dtype=torch.float64, requires_grad=True)
        mean_BG = mean.clone().requires_grad_()
        assert torch.autograd.gradcheck(
            lambda m, t: CountModel(m, t).log_prob(x), (mean_BG, theta_G)
        )


def test_log_prob_stays_finite_at_the_edges_in_float32() -> None:
    mean = torch.tensor([[0.0, 1e-30, 1e6, 1e6]])
    theta = torch.tensor([1e-3, 3e3, 1e-3, 3e3])
    x = torch.tensor([[0.0, 3.0, 0.0, 1e6]])
    assert torch.isfinite(CountModel(mean, theta).log_prob(x)).all()


@given(means, thetas, counts)
def test_an_unchanged_mean_gives_the_cell_back(mean: float, theta: float, count: int) -> None:
    same = model(mean, theta).counterfactual_mean(column(count), column(mean))
    assert float(same) == count


@given(means, means, thetas, counts)
def test_the_edit_goes_the_way_of_the_mean(
    mean: float, new: float, theta: float, count: int
) -> None:
    edited = float(model(mean, theta).counterfactual_mean(column(count), column(new)))
    assert np.isfinite(edited)
    assert edited >= 0
    if new > mean:
        assert edited > count
    if new < mean:
        np.testing.assert_allclose(edited, count * new / mean, rtol=1e-9)


@given(means, means, thetas)
def test_averaged_over_cells_it_is_the_new_mean(mean: float, new: float, theta: float) -> None:
    """It is linear in the count, so at the old mean it must give the new one exactly."""
    edited = float(model(mean, theta).counterfactual_mean(column(mean), column(new)))
    np.testing.assert_allclose(edited, new, rtol=1e-6)


def test_an_unchanged_mean_draws_the_cell_back() -> None:
    assert torch.equal(CELLS.counterfactual_mean(COUNTS, MEAN), COUNTS)
    for cell in range(2):
        seen, mean = COUNTS[cell].numpy(), MEAN[cell].numpy()
        drawn = CELLS.draw_counterfactual(cell, seen, mean, np.random.default_rng(0))
        np.testing.assert_array_equal(drawn, seen)


def test_draws_have_the_mean_of_the_edit() -> None:
    rng = np.random.default_rng(0)
    new = MEAN * torch.tensor([2.0, 0.3, 1.7, 0.5]) + torch.tensor([0.4, 0.0, 0.0, 0.0])
    expected = CELLS.counterfactual_mean(COUNTS, new)
    for cell in range(2):
        seen, to = COUNTS[cell].numpy(), new[cell].numpy()
        drawn = np.array([CELLS.draw_counterfactual(cell, seen, to, rng) for _ in range(4000)])
        error = drawn.std(0) / np.sqrt(len(drawn))
        assert np.all(np.abs(drawn.mean(0) - expected[cell].numpy()) <= 5 * error + 1e-9)
        assert drawn.min() >= 0


def test_draws_scatter_about_the_mean() -> None:
    rng = np.random.default_rng(1)
    drawn = np.array([CELLS.draw(1, rng) for _ in range(4000)])
    error = drawn.std(0) / np.sqrt(len(drawn))
    assert np.all(np.abs(drawn.mean(0) - MEAN[1].numpy()) <= 5 * error)
