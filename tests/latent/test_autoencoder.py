"""The autoencoder: principal components in, a regression of counts out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.decomposition import PCA

from celldit.data.cells import Cells
from celldit.errors import InputError
from celldit.latent import Autoencoder, LatentConfig
from celldit.latent.config import FORMER, IDLE, latent_config
from celldit.tokenizers import resolve

CONFIG = LatentConfig(n_dims=6, token_dim=3)


def start(cells: Cells, seed: int = 0) -> Autoencoder:
    return Autoencoder.fit(cells, resolve("modules").fit(cells), CONFIG, seed)


def test_pca_latent_is_pca_of_log_expression(cells: Cells) -> None:
    z = start(cells).encode(cells).flatten(1).numpy()
    scores = PCA(6, svd_solver="full").fit_transform(cells.log_normalized().toarray())
    correlation = np.corrcoef(z.T, scores.T)[:6, 6:]
    np.testing.assert_allclose(np.abs(np.diag(correlation)), 1, atol=1e-3)


def test_at_their_own_size_tokens_are_the_principal_components(cells: Cells) -> None:
    model = start(cells)
    z = model.at_own_size(model.encode(cells))
    scores = PCA(6, svd_solver="full").fit_transform(cells.log_normalized().toarray())
    assert z.dtype == np.float32
    np.testing.assert_allclose(np.abs(z), np.abs(scores), atol=1e-3)


def test_tokens_have_unit_size(cells: Cells) -> None:
    z = start(cells).encode(cells)
    np.testing.assert_allclose(z.square().mean(dim=(0, 2)).sqrt(), 1, atol=2e-2)
    np.testing.assert_allclose(z.mean(dim=0), 0, atol=1e-2)


def test_a_cell_does_not_depend_on_its_neighbours(cells: Cells) -> None:
    model = start(cells)
    some = np.array([17, 3, 200])
    np.testing.assert_allclose(model.encode(cells.take(some)), model.encode(cells)[some], atol=1e-5)


def test_a_cell_without_counts(cells: Cells) -> None:
    """A cell may express none of the model's genes when its library size comes from all genes."""
    model = start(cells)
    few = cells.take(np.arange(3))
    counts = few.counts.toarray()
    counts[1] = 0
    few = replace(few, counts=sparse.csr_matrix(counts))
    z = model.encode(few)
    assert torch.isfinite(z).all()
    np.testing.assert_allclose(z[1].flatten(), -model.offset, atol=1e-5)
    alone = model.encode(few.take([1]))
    assert torch.isfinite(alone).all()
    np.testing.assert_allclose(alone[0], z[1], atol=1e-5)


def test_the_same_seed_gives_the_same_start(cells: Cells) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    states = [start(cells, 3).state_dict() for _ in range(2)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_no_cells(cells: Cells) -> None:
    model = start(cells)
    assert model.encode(cells.take(np.arange(0))).shape == (0, 2, 3)


def test_more_dimensions_than_the_data_have(cells: Cells) -> None:
    few = cells.take(np.arange(5))
    config = LatentConfig(n_dims=12, token_dim=4)
    model = Autoencoder.fit(few, resolve("modules").fit(few), config, 0)
    z = model.encode(few)
    assert torch.isfinite(z).all()
    mean = model.decode(z, torch.from_numpy(few.size_factors)).mean_BG
    assert torch.isfinite(mean).all()


def test_configuration_is_checked() -> None:
    assert latent_config("pca") == LatentConfig()
    with pytest.raises(InputError, match="n_dims=0"):
        LatentConfig(n_dims=0)


@pytest.mark.parametrize("name", sorted(set(FORMER) - set(IDLE)))
def test_options_of_earlier_versions_say_what_to_do(name: str) -> None:
    with pytest.raises(InputError, match=rf"^{name}= is no option any more\. .* leave it out\.$"):
        LatentConfig(**{name: "zinb"})


@pytest.mark.parametrize("name", IDLE)
def test_options_without_effect_are_let_by(name: str) -> None:
    with pytest.warns(FutureWarning, match=rf"^{name}= has no effect any more\. .* leave it out"):
        assert LatentConfig(**{name: 3}) == LatentConfig()


@pytest.mark.parametrize("token_dim", [0, -1, 1.5, "8"])
def test_tokens_have_a_whole_number_of_dimensions(token_dim: Any) -> None:
    with pytest.raises(InputError, match=r"token_dim=.* must be a whole number of at least 1"):
        LatentConfig(token_dim=token_dim)
