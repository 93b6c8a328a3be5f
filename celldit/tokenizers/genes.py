"""Tokens from single genes: their expression, or their rank within a cell.

Geneformer (Theodoris et al. 2023, Nature 618:616) orders the genes of a cell by their normalised
expression divided by the gene's median over the cells that express it, so that a housekeeping gene
at its usual level comes after a transcription factor above its own. That order is computed here
entry by entry of a sparse matrix, so that neither the other cells of a batch nor the arrangement of
the genes has any part in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from scipy import sparse

from celldit.arguments import check_whole, refuses_former
from celldit.data.cells import COUNTS_PER_CELL, Cells
from celldit.data.genes import check_unique_genes
from celldit.data.store import CellStore
from celldit.errors import InputError
from celldit.tokenizers.base import Tokenizer, stored
from celldit.tokenizers.canonical import sample_cells, tie_order
from celldit.tokenizers.token_set import TokenSet

_FORMER = {"zeros": "Genes at zero are no tokens, and a model takes them for zero; leave it out."}


class GeneTokenizer(Tokenizer):
    """What tokenizers have in common whose tokens are single genes."""

    n_values = 1
    _options = ("n_tokens", "seed")
    _typical: np.ndarray
    _ties: np.ndarray

    def __init__(self, n_tokens: int | None, *, seed: int) -> None:
        if n_tokens is not None:
            check_whole(n_tokens, "n_tokens")
        self.n_tokens = None if n_tokens is None else int(n_tokens)
        self.seed = int(seed)

    @property
    def n_identities(self) -> int:
        """Number of genes."""
        return len(self.genes)

    @property
    def token_names(self) -> tuple[str, ...]:
        """The genes."""
        return self.genes

    def fit(self, cells: CellStore) -> Self:
        """Learn the genes' typical levels; changes this object and returns it.

        Raises
        ------
        InputError
            If there are no cells, or genes of the same name.
        """
        check_unique_genes(cells.genes)
        self._take(cells.genes, typical_levels(cells, self.seed))
        return self

    def arrays(self) -> dict[str, np.ndarray]:
        """Give the typical level of each gene, ``typical`` ``(G,)`` in counts per 10,000."""
        self._check_fitted()
        return {"typical": self._typical}

    def _take(self, genes: tuple[str, ...], typical: np.ndarray) -> None:
        self._typical, self._ties, self._genes = typical, tie_order(genes, self.seed), genes

    def _restore(self, config: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        genes = tuple(stored(self.name, config, "genes"))
        typical = np.asarray(stored(self.name, arrays, "typical"), dtype=np.float64)
        if typical.shape != (len(genes),):
            raise InputError(
                f"The stored tokenizer {self.name!r} has typical levels of shape {typical.shape} "
                f"for {len(genes)} genes; give from_config what one fitted tokenizer returned."
            )
        self._take(genes, typical)


@refuses_former(_FORMER, ("zeros",))
class Genes(GeneTokenizer):
    """One token per expressed gene: its identity the gene, its value the log-normalised expression.

    Sets differ in size, and a cell without counts has none. Which genes stay when ``n_tokens`` is a
    bound: those highest relative to their typical level (median over expressing training cells, as
    in Geneformer); genes at the same relative level in the order of a hash of ``seed`` and the
    gene's name. So the choice depends on the cell alone, not on its batch nor on the order of the
    genes.

    Parameters
    ----------
    n_tokens
        The most tokens that a cell may have; None for no bound.
    seed
        Of the order among equals, and of the choice of cells to fit on when there are many.

    Raises
    ------
    InputError
        If ``n_tokens`` is not a whole number of at least 1.
    """

    name = "genes"

    def __init__(self, n_tokens: int | None = None, *, seed: int = 0) -> None:
        super().__init__(n_tokens, seed=seed)

    def __call__(self, cells: Cells) -> TokenSet:
        self._check_genes(cells.genes)
        counts = expressed(cells)
        if self.n_tokens is not None:
            counts = ranked(counts, self._typical, self._ties, self.n_tokens)
        return padded(counts, np.log1p(levels(counts, cells.size_factors)))


class Ranks(GeneTokenizer):
    """One token per expressed gene: its identity the gene, its value the gene's rank in the cell.

    Genes are ordered as Geneformer orders them (Theodoris et al. 2023, Nature 618:616): by
    expression relative to the gene's typical level, which is the median over expressing training
    cells. Since a set has no order, the rank is the token's value: the gene at place ``r`` (from 0)
    of ``n`` expressed genes has ``1 - r / n``, from 1 for the highest down to ``1 / n``. Ranks do
    not change with a cell's library size. Genes at zero are absent. Genes at the same relative
    level come in the order of a hash of ``seed`` and their name, so that ranks depend on the cell
    alone, not on its batch nor on the order of the genes.

    Parameters
    ----------
    n_tokens
        The most tokens that a cell may have, the highest ranks; None for no bound.
    seed
        Of the order among equals, and of the choice of cells to fit on when there are many.

    Raises
    ------
    InputError
        If ``n_tokens`` is not a whole number of at least 1.
    """

    name = "ranks"

    def __init__(self, n_tokens: int | None = 2048, *, seed: int = 0) -> None:
        super().__init__(n_tokens, seed=seed)

    def __call__(self, cells: Cells) -> TokenSet:
        self._check_genes(cells.genes)
        counts = expressed(cells)
        kept = ranked(counts, self._typical, self._ties, self.n_tokens)
        return padded(kept, 1.0 - places(kept) / np.diff(counts.indptr)[rows_of(kept)])


def padded(counts: sparse.csr_matrix, values: np.ndarray) -> TokenSet:
    """Make a token of each stored count, with one value, and pad the cells to the same number."""
    lengths = np.diff(counts.indptr)
    # At least one place, so that no array is empty where no cell has a token.
    shape = counts.shape[0], max(int(lengths.max(initial=0)), 1)
    mask_BT = np.arange(shape[1]) < lengths[:, None]
    values_BT, identities_BT = np.zeros(shape, np.float32), np.zeros(shape, np.int64)
    values_BT[mask_BT], identities_BT[mask_BT] = values, counts.indices
    return TokenSet(
        torch.from_numpy(values_BT[:, :, None]),
        torch.from_numpy(identities_BT),
        torch.from_numpy(mask_BT),
    )


def expressed(cells: Cells) -> sparse.csr_matrix:
    """Counts (B, G) float64 in memory of their own: a stored zero is not an expressed gene."""
    counts = sparse.csr_matrix(cells.counts, dtype=np.float64, copy=True)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    return counts


def rows_of(counts: sparse.csr_matrix) -> np.ndarray:
    """The cell of each stored count, int64, ascending."""
    return np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))


def places(counts: sparse.csr_matrix) -> np.ndarray:
    """The place of each stored count within its cell, from 0."""
    return np.arange(counts.nnz) - counts.indptr[rows_of(counts)]


def levels(counts: sparse.csr_matrix, size_factors: np.ndarray) -> np.ndarray:
    """Counts per 10,000, one for each stored count, float64, by the library sizes ``(B,)``."""
    scale = COUNTS_PER_CELL / size_factors.astype(np.float64)
    found: np.ndarray = counts.data * scale[rows_of(counts)]
    return found


def typical_levels(cells: CellStore, seed: int) -> np.ndarray:
    """Median level of each gene over the cells that express it, counts per 10,000, (G,).

    A bounded sample of the cells is looked at. A gene that no cell expresses has the median of the
    other genes.
    """
    sample = sample_cells(cells, seed)
    by_gene = expressed(sample)
    by_gene.data = levels(by_gene, sample.size_factors)
    by_gene = by_gene.tocsc()
    typical = np.full(sample.n_genes, np.nan)
    for gene in np.flatnonzero(np.diff(by_gene.indptr)):
        typical[gene] = np.median(by_gene.data[by_gene.indptr[gene] : by_gene.indptr[gene + 1]])
    known = ~np.isnan(typical)
    typical[~known] = np.median(typical[known]) if known.any() else 1.0
    return typical


def ranked(
    counts: sparse.csr_matrix, typical: np.ndarray, ties: np.ndarray, n_kept: int | None
) -> sparse.csr_matrix:
    """Order each cell's genes by their level relative to the typical one, highest first.

    Of two genes at the same relative level the one with the smaller number of `ties` comes first.
    No more than `n_kept` genes of a cell are kept; None for all.
    """
    # Within a cell the library size divides every gene alike, so ranks are taken without it.
    rows, relative = rows_of(counts), counts.data / typical[counts.indices]
    order = np.lexsort((ties[counts.indices], -relative, rows))
    if n_kept is not None:
        order = order[places(counts) < n_kept]
    ends = np.cumsum([0, *np.bincount(rows[order], minlength=counts.shape[0])])
    kept = counts.data[order], counts.indices[order], ends
    return sparse.csr_matrix(kept, shape=counts.shape)
