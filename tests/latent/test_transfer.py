"""An autoencoder on other genes: matched by name, refused when too few match."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import sparse

from celldit.data.cells import Cells
from celldit.errors import InputError
from celldit.latent import Autoencoder, LatentConfig
from celldit.latent.transfer import match_autoencoder
from celldit.tokenizers import resolve

TOKENIZERS = ["modules", "genes", "ranks"]


def trained(cells: Cells, tokenizer: str = "modules") -> Autoencoder:
    config = LatentConfig(n_dims=6, token_dim=3)
    model = Autoencoder.fit(cells, resolve(tokenizer).fit(cells), config, 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def with_genes(cells: Cells, order: np.ndarray, new: int = 0) -> Cells:
    """The same cells with some genes in another order, and new ones at the end."""
    rng = np.random.default_rng(0)
    extra = sparse.csr_matrix(rng.poisson(2.0, (cells.n_cells, new)).astype(np.float32))
    counts = sparse.hstack([cells.counts[:, order], extra], format="csr", dtype=np.float32)
    names = tuple(cells.genes[i] for i in order) + tuple(f"new{i}" for i in range(new))
    return replace(cells, counts=sparse.csr_matrix(counts), genes=names)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_another_order_of_genes_gives_the_same(cells: Cells, tokenizer: str) -> None:
    model = trained(cells, tokenizer)
    order = np.random.default_rng(0).permutation(cells.n_genes)
    shuffled = with_genes(cells, order)
    other, match = match_autoencoder(model, shuffled.genes)
    assert match.overlap == 1
    assert not match.new
    z = model.encode(cells)
    torch.testing.assert_close(other.encode(shuffled), z, rtol=1e-4, atol=1e-4)
    size = torch.from_numpy(cells.size_factors)
    with torch.no_grad():
        there, here = (m.decode(z, size).mean_BG for m in (other, model))
    torch.testing.assert_close(there, here[:, torch.from_numpy(order)], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_new_and_missing_genes(cells: Cells, tokenizer: str) -> None:
    model = trained(cells, tokenizer)
    fewer = with_genes(cells, np.arange(4, cells.n_genes), new=5)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    other, match = match_autoencoder(model, fewer.genes)
    assert match.n_shared == cells.n_genes - 4
    assert match.missing == cells.genes[:4]
    assert match.new == tuple(f"new{i}" for i in range(5))
    assert "36 of the model's 40 genes are in the data (90%)" in str(match)
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    z = other.encode(fewer)
    assert torch.isfinite(z).all()
    correlation = np.corrcoef(z[:, 0, 0], model.encode(cells)[:, 0, 0])[0, 1]
    assert correlation > 0.7
    with torch.no_grad():
        mean = other.decode(z, torch.from_numpy(fewer.size_factors)).mean_BG
    assert torch.isfinite(mean).all()
    loadings = other.gene_loadings()
    assert (loadings.loc[list(match.new)] == 0).all().all()


def test_a_missing_gene_counts_as_its_mean(cells: Cells) -> None:
    model = trained(cells)
    other, _ = match_autoencoder(model, cells.genes[6:])
    part = with_genes(cells, np.arange(6, cells.n_genes))
    np.testing.assert_allclose(other.encode(part).mean(0), 0, atol=1e-3)


def test_new_genes_are_fitted_on_cells(cells: Cells) -> None:
    config = LatentConfig(n_dims=6, token_dim=3)
    kept = with_genes(cells, np.arange(30))
    model = Autoencoder.fit(kept, resolve("modules").fit(kept), config, 0)
    other, match = match_autoencoder(model, cells.genes, cells=cells)
    assert len(match.new) == 10
    torch.testing.assert_close(other.encode(cells), model.encode(kept), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        mean = other.decode(other.encode(cells), torch.from_numpy(cells.size_factors)).mean_BG
    new = mean[:, 30:].mean(0).numpy()
    np.testing.assert_allclose(new, cells.counts[:, 30:].toarray().mean(0), rtol=0.15)
    torch.testing.assert_close(other.decoder.loadings[:, :30], model.decoder.loadings)


def test_too_few_genes_are_refused(cells: Cells) -> None:
    model = trained(cells)
    few = (*cells.genes[:10], *(f"x{i}" for i in range(30)))
    with pytest.raises(InputError, match=r"Only 10 of the model's 40 genes .* \(25%, at least 50%"):
        match_autoencoder(model, few)
    other, match = match_autoencoder(model, few, min_overlap=0.2)
    assert (other.genes, match.n_shared) == (few, 10)


def test_names_of_another_kind_are_explained(cells: Cells) -> None:
    model = trained(cells)
    ensembl = [f"ENSG{i:011d}" for i in range(40)]
    with pytest.raises(InputError, match=r"the model knows genes like 'gene0'.*Ensembl"):
        match_autoencoder(model, ensembl, min_overlap=0)
    with pytest.raises(InputError, match="1 gene names occur more than once"):
        match_autoencoder(model, [*cells.genes, cells.genes[0]])
