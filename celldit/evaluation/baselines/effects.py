"""Mean shifts of the trained conditions, from which every baseline is made."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse

from celldit.data.cells import Cells
from celldit.errors import InputError, examples


@dataclass(frozen=True, eq=False)
class Effects:
    """The mean shift of E conditions, a condition being a perturbation in a context.

    `shifts` are mean log expression of the perturbed cells minus that of the control cells of the
    same context, float64, shape (E, G), from `n_cells` perturbed cells each, shape (E,);
    `perturbations` and `contexts` are labels of each condition, `genes` the G names.
    """

    shifts: np.ndarray
    perturbations: tuple[str, ...]
    contexts: tuple[str, ...]
    n_cells: np.ndarray
    genes: tuple[str, ...]

    def find(self, perturbation: str, context: str | None = None) -> np.ndarray:
        """Positions of a perturbation's conditions, in one context or in all."""
        own = np.array(self.perturbations, dtype=object) == perturbation
        if context is not None:
            own &= np.array(self.contexts, dtype=object) == context
        return np.flatnonzero(own)

    def average(self, rows: np.ndarray) -> np.ndarray:
        """Mean shift of some conditions, weighted by their numbers of cells, shape (G,)."""
        weights = self.n_cells[rows].astype(np.float64)
        return weights @ self.shifts[rows] / weights.sum()


def measure_effects(train: Cells) -> Effects:
    """Measure the mean shift of every perturbation in every context.

    Raises
    ------
    InputError
        If there are no perturbed cells, or a context with perturbed cells has no control cells.
    """
    if bool(train.is_control.all()):
        raise InputError(
            f"There is nothing to fit: all {train.n_cells} training cells are labelled "
            f"{train.control!r}; include perturbed cells."
        )
    log_NG = train.log_normalized()
    controls = train.is_control
    base, contexts_of_base, _ = group_means(log_NG[controls], train.contexts[controls])
    row_of = {context: row for row, context in enumerate(contexts_of_base)}
    bare = sorted(set(train.contexts[~controls]) - set(row_of))
    if bare:
        raise InputError(
            f"{len(bare)} contexts of the training data have perturbed but no control cells "
            f"({examples(bare)}); add their control cells or leave them out."
        )
    labels = pd.MultiIndex.from_arrays(
        [train.perturbations[~controls], train.contexts[~controls]]
    ).to_flat_index()
    means, keys, n_cells = group_means(log_NG[~controls], np.asarray(labels, dtype=object))
    perturbations = tuple(str(key[0]) for key in keys)
    contexts = tuple(str(key[1]) for key in keys)
    shifts = means - base[[row_of[context] for context in contexts]]
    return Effects(shifts, perturbations, contexts, n_cells, train.genes)


def group_means(
    log_NG: sparse.csr_matrix, labels_N: np.ndarray
) -> tuple[np.ndarray, list, np.ndarray]:
    """Average cells by a hashable label: means (L, G), the L labels, sorted, and their cells."""
    codes, distinct = pd.factorize(labels_N, sort=True)
    n_cells = np.bincount(codes, minlength=len(distinct))
    picks = sparse.csr_matrix(
        (np.ones(len(codes)), (codes, np.arange(len(codes)))), shape=(len(distinct), len(codes))
    )
    sums = picks @ log_NG.astype(np.float64)
    return sums.toarray() / np.maximum(n_cells, 1)[:, None], list(distinct), n_cells
