"""Unit scale of the tokens, and readable loadings."""

from __future__ import annotations

import numpy as np
import torch

from celldit.data.cells import Cells
from celldit.latent import Autoencoder, LatentConfig
from celldit.tokenizers import resolve


def disturbed(cells: Cells) -> Autoencoder:
    """An autoencoder whose encoder is off its scale."""
    config = LatentConfig(n_dims=6, token_dim=3)
    model = Autoencoder.fit(cells, resolve("modules").fit(cells), config, 0)
    with torch.no_grad():
        model.loadings.mul_(1.5)
        model.offset.mul_(1.5)
    return model.eval()


def test_normalizing_changes_scale_and_nothing_else(cells: Cells) -> None:
    model = disturbed(cells)
    size = torch.from_numpy(cells.size_factors)
    before = model.encode(cells)
    with torch.no_grad():
        mean = model.decode(before, size).mean_BG
        model.normalize(cells)
        measured = model.token_scale
        after = model.encode(cells)
        assert (measured - 1).abs().max() > 0.1
        torch.testing.assert_close(after.square().mean((0, 2)).sqrt(), torch.ones(2))
        torch.testing.assert_close(after * measured[:, None], before, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(model.decode(after, size).mean_BG, mean, rtol=1e-3, atol=1e-5)


def test_gene_loadings_are_log_fold_changes(cells: Cells) -> None:
    config = LatentConfig(n_dims=6, token_dim=3)
    model = Autoencoder.fit(cells, resolve("modules").fit(cells), config, 0)
    table = model.gene_loadings()
    assert list(table.index) == list(cells.genes)
    assert list(table.columns) == ["0.0", "0.1", "0.2", "1.0", "1.1", "1.2"]
    z = torch.zeros(2, 2, 3)
    z[1, 1, 0] = 1 / model.scale[1]  # one unit of log expression
    with torch.no_grad():
        mean = model.decode(z, torch.full((2,), 1e4)).mean_BG
    np.testing.assert_allclose(torch.log(mean[1] / mean[0]), table["1.0"], atol=1e-4)
    table.iloc[:] = 0  # a copy, not the weights
    assert model.gene_loadings().to_numpy().any()
