"""Expression relative to each gene's typical level, and the order of genes that it gives a cell.

Geneformer (Theodoris et al. 2023, Nature 618:616) orders the genes of a cell by their normalised
expression divided by the gene's median over the cells that express it, so that a housekeeping gene
at its usual level comes after a transcription factor above its own. That order is computed here
entry by entry of a sparse matrix, so that neither the other cells of a batch nor the arrangement of
the genes has any part in it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from celldit.data.cells import Cells
from celldit.data.store import CellStore
from celldit.tokenizers.canonical import sample_cells

_COUNTS_PER_CELL = 1e4


@dataclass(frozen=True, eq=False)
class Entries:
    """The expressed genes of some cells, end to end.

    Parameters
    ----------
    cells, genes
        ``(E,)`` int64, row and column of each entry; rows ascend.
    counts
        ``(E,)`` float64, raw counts, above zero.
    lengths
        ``(B,)`` int64, number of entries of each cell.
    """

    cells: np.ndarray
    genes: np.ndarray
    counts: np.ndarray
    lengths: np.ndarray

    def take(self, index: np.ndarray) -> Entries:
        """Pick entries by a mask or by positions that leave rows ascending."""
        cells = self.cells[index]
        lengths = np.bincount(cells, minlength=len(self.lengths))
        return Entries(cells, self.genes[index], self.counts[index], lengths)

    def positions(self) -> np.ndarray:
        """Return the place of each entry within its cell, ``(E,)`` from 0."""
        starts = np.cumsum(self.lengths) - self.lengths
        return np.arange(len(self.cells)) - starts[self.cells]


def expressed_entries(cells: Cells) -> Entries:
    """List the genes that each cell expresses, in the order of the genes."""
    counts: sparse.csr_matrix = cells.counts
    if not counts.has_canonical_format:
        counts = counts.copy()
        counts.sum_duplicates()
    lengths = np.diff(counts.indptr).astype(np.int64)
    rows = np.repeat(np.arange(counts.shape[0]), lengths)
    entries = Entries(
        rows, counts.indices.astype(np.int64), counts.data.astype(np.float64), lengths
    )
    # A stored zero is not an expressed gene.
    return entries if np.all(counts.data != 0) else entries.take(counts.data != 0)


def levels(entries: Entries, size_factors: np.ndarray) -> np.ndarray:
    """Counts per 10,000 of each entry, ``(E,)`` float64, from the cells' library sizes ``(B,)``."""
    scale = _COUNTS_PER_CELL / size_factors.astype(np.float64)
    return entries.counts * scale[entries.cells]


def typical_levels(cells: CellStore, seed: int) -> np.ndarray:
    """Median level of each gene over the cells that express it, counts per 10,000, (G,).

    A bounded sample of the cells is looked at. A gene that no cell expresses has the median of the
    other genes.
    """
    sample = sample_cells(cells, seed)
    entries = expressed_entries(sample)
    by_gene = sparse.csc_matrix(
        (levels(entries, sample.size_factors), (entries.cells, entries.genes)),
        shape=(sample.n_cells, sample.n_genes),
    )
    typical = np.full(sample.n_genes, np.nan)
    for gene in np.flatnonzero(np.diff(by_gene.indptr)):
        typical[gene] = np.median(by_gene.data[by_gene.indptr[gene] : by_gene.indptr[gene + 1]])
    known = ~np.isnan(typical)
    typical[~known] = np.median(typical[known]) if known.any() else 1.0
    return typical


def rank_entries(entries: Entries, typical: np.ndarray, ties: np.ndarray) -> Entries:
    """Order each cell's genes by their level relative to the typical one, highest first.

    Of two genes at the same relative level the one with the smaller number of `ties` comes first.
    """
    # Within a cell the library size divides every gene alike, so ranks are taken without it.
    relative = entries.counts / typical[entries.genes]
    return entries.take(np.lexsort((ties[entries.genes], -relative, entries.cells)))
