"""The latent is one of sets: no order of tokens or genes and no padding changes it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from celldit.data.cells import Cells
from celldit.latent import Autoencoder, LatentConfig, match_autoencoder
from celldit.tokenizers import GeneSets, TokenSet, resolve

N_CELLS = 6
NAMES = ("gene_sets", "modules", "genes", "ranks", "gene_sets, per token")


@pytest.fixture(scope="module", params=NAMES)
def model(request: pytest.FixtureRequest, cells: Cells) -> Autoencoder:
    """An autoencoder whose attention is not silent, as after training that was worth it."""
    chosen: Any = request.param.partition(",")[0]
    if chosen == "gene_sets":
        # Sets that overlap, and genes in none.
        sets = {"a": cells.genes[:9], "b": cells.genes[5:16], "c": cells.genes[12:20]}
        chosen = GeneSets(sets, min_size=2, remainder_size=8)
    encoder: Any = "per_token" if "per token" in request.param else "shared"
    config = LatentConfig(kind="set", n_dims=6, token_dim=3, width=16, depth=2, encoder=encoder)
    model = Autoencoder.start(cells, resolve(chosen).fit(cells), config, 0)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model.project.weight.normal_(generator=draw).mul_(0.3)
        if model.set_encoder is not None and model.set_encoder.own is not None:
            model.set_encoder.own.weight.normal_(generator=draw)
    return model.eval()


def latents(model: Autoencoder, tokens: TokenSet) -> torch.Tensor:
    with torch.no_grad():
        assert model.attends
        return model(tokens)


def tokens_of(model: Autoencoder, cells: Cells) -> TokenSet:
    tokens = model.tokenize(cells.take(slice(N_CELLS)))
    assert isinstance(tokens, TokenSet)
    return tokens


@settings(deadline=None)
@given(seed=st.integers(0, 1000), n_padding=st.integers(0, 5))
def test_order_and_padding_of_tokens_change_nothing(
    model: Autoencoder, cells: Cells, seed: int, n_padding: int
) -> None:
    """Each cell's tokens in an order of their own, padding among them."""
    tokens = tokens_of(model, cells)
    n = tokens.n_tokens + n_padding
    values = torch.zeros(N_CELLS, n, tokens.n_values)
    identities = torch.zeros(N_CELLS, n, dtype=torch.long)
    mask = torch.zeros(N_CELLS, n, dtype=torch.bool)
    draw = torch.Generator().manual_seed(seed)
    places = torch.stack([torch.randperm(n, generator=draw) for _ in range(N_CELLS)])
    places = places[:, : tokens.n_tokens]
    values.scatter_(1, places[..., None].expand_as(tokens.values), tokens.values)
    identities.scatter_(1, places, tokens.identities)
    mask.scatter_(1, places, tokens.mask)
    shuffled = TokenSet(values, identities, mask)
    expected = latents(model, tokens)
    for form in (shuffled, shuffled.pack()):
        torch.testing.assert_close(latents(model, form), expected, rtol=0, atol=1e-5)


@settings(deadline=None)
@given(seed=st.integers(0, 1000))
def test_what_a_missing_token_said_is_missing(model: Autoencoder, cells: Cells, seed: int) -> None:
    """A token that is masked counts as one that is not there, whatever stands in it."""
    tokens = tokens_of(model, cells)
    keep = torch.rand(tokens.mask.shape, generator=torch.Generator().manual_seed(seed)) < 0.7
    mask = tokens.mask & keep
    masked = TokenSet(tokens.values, tokens.identities, mask)
    expected = latents(model, masked.pack())
    torch.testing.assert_close(latents(model, masked), expected, rtol=0, atol=1e-5)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 1000))
def test_the_order_of_genes_changes_nothing(model: Autoencoder, cells: Cells, seed: int) -> None:
    some = cells.take(slice(N_CELLS))
    order = np.random.default_rng(seed).permutation(cells.n_genes)
    genes = tuple(cells.genes[i] for i in order)
    other, _ = match_autoencoder(model, genes)
    shuffled = replace(some, counts=some.counts[:, order], genes=genes)
    torch.testing.assert_close(other.encode(shuffled), model.encode(some), rtol=0, atol=1e-5)
