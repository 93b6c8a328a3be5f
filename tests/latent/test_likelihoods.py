"""The count model equals scipy's negative binomial, and counterfactual counts follow its law."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

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
