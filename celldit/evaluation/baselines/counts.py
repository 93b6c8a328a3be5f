"""Counts that say what a baseline's shift says."""

from __future__ import annotations

import numpy as np
from scipy import sparse

# Largest factor by which a gene is scaled.
LARGEST = 100.0
ROUNDS = 30


def edit_counts(
    counts_NG: sparse.csr_matrix,
    size_factors_N: np.ndarray,
    shift_G: np.ndarray,
    rng: np.random.Generator,
) -> sparse.csr_matrix:
    """Scale each gene of control cells so that its mean log expression moves by a shift.

    The N cells are of one context, with library sizes; the shift is in mean log expression, log(1 +
    10,000 counts / size factor). One factor for each gene, found by bisection; cells without the
    gene stay without it, so a gene that no cell shows stays silent, and none is scaled by more than
    a hundred. Fractions are rounded up or down at random, right on average.

    Returns
    -------
    scipy.sparse.csr_matrix of int32, shape (N, G)
    """
    columns = counts_NG.tocsc().astype(np.float64)
    n_cells = columns.shape[0]
    per_count = 1e4 / np.asarray(size_factors_N, dtype=np.float64)
    unit = per_count[columns.indices]
    gene = np.repeat(np.arange(columns.shape[1]), np.diff(columns.indptr))

    def mean_log(factor_G: np.ndarray) -> np.ndarray:
        """Mean log expression that is to be expected after rounding."""
        wanted = columns.data * factor_G[gene]
        whole = np.floor(wanted)
        up = wanted - whole
        values = (1.0 - up) * np.log1p(whole * unit) + up * np.log1p((whole + 1.0) * unit)
        return np.bincount(gene, weights=values, minlength=columns.shape[1]) / n_cells

    target_G = np.maximum(mean_log(np.ones(columns.shape[1])) + shift_G, 0.0)
    low_G = np.full(columns.shape[1], np.log(1.0 / LARGEST) - 5.0)
    high_G = np.full(columns.shape[1], np.log(LARGEST))
    for _ in range(ROUNDS):
        middle_G = 0.5 * (low_G + high_G)
        below = mean_log(np.exp(middle_G)) < target_G
        low_G, high_G = np.where(below, middle_G, low_G), np.where(below, high_G, middle_G)
    wanted = columns.data * np.exp(0.5 * (low_G + high_G))[gene]
    columns.data = np.floor(wanted + rng.random(len(wanted)))
    columns.eliminate_zeros()
    return columns.tocsr().astype(np.int32)
