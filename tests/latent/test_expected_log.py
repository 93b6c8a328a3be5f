"""Expected log expression of edited counts is the mean over draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from celldit.latent.expected_log import expected_log
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
    none_15, mean_15 = torch.zeros(1, 5), torch.full((1, 5), mean)
    found = expected_log(none_15, none_15, mean_15, THETA_G, torch.tensor([size]))
    error_G = 4 * logs.std(0) / np.sqrt(len(logs)) + 0.01 * logs.mean(0)
    assert (np.abs(found[0].numpy() - logs.mean(0)) < error_G).all()
