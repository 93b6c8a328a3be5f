"""The decoder is a regression of counts that starts at the ridge regression of log expression."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from celldit.latent.decoder import Decoder, RidgeMoments


def simulated(
    seed: int, n_cells: int, spread: float
) -> tuple[tuple[torch.Tensor, ...], np.ndarray]:
    """Latents (N, F), counts (N, G) and sizes (N,) of a log-linear model, and its slopes (F, G)."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n_cells, 3))
    slopes = rng.normal(0, spread, (3, 8))
    log_rate = np.log(rng.gamma(2, 60, 8)) + z @ slopes
    size = rng.uniform(5e3, 2e4, n_cells)
    counts = rng.poisson(np.exp(log_rate) * size[:, None] / 1e4)
    return tuple(torch.from_numpy(a.astype(np.float32)) for a in (z, counts, size)), slopes


@pytest.fixture
def data() -> tuple[torch.Tensor, ...]:
    return simulated(0, 400, 0.3)[0]


def moments_of(data: tuple[torch.Tensor, ...], batch: int = 150) -> RidgeMoments:
    z, counts, size = data
    log = torch.log1p(1e4 * counts / size[:, None])
    moments = RidgeMoments(z.shape[1], counts.shape[1])
    for i in range(0, len(z), batch):
        rows = slice(i, i + batch)
        moments.add(z[rows], log[rows], counts[rows], size[rows])
    return moments


def started(data: tuple[torch.Tensor, ...]) -> Decoder:
    decoder = Decoder(3, 8)
    decoder.start_at_ridge(moments_of(data))
    decoder.fit(*data)
    return decoder


def test_slopes_are_those_of_ridge(data: tuple[torch.Tensor, ...]) -> None:
    z, counts, size = data
    log = torch.log1p(1e4 * counts / size[:, None])
    expected = Ridge(alpha=1.0).fit(z.numpy(), log.numpy()).coef_.T
    np.testing.assert_allclose(moments_of(data).slopes(), expected, atol=1e-4)


def test_moments_do_not_depend_on_batches(data: tuple[torch.Tensor, ...]) -> None:
    one, many = moments_of(data, 400), moments_of(data, 7)
    torch.testing.assert_close(one.slopes(), many.slopes())
    for name in ("peak", "z", "y", "zz"):
        torch.testing.assert_close(getattr(one, name), getattr(many, name))


def test_the_fit_explains_the_counts(data: tuple[torch.Tensor, ...]) -> None:
    z, counts, size = data
    decoder = started(data)
    with torch.no_grad():
        mean = decoder(z, size).mean_BG
    np.testing.assert_allclose(mean.mean(0), counts.mean(0), rtol=0.1)
    for gene in range(8):
        assert np.corrcoef(mean[:, gene], counts[:, gene])[0, 1] > 0.7


@pytest.mark.parametrize("seed", range(3))
def test_the_fit_finds_strong_effects_in_few_cells(seed: int) -> None:
    """From slopes of zero its steps would end half way, off by 0.66 and more."""
    given, slopes = simulated(seed, 150, 0.6)
    np.testing.assert_allclose(started(given).loadings.detach(), slopes, atol=0.15)


def test_expected_counts_follow_the_library_size(data: tuple[torch.Tensor, ...]) -> None:
    z, _, size = data
    decoder = started(data)
    torch.testing.assert_close(decoder(z, 2 * size).mean_BG, 2 * decoder(z, size).mean_BG)


def test_far_latents_stay_finite(data: tuple[torch.Tensor, ...]) -> None:
    decoder = started(data)
    assert torch.isfinite(decoder(1e6 * data[0], data[2]).mean_BG).all()


def test_no_gene_is_decoded_far_beyond_what_was_seen() -> None:
    """exp() of a latent far outside the data would else promise more counts than cells have."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(200, 3, generator=generator)
    counts = torch.poisson(
        torch.exp(z @ torch.randn(3, 5, generator=generator)), generator=generator
    )
    size = torch.full((200,), 1000.0)
    moments = RidgeMoments(3, 5)
    moments.add(z, torch.log1p(counts * 10), counts, size)
    decoder = Decoder(3, 5)
    decoder.start_at_ridge(moments)
    far = decoder(50 * z, size).mean_BG
    assert (far <= 2.001 * counts.amax(0).clamp_min(0.1)).all()
    assert (decoder(50 * z, size).mean_BG.amax(0) > counts.amax(0)).any()


def test_adapting_follows_new_counts_and_little_else(data: tuple[torch.Tensor, ...]) -> None:
    z, counts, size = data
    decoder = started(data)
    before = {name: tensor.clone() for name, tensor in decoder.state_dict().items()}
    decoder.adapt(z, counts, size)
    moved = (decoder.loadings - before["loadings"]).abs().max()
    assert moved < 0.05
    # Another chemistry: half of the genes are read three times as often.
    factor = torch.tensor([1.0, 3.0]).repeat(4)
    decoder.adapt(z, counts * factor, size)
    change = decoder.bias - before["bias"]
    np.testing.assert_allclose(change.detach().numpy(), factor.log().numpy(), atol=0.1)
    with torch.no_grad():
        mean = decoder(z, size).mean_BG
    np.testing.assert_allclose(mean.mean(0), (counts * factor).mean(0), rtol=0.05)


def test_adapting_with_a_few_cells_hardly_moves_slopes(data: tuple[torch.Tensor, ...]) -> None:
    z, counts, size = data
    decoder = started(data)
    before = decoder.loadings.detach().clone()
    decoder.adapt(z[:3], counts[:3], size[:3])
    assert (decoder.loadings - before).abs().mean() < 0.1 * before.abs().mean()


def test_the_perceptron_of_an_earlier_version_is_kept(data: tuple[torch.Tensor, ...]) -> None:
    z, counts, size = data
    decoder, plain = Decoder(3, 8, hidden=16), Decoder(3, 8)
    assert (decoder.hidden, plain.hidden) == (16, 0)
    decoder.start_at_ridge(moments_of(data))
    decoder.fit(*data)
    kept = decoder.residual[-1].weight.detach().clone()
    decoder.adapt(z, counts, size)
    assert torch.equal(decoder.residual[-1].weight, kept)
    with torch.no_grad():
        mean = decoder(z, size).mean_BG
    np.testing.assert_allclose(mean.mean(0), counts.mean(0), rtol=0.1)
