"""Every likelihood is a distribution, and its counterfactuals are edits of what was observed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import nbinom, norm, poisson

from celldit.data.cells import Cells
from celldit.errors import UnknownNameError
from celldit.latent import (
    Autoencoder,
    CountDistribution,
    CountModel,
    GaussianModel,
    LatentConfig,
    PoissonModel,
    ZeroInflatedModel,
)
from celldit.latent.heads import LIKELIHOODS, make_head
from celldit.tokenizers import resolve

MEAN = torch.tensor([[0.0, 0.2, 3.0, 40.0], [0.5, 1.0, 9.0, 2.0]], dtype=torch.float64)
THETA = torch.tensor([0.3, 1.0, 5.0, 50.0], dtype=torch.float64)
ZEROS = torch.tensor([0.0, 0.1, 0.5, 0.9], dtype=torch.float64)
SIZE = torch.tensor([5e3, 2e4], dtype=torch.float64)
MODELS: dict[str, CountDistribution] = {
    "nb": CountModel(MEAN, THETA),
    "zinb": ZeroInflatedModel(MEAN, THETA, ZEROS),
    "poisson": PoissonModel(MEAN),
    "gaussian": GaussianModel(MEAN, torch.full((4,), 0.4, dtype=torch.float64), SIZE),
}
COUNTS = torch.tensor([[0, 1, 0, 55], [2, 0, 12, 0]], dtype=torch.float64)


def zinb_pmf(x: np.ndarray, mean: float, theta: float, zeros: float) -> np.ndarray:
    part = mean / (1 - zeros)
    pmf = (1 - zeros) * nbinom.pmf(x, theta, theta / (theta + part))
    return pmf + zeros * (x == 0)


def test_log_prob_of_the_zero_inflated() -> None:
    got = MODELS["zinb"].log_prob(COUNTS).exp().numpy()
    expected = np.zeros_like(got)
    for cell, gene in np.ndindex(2, 4):
        if MEAN[cell, gene] == 0:
            expected[cell, gene] = 1
            continue
        expected[cell, gene] = zinb_pmf(
            COUNTS[cell, gene].numpy(), MEAN[cell, gene], THETA[gene], ZEROS[gene]
        )
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_log_prob_of_the_poisson_and_the_gaussian() -> None:
    positive = MEAN.clamp_min(0.1)
    got = PoissonModel(positive).log_prob(COUNTS)
    np.testing.assert_allclose(got, poisson.logpmf(COUNTS, positive), rtol=1e-6)
    scale = 1e4 / SIZE[:, None]
    expected = norm.logpdf(torch.log1p(COUNTS * scale), torch.log1p(MEAN * scale), 0.4)
    np.testing.assert_allclose(MODELS["gaussian"].log_prob(COUNTS), expected, rtol=1e-9)


def test_without_zeros_it_is_the_negative_binomial() -> None:
    mean = MEAN.clamp_min(0.1)
    zinb = ZeroInflatedModel(mean, THETA, torch.zeros(4, dtype=torch.float64))
    torch.testing.assert_close(zinb.log_prob(COUNTS), CountModel(mean, THETA).log_prob(COUNTS))
    new = mean * torch.tensor([0.5, 2, 1, 3])
    torch.testing.assert_close(
        zinb.counterfactual_mean(COUNTS, new),
        CountModel(mean, THETA).counterfactual_mean(COUNTS, new),
    )


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_an_unchanged_mean_gives_the_cell_back(name: str) -> None:
    model = MODELS[name]
    assert torch.equal(model.counterfactual_mean(COUNTS, model.mean_BG), COUNTS)
    for cell in range(2):
        seen, mean = COUNTS[cell].numpy(), MEAN[cell].numpy()
        drawn = model.draw_counterfactual(cell, seen, mean, np.random.default_rng(0))
        np.testing.assert_array_equal(drawn, seen)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_draws_have_the_mean_of_the_edit(name: str) -> None:
    model, rng = MODELS[name], np.random.default_rng(0)
    new = MEAN * torch.tensor([2.0, 0.3, 1.7, 0.5]) + torch.tensor([0.4, 0.0, 0.0, 0.0])
    expected = model.counterfactual_mean(COUNTS, new)
    for cell in range(2):
        seen, to = COUNTS[cell].numpy(), new[cell].numpy()
        drawn = np.array([model.draw_counterfactual(cell, seen, to, rng) for _ in range(4000)])
        error = drawn.std(0) / np.sqrt(len(drawn))
        assert np.all(np.abs(drawn.mean(0) - expected[cell].numpy()) <= 5 * error + 1e-9)
        assert drawn.min() >= 0


@given(st.floats(0.05, 20), st.floats(0.05, 20), st.floats(0.1, 50), st.floats(0, 0.8))
def test_zero_inflated_counts_become_counts_of_the_new_mean(
    mean: float, new: float, theta: float, zeros: float
) -> None:
    """Averaged over the model's own counts, the edit has the new expectation."""
    x = np.arange(4000)
    n = len(x)
    model = ZeroInflatedModel(
        torch.full((n, 1), mean, dtype=torch.float64),
        torch.tensor([theta], dtype=torch.float64),
        torch.tensor([zeros], dtype=torch.float64),
    )
    edited = model.counterfactual_mean(
        torch.from_numpy(x[:, None].astype(float)), torch.full((n, 1), new, dtype=torch.float64)
    )
    average = (zinb_pmf(x, mean, theta, zeros) * edited[:, 0].numpy()).sum()
    np.testing.assert_allclose(average, new, rtol=2e-2)


def test_the_gaussian_edit_adds_log_expression() -> None:
    model, scale = MODELS["gaussian"], 1e4 / SIZE[:, None]
    shift = 0.3
    new = torch.expm1(torch.log1p(MEAN * scale) + shift) / scale
    edited = model.counterfactual_mean(COUNTS, new)
    moved = torch.log1p(edited * scale) - torch.log1p(COUNTS * scale)
    torch.testing.assert_close(moved, torch.full_like(moved, shift))


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_draws_scatter_about_the_mean(name: str) -> None:
    model, rng = MODELS[name], np.random.default_rng(1)
    drawn = np.array([model.draw(1, rng) for _ in range(4000)])
    if name == "gaussian":  # its mean is that of log expression
        scale = 1e4 / float(SIZE[1])
        typical = np.log1p(np.median(drawn, axis=0) * scale)
        np.testing.assert_allclose(typical[2:], torch.log1p(MEAN[1, 2:] * scale), atol=0.15)
        return
    error = drawn.std(0) / np.sqrt(len(drawn))
    assert np.all(np.abs(drawn.mean(0) - MEAN[1].numpy()) <= 5 * error)


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("decoder", ["bilinear", "cross_attention"])
def test_autoencoders_of_every_likelihood_learn(cells: Cells, name: str, decoder: str) -> None:
    config = LatentConfig(n_dims=6, token_dim=3, likelihood=name, decoder=decoder)
    model = Autoencoder.start(cells, resolve("modules").fit(cells), config, 0).train()
    counts = torch.from_numpy(cells.counts.toarray())
    size = torch.from_numpy(cells.size_factors)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        loss = -model.decode(model(model.tokenize(cells)), size).log_prob(counts).mean()
        assert torch.isfinite(loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert min(losses[1:]) < losses[0]


def test_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'zinb'"):
        LatentConfig(likelihood="zimb")
    with pytest.raises(UnknownNameError, match="decoder 'linear'"):
        LatentConfig(decoder="linear")
    with pytest.raises(UnknownNameError, match="likelihood"):
        make_head("t", 3)
