"""Draw counts, each cell with random numbers of its own (:mod:`celldit.random`)."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from celldit.latent.likelihoods import CountModel
from celldit.random import COUNTS_STREAM, cell_generator


def draw_counts(model: CountModel, keys: np.ndarray, seed: int) -> sparse.csr_matrix:
    """Draw the counts of B cells with keys of their own, int32 CSR, shape (B, G)."""
    drawn_BG = np.empty(tuple(model.mean_BG.shape), dtype=np.int32)
    for i, key in enumerate(keys):
        drawn_BG[i] = model.draw(i, cell_generator(seed, int(key)))
    drawn_BG[len(keys) :] = drawn_BG[len(keys) - 1]
    return sparse.csr_matrix(drawn_BG)


def draw_counterfactual_counts(
    model: CountModel,
    counts: sparse.csr_matrix,
    new_mean_BG: np.ndarray,
    keys: np.ndarray,
    seed: int,
    stream: int = COUNTS_STREAM,
) -> sparse.csr_matrix:
    """Draw the counts that B observed cells would have had under another expectation.

    The expectation of the draw is the distribution's ``counterfactual_mean``: transcripts that were
    seen stay with probability new / old where the expectation falls; where it rises, new ones come
    at the cell's own rate. An unchanged expectation gives the observed counts back exactly. `keys`,
    `seed` and `stream` are of the random numbers; the result is int32 CSR, shape (B, G)."""
    seen_BG = counts.toarray().astype(np.int64)
    drawn_BG = np.empty(seen_BG.shape, dtype=np.int32)
    for i, key in enumerate(keys):
        rng = cell_generator(seed, int(key), stream)
        new_mean_G = new_mean_BG[i].astype(np.float64)
        drawn_BG[i] = model.draw_counterfactual(i, seen_BG[i], new_mean_G, rng)
    drawn_BG[len(keys) :] = drawn_BG[len(keys) - 1]
    return sparse.csr_matrix(drawn_BG)


def unlike(at_B: np.ndarray) -> int:
    """How many cells of a tile there are before the last of them fills it up.

    Only these need keys, in the two functions above: cells beyond the keys repeat the last.
    """
    return 1 + int(np.argmax(at_B == at_B[-1]))
