"""Genes and ranks, whose tokens are single genes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from celldit.data.cells import Cells
from celldit.errors import InputError
from celldit.tokenizers import Genes, Ranks, TokenSet

from .conftest import cells_of


def as_dict(tokens: TokenSet, cell: int) -> dict[int, float]:
    mask = tokens.mask[cell]
    return dict(
        zip(
            tokens.identities[cell][mask].tolist(),
            tokens.values[cell, mask, 0].tolist(),
            strict=True,
        )
    )


def test_genes_are_the_expressed_ones_with_their_log_expression(papalexi: Cells) -> None:
    batch = papalexi.take(slice(0, 30))
    tokens = Genes().fit(papalexi)(batch)
    log = batch.log_normalized().toarray()
    for cell in range(30):
        expected = {gene: log[cell, gene] for gene in np.flatnonzero(log[cell])}
        assert as_dict(tokens, cell) == pytest.approx(expected, rel=1e-5)
    assert len(set(tokens.lengths.tolist())) > 1


def test_the_bound_keeps_genes_highest_above_their_typical_level(papalexi: Cells) -> None:
    tokenizer = Genes(20).fit(papalexi)
    batch = papalexi.take(slice(0, 30))
    tokens = tokenizer(batch)
    log = batch.log_normalized().toarray().astype(np.float64)
    relative = np.expm1(log) / tokenizer.arrays()["typical"]
    for cell in range(30):
        kept = list(as_dict(tokens, cell))
        assert len(kept) <= 20
        left_out = np.setdiff1d(np.arange(299), kept)
        least, most = relative[cell, kept].min(), relative[cell, left_out].max()
        assert least >= most * (1 - 1e-5) or len(kept) < 20
    assert tokens.n_tokens == 20


def test_typical_levels_are_medians_of_what_is_expressed() -> None:
    counts = np.array([[1, 0, 4], [3, 0, 0], [0, 0, 8]])
    tokenizer = Ranks().fit(cells_of(counts, "abc", np.full(3, 1e4)))
    # A gene never expressed has the median of the others.
    assert tokenizer.arrays()["typical"].tolist() == [2.0, 4.0, 6.0]


def test_ranks_against_a_plain_loop(papalexi: Cells) -> None:
    tokenizer = Ranks().fit(papalexi)
    batch = papalexi.take(slice(0, 20))
    tokens = tokenizer(batch)
    typical = tokenizer.arrays()["typical"]
    counts = batch.counts.toarray().astype(np.float64)
    for cell in range(20):
        values = as_dict(tokens, cell)
        expressed = np.flatnonzero(counts[cell])
        assert set(values) == set(expressed)
        n = len(expressed)
        assert sorted(values.values()) == pytest.approx([(i + 1) / n for i in range(n)], abs=1e-6)
        by_rank = sorted(expressed, key=lambda gene: -values[gene])
        relative = counts[cell, by_rank] / typical[by_rank]
        assert (np.diff(relative) <= 0).all()


@settings(deadline=None, max_examples=15)
@given(factor=st.floats(0.01, 100), seed=st.integers(0, 50))
def test_ranks_do_not_see_the_library_size(make_cells: Callable, factor: float, seed: int) -> None:
    cells = make_cells(10, 15, seed)
    tokenizer = Ranks().fit(cells)
    other = cells_of(cells.counts.toarray(), cells.genes, cells.size_factors * factor)
    assert torch.equal(tokenizer(cells).values, tokenizer(other).values)
    assert torch.equal(tokenizer(cells).identities, tokenizer(other).identities)


def test_a_bound_on_ranks_leaves_the_values_of_the_rest(papalexi: Cells) -> None:
    batch = papalexi.take(slice(0, 10))
    whole, cut = Ranks().fit(papalexi)(batch), Ranks(7).fit(papalexi)(batch)
    assert cut.n_tokens == 7
    assert torch.equal(cut.values, whole.values[:, :7])
    assert torch.equal(cut.identities, whole.identities[:, :7])


@pytest.mark.parametrize("tokenizer", [Genes(), Genes(3), Ranks(4)])
def test_a_cell_does_not_depend_on_its_batch(
    make_cells: Callable, tokenizer: Genes | Ranks
) -> None:
    cells = make_cells(20)
    tokenizer.fit(cells)
    together = tokenizer(cells)
    for cell in range(20):
        assert as_dict(tokenizer(cells.take([cell])), 0) == as_dict(together, cell)


@pytest.mark.parametrize("kind", [Genes, Ranks])
def test_empty_cells_and_stored_zeros_have_no_tokens(kind: type) -> None:
    cells = cells_of(np.array([[0, 0, 0], [1, 0, 2]]), "abc", np.ones(2))
    tokenizer = kind().fit(cells)
    assert tokenizer(cells).lengths.tolist() == [0, 2]
    assert tokenizer(cells.take([0])).values.shape == (1, 1, 1)
    cells.counts.data[0] = 0
    assert tokenizer(cells).lengths.tolist() == [0, 1]
    assert cells.counts.nnz == 2


def test_options_that_cannot_be() -> None:
    for kind in (Genes, Ranks):
        with pytest.raises(InputError, match="n_tokens"):
            kind(0)


def test_zeros_are_an_option_no_more(make_cells: Callable) -> None:
    """Older calls and older models have it; a model took zeros and absent genes for the same."""
    cells = make_cells()
    with pytest.warns(FutureWarning, match="zeros= has no effect any more"):
        tokenizer = Genes(4, zeros="keep").fit(cells)  # type: ignore[call-arg]
    again = Genes.from_config({**tokenizer.to_config(), "zeros": "keep"}, tokenizer.arrays())
    assert torch.equal(again(cells).values, tokenizer(cells).values)
