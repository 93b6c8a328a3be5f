"""Unit scale of the tokens, readable loadings, and packed sets."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
import torch

from celldit.data.cells import Cells
from celldit.errors import InputError
from celldit.latent import Autoencoder, LatentConfig
from celldit.tokenizers import TokenSet, resolve


def disturbed(cells: Cells, kind: str, tokenizer: str = "genes") -> Autoencoder:
    """An autoencoder whose residuals are no longer silent."""
    config = LatentConfig(kind=kind, n_dims=6, token_dim=3, width=16, depth=1)
    model = Autoencoder.start(cells, resolve(tokenizer).fit(cells), config, 0)
    generator = torch.Generator().manual_seed(0)
    silent: Iterable[torch.nn.Parameter] = [
        p for p in model.parameters() if not p.detach().abs().max() > 0
    ]
    with torch.no_grad():
        for parameter in silent:
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.mark.parametrize("kind", ["pca", "set"])
def test_normalizing_changes_scale_and_nothing_else(cells: Cells, kind: str) -> None:
    model = disturbed(cells, kind)
    size = torch.from_numpy(cells.size_factors)
    before = model.encode(cells)
    with torch.no_grad():
        mean = model.decode(before, size).mean_BG
        measured = model.normalize(cells)
        after = model.encode(cells)
        assert torch.equal(model.token_scale, measured)
        if kind == "set":
            assert (measured - 1).abs().max() > 0.1
        torch.testing.assert_close(after.square().mean((0, 2)).sqrt(), torch.ones(2))
        torch.testing.assert_close(after * measured[:, None], before, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(model.decode(after, size).mean_BG, mean, rtol=1e-3, atol=1e-5)


def test_gene_loadings_are_log_fold_changes(cells: Cells) -> None:
    config = LatentConfig(n_dims=6, token_dim=3, decoder_hidden=0)
    model = Autoencoder.start(cells, resolve("modules").fit(cells), config, 0)
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


@pytest.mark.parametrize("tokenizer", ["modules", "genes", "ranks"])
def test_packed_equals_padded(cells: Cells, tokenizer: str) -> None:
    model = disturbed(cells, "set", tokenizer=tokenizer)
    tokens = model.tokenize(cells.take(np.arange(40)))
    assert isinstance(tokens, TokenSet)
    # One cell without any token.
    mask = tokens.mask.clone()
    mask[7] = False
    tokens = TokenSet(tokens.values * mask[..., None], tokens.identities * mask, mask)
    if tokenizer != "modules":
        with torch.no_grad():
            torch.testing.assert_close(model(tokens.pack()), model(tokens), rtol=0, atol=1e-5)
            nothing = TokenSet(tokens.values[7:8], tokens.identities[7:8], mask[7:8])
            torch.testing.assert_close(model(nothing.pack()), model(tokens)[7:8], rtol=0, atol=1e-5)
        return
    full = model.tokenize(cells.take(np.arange(40)))
    with torch.no_grad():
        torch.testing.assert_close(model(full.pack()), model(full), rtol=0, atol=1e-5)


def test_packed_gradients_equal_padded(cells: Cells) -> None:
    model = disturbed(cells, "set")
    tokens = model.tokenize(cells.take(np.arange(10)))
    grads = []
    for given in (tokens, tokens.pack()):
        model.zero_grad()
        model(given).square().sum().backward()
        grads.append(model.set_encoder.value[0].weight.grad.clone())
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-3, atol=1e-4)


def test_more_slots_than_tokens(cells: Cells) -> None:
    tokenizer = resolve("modules").fit(cells)
    n = tokenizer.n_identities
    config = LatentConfig(kind="set", n_dims=(n + 1) * 2, token_dim=2)
    with pytest.raises(InputError, match=f"more than the {n} tokens that they summarise"):
        Autoencoder.start(cells, tokenizer, config, 0)
    chosen = Autoencoder.start(cells, tokenizer, LatentConfig(kind="set", token_dim=1), 0)
    assert chosen.n_tokens <= n
