"""The count regression finds the model that made the counts, and beats the ridge start."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from celldit.data.cells import Cells
from celldit.latent import Autoencoder, CountModel, LatentConfig
from celldit.latent.calibration import LogLinear, calibrate, dispersion, excess, thin
from celldit.tokenizers import resolve


def simulate(n: int = 1500, n_dims: int = 4, n_genes: int = 12, theta: float = 3.0) -> tuple:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(n, n_dims))
    slopes = rng.normal(0, 0.4, (n_dims, n_genes))
    slopes[-1] = 0  # a dimension that says nothing
    bias = np.log(rng.uniform(1, 30, n_genes))
    size = rng.uniform(5e3, 2e4, n)
    mean = np.exp(bias + z @ slopes) * size[:, None] / 1e4
    counts = rng.poisson(mean * rng.gamma(theta, 1 / theta, mean.shape))
    given = (torch.from_numpy(a.astype(np.float32)) for a in (z, counts, size))
    return (*given, LogLinear(*(torch.from_numpy(a).float() for a in (bias, slopes)), theta))


def blank(n_dims: int, n_genes: int) -> LogLinear:
    return LogLinear(
        torch.full((n_genes,), 1.0), torch.full((n_dims, n_genes), 0.05), torch.ones(n_genes)
    )


def test_finds_slopes_bias_and_dispersion() -> None:
    z, counts, size, truth = simulate()
    found = calibrate(z, counts, size, blank(4, 12), n_steps=8)
    np.testing.assert_allclose(found.slopes_FG, truth.slopes_FG, atol=0.12)
    np.testing.assert_allclose(found.bias_G, truth.bias_G, atol=0.12)
    np.testing.assert_allclose(found.theta_G, truth.theta_G, rtol=0.6)


def test_a_dimension_without_meaning_is_shrunk() -> None:
    z, counts, size, _ = simulate(n=150)
    found = calibrate(z, counts, size, blank(4, 12), n_steps=10)
    size_F = found.slopes_FG.square().mean(1).sqrt()
    assert size_F[-1] < 0.1 * size_F[:-1].min()


def test_it_does_not_matter_how_many_genes_come_together(monkeypatch: pytest.MonkeyPatch) -> None:
    z, counts, size, _ = simulate(n=300)
    whole = calibrate(z, counts, size, blank(4, 12))
    monkeypatch.setattr("celldit.latent.calibration.GENES_AT_ONCE", 5)
    parts = calibrate(z, counts, size, blank(4, 12))
    torch.testing.assert_close(parts.slopes_FG, whole.slopes_FG, rtol=1e-3, atol=1e-3)


def test_genes_never_or_hardly_seen_stay_finite() -> None:
    z, counts, size, _ = simulate(n=200)
    counts[:, 0] = 0
    counts[:, 1] = 0
    counts[5, 1] = 4000
    found = calibrate(z, counts, size, blank(4, 12))
    for tensor in (found.bias_G, found.slopes_FG, found.theta_G):
        assert torch.isfinite(tensor).all()


def test_dispersion_of_known_means() -> None:
    rng = np.random.default_rng(0)
    mean = rng.uniform(2, 20, (4000, 3))
    theta = np.array([0.5, 4.0, 1e5])
    counts = rng.poisson(mean * rng.gamma(theta, 1 / theta, mean.shape))
    found = dispersion(*(excess(torch.from_numpy(counts).float(), torch.from_numpy(mean).float())))
    np.testing.assert_allclose(found[:2], theta[:2], rtol=0.25)
    assert found[2] > 50


def test_the_fit_has_a_better_likelihood_than_the_mean(cells: Cells, log_likelihood: Any) -> None:
    model = Autoencoder.fit(
        cells, resolve("modules").fit(cells), LatentConfig(n_dims=6, token_dim=3), 0
    )
    counts = torch.from_numpy(cells.counts.toarray())
    size = torch.from_numpy(cells.size_factors)
    started = model.decode(model.encode(cells), size)
    rate = 1e4 * counts.sum(0) / size.sum()
    constant = CountModel(rate * size[:, None] / 1e4, started.theta_G)
    seen = cells.counts.toarray()
    assert log_likelihood(started, seen) > log_likelihood(constant, seen) + 0.02


def test_thinning_keeps_order_and_bounds() -> None:
    assert np.array_equal(thin(10, 5, 0), np.arange(10))
    some = thin(100_000, 20_000, 0)
    assert len(some) == 2000
    assert np.all(np.diff(some) > 0)
    assert np.array_equal(some, thin(100_000, 20_000, 0))
