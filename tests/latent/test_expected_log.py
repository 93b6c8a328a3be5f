"""Expected log expression of edited counts is the mean over draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from celldit.latent.expected_log import GRID, STEP, LogExpression, expected_log
from celldit.latent.likelihoods import CountModel


@pytest.mark.parametrize("factor", [0.0, 0.2, 0.7, 1.0, 1.5, 6.0])
def test_it_is_the_mean_over_draws(factor: float) -> None:
    rng = np.random.default_rng(0)
    mean_G = np.array([0.01, 0.1, 1.0, 8.0, 60.0])
    theta_G = np.array([0.3, 1.0, 5.0, 0.5, 20.0])
    counts_G = np.array([0, 1, 0, 3, 80])
    model = CountModel(torch.tensor(mean_G)[None], torch.tensor(theta_G))
    draws = np.array(
        [model.draw_counterfactual(0, counts_G, factor * mean_G, rng) for _ in range(20_000)]
    )
    for size in (200.0, 20_000.0):
        logs = np.log1p(draws * 1e4 / size)
        found_G = expected_log(
            torch.tensor(counts_G)[None].double(),
            model.mean_BG,
            factor * model.mean_BG,
            model.theta_G,
            torch.tensor([size]),
        )[0].numpy()
        error_G = 4 * logs.std(0) / np.sqrt(len(logs)) + 0.01 * (1 + logs.mean(0))
        assert (np.abs(found_G - logs.mean(0)) < error_G).all()


def test_unchanged_rates_give_the_cells_own() -> None:
    counts_BG = torch.tensor([[0.0, 1.0, 7.0], [2.0, 0.0, 400.0]])
    mean_BG = torch.full((2, 3), 2.0)
    size_B = torch.tensor([100.0, 5_000.0])
    found_BG = expected_log(counts_BG, mean_BG, mean_BG, torch.ones(3), size_B)
    torch.testing.assert_close(
        found_BG, torch.log1p(counts_BG * (1e4 / size_B)[:, None]), rtol=0.01, atol=0.01
    )


THETA_G = torch.tensor([0.3, 1.0, 5.0, 0.5, 20.0])


def test_an_unseen_count_is_negative_binomial() -> None:
    rng = np.random.default_rng(0)
    mean, size = 2.0, 1_000.0
    draws = rng.poisson(rng.gamma(THETA_G.numpy(), mean / THETA_G.numpy(), (40_000, 5)))
    logs = np.log1p(draws * 10.0)
    table = LogExpression.of(THETA_G, np.array([size]))
    shares_PG = table.shares(torch.full((1, 5), float(np.log(mean * 10.0))))
    error_G = 4 * logs.std(0) / np.sqrt(len(logs)) + 0.01 * logs.mean(0)
    assert (np.abs(table.means(shares_PG, [0])[0].numpy() - logs.mean(0)) < error_G).all()


def test_the_mean_of_a_population_is_the_mean_over_its_cells() -> None:
    rng = np.random.default_rng(0)
    log_NG = torch.from_numpy(rng.normal(0.5, 2.0, (300, 5))).float()
    size = 3_000.0
    table = LogExpression.of(THETA_G, np.array([size]))
    shares_PG = table.shares(log_NG)
    torch.testing.assert_close(shares_PG.sum(0), torch.ones(5))
    none_NG, size_N = torch.zeros(300, 5), torch.full((300,), size)
    for step, row in zip([0, 4, -3], table.means(shares_PG, [0, 4, -3]), strict=True):
        mean_NG = (log_NG + step * STEP).exp() * (size / 1e4)
        exact_G = expected_log(none_NG, none_NG, mean_NG, THETA_G, size_N).mean(0)
        torch.testing.assert_close(row, exact_G, rtol=0.01, atol=0.01)


def test_rates_beyond_the_grid_count_as_those_at_its_ends() -> None:
    table = LogExpression.of(torch.ones(1), np.array([1_000.0]))
    ends = torch.tensor([[GRID[0] - 50.0], [GRID[-1] + 50.0]]).float()
    at_ends = table.means(table.shares(ends), [0, 1_000])
    torch.testing.assert_close(at_ends[0], table.table_PG[[0, -1]].mean(0), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(at_ends[1], table.table_PG[-1], rtol=1e-3, atol=1e-3)
