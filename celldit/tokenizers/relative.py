"""Expression relative to each gene's typical level, and the order of genes that it gives a cell.

Geneformer (Theodoris et al. 2023, Nature 618:616) orders the genes of a cell by their normalised
expression divided by the gene's median over the cells that express it, so that a housekeeping gene
at its usual level comes after a transcription factor above its own. That order is computed here
entry by entry of a sparse matrix, so that neither the other cells of a batch nor the arrangement of
the genes has any part in it.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from celldit.data.cells import COUNTS_PER_CELL, Cells
from celldit.data.store import CellStore
from celldit.tokenizers.canonical import sample_cells


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
