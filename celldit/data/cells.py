"""Cells in memory: what the later stages see of an AnnData."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import anndata as ad
import numpy as np
from scipy import sparse

from celldit.data.counts import read_counts, select_matrix, sizes_of
from celldit.data.fields import Fields
from celldit.data.genes import match_genes
from celldit.data.labels.columns import read_columns
from celldit.data.store import PER_CELL, CellStore, Index, digest
from celldit.errors import InputError

#: Library size to which :meth:`Cells.log_normalized` scales.
COUNTS_PER_CELL = 1e4


@dataclass(frozen=True, eq=False)
class Cells(CellStore):
    """N cells x G genes of raw counts in memory, with what was done to each cell.

    Parameters
    ----------
    counts
        Raw counts, float32 CSR, shape (N, G).
    names, genes, size_factors, perturbations, covariates, doses, times, control
        See :class:`celldit.data.CellStore`; one entry for each of the N cells.
    """

    counts: sparse.csr_matrix
    names: np.ndarray

    def __post_init__(self) -> None:
        n_cells, n_genes = self.counts.shape
        if len(self.genes) != n_genes:
            raise InputError(f"{len(self.genes)} gene names for {n_genes} columns of counts.")
        for name in (*PER_CELL, "names"):
            values = getattr(self, name)
            if values is not None and len(values) != n_cells:
                raise InputError(f"{name} has {len(values)} entries for {n_cells} cells.")

    @classmethod
    def from_anndata(
        cls, adata: ad.AnnData, fields: Fields, genes: Sequence[str] | None = None
    ) -> Cells:
        """Read the cells of an AnnData.

        Parameters
        ----------
        adata
            In memory, a view, or backed; it is not changed.
        fields
            What its columns mean. It need not be the AnnData on which they were set up.
        genes
            The genes wanted, in the order wanted; None for all as they are.

        Returns
        -------
        Cells

        Raises
        ------
        InputError
            If the counts, a column, or the genes cannot be used.
        UnknownNameError
            If a column or layer does not exist.
        """
        select_matrix(adata, fields.counts_layer)
        columns = None if genes is None else match_genes(adata.var_names, genes)
        per_cell = read_columns(adata, fields)
        counts = read_counts(adata, fields.counts_layer, columns)
        if per_cell["size_factors"] is None:
            totals_N = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
            per_cell["size_factors"] = sizes_of(totals_N)
        return cls(
            counts=counts,
            genes=tuple(str(g) for g in (adata.var_names if genes is None else genes)),
            names=np.asarray(adata.obs_names.astype(str), dtype=object),
            control=fields.control,
            **per_cell,
        )

    def take(self, index: Index) -> Cells:
        """Pick cells by positions, a boolean mask or a slice; the order given is kept."""
        rows = np.arange(self.n_cells)[index if isinstance(index, slice) else np.asarray(index)]
        counts = sparse.csr_matrix(self.counts[rows])
        return replace(self, counts=counts, names=self.names[rows], **self.columns_of(rows))

    def select(self, index: Index) -> Cells:
        """The same as :meth:`take`: these cells are in memory already."""
        return self.take(index)

    def identity(self) -> str:
        """Digest of the counts."""
        return digest(self.counts.data, self.counts.indices, self.counts.indptr)

    def blocks(self, size: int) -> Iterator[Cells]:
        """Give all cells in order, `size` at a time."""
        for start in range(0, self.n_cells, size):
            yield self.take(slice(start, start + size))

    def log_normalized(self) -> sparse.csr_matrix:
        """Log expression, log(1 + 10,000 counts / size factor).

        Returns
        -------
        scipy.sparse.csr_matrix of float32, shape (N, G)
            Zeros stay zeros, so it is as sparse as the counts.
        """
        return log_normalized(self.counts, self.size_factors)


def log_normalized(counts: sparse.csr_matrix, size_factors: np.ndarray) -> sparse.csr_matrix:
    """log(1 + 10,000 counts / size factor) of rows of float32 counts, seen or expected."""
    scale = (COUNTS_PER_CELL / size_factors.astype(np.float64)).astype(np.float32)
    result = counts.copy()
    result.data *= np.repeat(scale, np.diff(result.indptr))
    np.log1p(result.data, out=result.data)
    return result
