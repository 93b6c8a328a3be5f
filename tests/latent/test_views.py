"""What tokens see of the latent, for every tokenizer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from celldit.data.cells import Cells
from celldit.latent import Autoencoder, LatentConfig
from celldit.latent.views import fit_views, token_values
from celldit.tokenizers import GeneSets, resolve

NAMES = ("gene_sets", "modules", "genes", "ranks")


def autoencoder(cells: Cells, tokenizer: Any, n_dims: int = 12) -> Autoencoder:
    config = LatentConfig(n_dims=n_dims, token_dim=3)
    return Autoencoder.fit(cells, resolve(tokenizer).fit(cells), config, 0).eval()


def gene_sets(cells: Cells) -> GeneSets:
    """Sets that overlap, and genes in none."""
    sets = {"a": cells.genes[:9], "b": cells.genes[5:16], "c": cells.genes[12:20]}
    return GeneSets(sets, min_size=2, remainder_size=8)


def tokenizer_of(name: str, cells: Cells) -> Any:
    return gene_sets(cells) if name == "gene_sets" else name


@pytest.mark.parametrize("name", NAMES)
def test_views_are_the_best_linear_reading_of_the_tokens(cells: Cells, name: str) -> None:
    model = autoencoder(cells, tokenizer_of(name, cells), 6)
    views = fit_views(model, cells, 5, 2, seed=0)
    n_tokens, n_dims, n_values = views.views_TFV.shape
    assert 1 <= n_tokens <= 5
    assert n_dims == model.n_tokens * model.token_dim
    assert n_values == min(2, model.tokenizer.n_values)
    z_NF = model.encode(cells).flatten(1).double()
    z_NF -= z_NF.mean(0)
    seen_NTV = torch.einsum("nf,tfv->ntv", z_NF, views.views_TFV.double())
    # The first value of every token has unit spread over the cells.
    torch.testing.assert_close(
        seen_NTV[:, :, 0].square().mean(0).sqrt(), torch.ones(n_tokens).double(), rtol=1e-3, atol=0
    )
    # What is seen explains the token as well as least squares does.
    values_NTV = token_values(model, cells)[:, views.identity_T, :n_values].double()
    values_NTV -= values_NTV.mean(0)
    fitted = z_NF @ torch.linalg.lstsq(z_NF, values_NTV.flatten(1)).solution
    for g in range(n_tokens):
        one = seen_NTV[:, g, 0]
        other = fitted.view(values_NTV.shape)[:, g, 0]
        assert np.corrcoef(one, other)[0, 1] > 0.999


def test_a_latent_that_holds_everything_shows_the_eigengenes_themselves(cells: Cells) -> None:
    model = autoencoder(cells, gene_sets(cells), n_dims=cells.n_genes - 1)
    views = fit_views(model, cells, 3, 1, seed=0)
    z_NF = model.encode(cells).flatten(1)
    values_NT = token_values(model, cells)[:, views.identity_T, 0]
    seen_NT = torch.einsum("nf,tfv->ntv", z_NF, views.views_TFV)[:, :, 0]
    for g in range(3):
        assert np.corrcoef(seen_NT[:, g], values_NT[:, g])[0, 1] > 0.98


def test_those_that_vary_most_are_kept(cells: Cells) -> None:
    model = autoencoder(cells, "genes")
    every = fit_views(model, cells, 10_000, 1, seed=0)
    few = fit_views(model, cells, 4, 1, seed=0)
    assert len(every.identity_T) <= cells.n_genes
    assert set(few.identity_T.tolist()) < set(every.identity_T.tolist())
    z_NF = model.encode(cells).flatten(1).double()
    values_NT = token_values(model, cells)[:, :, 0].double()
    centred = z_NF - z_NF.mean(0)
    fitted = centred @ torch.linalg.lstsq(centred, values_NT - values_NT.mean(0)).solution
    largest = fitted.std(0).argsort(descending=True)[:4]
    assert set(few.identity_T.tolist()) == set(largest.tolist())


def test_the_order_of_genes_and_of_sets_changes_nothing(cells: Cells) -> None:
    """The same sets see the same of the same cells, however both were arranged."""
    order = np.random.default_rng(0).permutation(cells.n_genes)
    sets = {name: list(genes) for name, genes in gene_sets(cells).sets.items()}
    turned = {name: genes[::-1] for name, genes in reversed(sets.items())}
    genes = tuple(np.array(cells.genes)[order])
    shuffled = replace(cells, counts=cells.counts[:, order], genes=genes)
    found = []
    for names, own in ((sets, cells), (turned, shuffled)):
        tokenizer = GeneSets(names, min_size=2, remainder_size=8)
        model = autoencoder(own, tokenizer)
        views = fit_views(model, own, 3, 2, seed=0)
        z_NF = model.encode(own).flatten(1)
        seen = torch.einsum("nf,tfv->ntv", z_NF - z_NF.mean(0), views.views_TFV)
        token_names = [model.tokenizer.token_names[i] for i in views.identity_T.tolist()]
        found.append(dict(zip(token_names, seen.transpose(0, 1), strict=True)))
    one, other = found
    # In the same places, too, so that a network starts from the same weights.
    assert list(one) == list(other)
    for name in one:
        torch.testing.assert_close(one[name][:, 0], other[name][:, 0], rtol=1e-3, atol=1e-3)
