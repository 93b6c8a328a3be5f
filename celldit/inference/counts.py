"""Draw counts, each cell from a random stream of its own.

A cell's stream depends on the seed and the cell's key alone, so cell 17 is the same whether 20 or
20,000 cells are drawn, and in whatever batches.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from celldit.latent.likelihoods import CountDistribution


def cell_generator(seed: int, key: int) -> np.random.Generator:
    """The random stream of one cell."""
    return np.random.Generator(np.random.Philox(key=[seed % 2**64, key % 2**64]))


def draw_counts(model: CountDistribution, keys: np.ndarray, seed: int) -> sparse.csr_matrix:
    """Draw counts.

    Parameters
    ----------
    model
        Distribution of the counts of B cells.
    keys
        One integer per cell, shape (B,).
    seed
        Seed of the call.

    Returns
    -------
    scipy.sparse.csr_matrix of int32, shape (B, G)
    """
    drawn_BG = np.empty(tuple(model.mean_BG.shape), dtype=np.int32)
    for i, key in enumerate(keys):
        drawn_BG[i] = model.draw(i, cell_generator(seed, int(key)))
    return sparse.csr_matrix(drawn_BG)


def draw_counterfactual_counts(
    model: CountDistribution,
    counts: sparse.csr_matrix,
    new_mean_BG: np.ndarray,
    keys: np.ndarray,
    seed: int,
) -> sparse.csr_matrix:
    """Draw the counts that observed cells would have had under another expectation.

    The expectation of the draw is the distribution's ``counterfactual_mean``: transcripts that were
    seen stay with probability new / old where the expectation falls; where it rises, new ones come
    at the cell's own rate. An unchanged expectation gives the observed counts back exactly.

    Parameters
    ----------
    model
        Distribution of the observed counts of B cells.
    counts
        The observed counts, shape (B, G).
    new_mean_BG
        Expected counts under the counterfactual.
    keys, seed
        As in :func:`draw_counts`.

    Returns
    -------
    scipy.sparse.csr_matrix of int32, shape (B, G)
    """
    seen_BG = counts.toarray().astype(np.int64)
    drawn_BG = np.empty(seen_BG.shape, dtype=np.int32)
    for i, key in enumerate(keys):
        rng = cell_generator(seed, int(key))
        new_mean_G = new_mean_BG[i].astype(np.float64)
        drawn_BG[i] = model.draw_counterfactual(i, seen_BG[i], new_mean_G, rng)
    return sparse.csr_matrix(drawn_BG)
