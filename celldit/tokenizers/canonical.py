"""An order of cells and genes for fitting that does not depend on how the AnnData was arranged."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from celldit.data.cells import Cells
from celldit.data.store import CellStore
from celldit.errors import InputError

MAX_FIT_CELLS = 20_000
"""Fitting looks at no more cells than this, so that its cost does not grow with the data."""


@dataclass(frozen=True, eq=False)
class SortedExpression:
    """Log-normalised expression with the genes sorted by name.

    Whatever is computed from it comes out bit for bit the same however the genes were arranged.
    """

    log_SG: sparse.csc_matrix  # float32, genes in sorted order
    order: np.ndarray  # for each sorted gene its position among those of the cells, (G,)


def sample_cells(cells: CellStore, seed: int) -> Cells:
    """Draw at most :data:`MAX_FIT_CELLS` cells without replacement, kept in their order.

    InputError if there is no cell or no gene.
    """
    if cells.n_cells == 0 or cells.n_genes == 0:
        raise InputError(
            f"A tokenizer cannot be fitted on {cells.n_cells} cells and {cells.n_genes} genes; "
            "give at least one of each."
        )
    if cells.n_cells <= MAX_FIT_CELLS:
        return cells.take(slice(None))
    rng = np.random.default_rng(seed)
    return cells.take(np.sort(rng.choice(cells.n_cells, MAX_FIT_CELLS, replace=False)))


def sorted_expression(cells: CellStore, seed: int) -> SortedExpression:
    """Log-normalise a bounded sample of the cells and sort the genes by name."""
    sample = sample_cells(cells, seed)
    order = np.argsort(np.asarray(cells.genes, dtype=object), kind="stable")
    log_SG = sample.log_normalized().tocsc()[:, order]
    return SortedExpression(sparse.csc_matrix(log_SG), order)


def tie_order(genes: tuple[str, ...], seed: int) -> np.ndarray:
    """Rank genes by a hash of name and seed: arbitrary, but the same in every data set."""
    digests = [
        hashlib.blake2b(f"{seed}:{gene}".encode(), digest_size=16).digest() for gene in genes
    ]
    ranks = np.empty(len(genes), dtype=np.int64)
    ranks[sorted(range(len(genes)), key=digests.__getitem__)] = np.arange(len(genes))
    return ranks
