"""Mean rates of genes in groups of cells, and their ratios, with sampling variances."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from celldit.calibration.rates.fold_change import PSEUDO_RATE
from celldit.data.store import CellStore

BLOCK = 4_096


@dataclass(frozen=True, eq=False)
class MeanRates:
    """Counts per 10,000 of each gene in a group of cells, with the pseudo-rate of predictions.

    Attributes
    ----------
    mean_G, variance_G
        Mean, and its sampling variance, shape (G,).
    of_one
        Mean that a single count among all cells of the group makes.
    """

    mean_G: np.ndarray
    variance_G: np.ndarray
    of_one: float

    @property
    def log_variance_G(self) -> np.ndarray:
        """Sampling variance of the log mean, shape (G,)."""
        return self.variance_G / self.mean_G**2


def mean_rates(
    cells: CellStore, group_N: np.ndarray, groups: Collection[int]
) -> dict[int, MeanRates]:
    """Measure groups of cells in one pass over all of them.

    Parameters
    ----------
    cells
        N cells.
    group_N
        Group of each cell.
    groups
        Those wanted.
    """
    wanted = sorted(groups)
    place = np.full(max([*wanted, int(group_N.max(initial=0))], default=0) + 1, len(wanted))
    place[wanted] = np.arange(len(wanted))
    shape = len(wanted), cells.n_genes
    sums, squares = np.zeros(shape), np.zeros(shape)
    n_cells, per_count = np.zeros(len(wanted)), np.zeros(len(wanted))
    start = 0
    for block in cells.blocks(BLOCK) if wanted else ():
        of_cell = place[group_N[start : start + block.n_cells]]
        start += block.n_cells
        own = np.flatnonzero(of_cell < len(wanted))
        chosen = sparse.csr_matrix(
            (np.ones(len(own)), (of_cell[own], own)), shape=(len(wanted), block.n_cells)
        )
        scale_B = 1e4 / block.size_factors.astype(np.float64)
        rate = sparse.csr_matrix(sparse.diags(scale_B) @ block.counts)
        sums += (chosen @ rate).toarray()
        squares += (chosen @ rate.power(2)).toarray()
        n_cells += np.bincount(of_cell[own], minlength=len(wanted))
        per_count += np.bincount(of_cell[own], scale_B[own], minlength=len(wanted))
    found = {}
    for row, group in enumerate(wanted):
        n = max(n_cells[row], 1)
        mean = sums[row] / n
        scatter = (squares[row] / n - mean**2) / max(n - 1, 1)
        # Of few counts the scatter between cells says nothing: no count at all is no proof of
        # silence. So the variance is at least that of Poisson counts, had there been one more.
        of_one = per_count[row] / n**2
        poisson = (mean + of_one) * of_one
        found[group] = MeanRates(mean + PSEUDO_RATE, np.maximum(scatter, poisson), of_one)
    return found


def measured_fold_change(control: MeanRates, treated: MeanRates) -> tuple[np.ndarray, np.ndarray]:
    """Log ratio of mean rates, and its sampling variance, each of shape (G,)."""
    fold_G = np.log(treated.mean_G) - np.log(control.mean_G)
    return fold_G, control.log_variance_G + treated.log_variance_G
