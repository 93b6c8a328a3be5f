"""Draw counts, each cell from a random stream of its own.

A cell's stream depends on the seed and the cell's key alone, so cell 17 is the same whether 20 or
20,000 cells are drawn, and in whatever batches.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from celldit.latent.likelihoods import CountModel


def cell_generator(seed: int, key: int) -> np.random.Generator:
    """The random stream of one cell."""
    return np.random.Generator(np.random.Philox(key=[seed % 2**64, key % 2**64]))


def draw_counts(model: CountModel, keys: np.ndarray, seed: int) -> sparse.csr_matrix:
    """Draw negative binomial counts.

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
    mean_BG = model.mean_BG.double().numpy()
    theta_G = model.theta_G.double().numpy()
    rows = []
    for mean_G, key in zip(mean_BG, keys, strict=True):
        rng = cell_generator(seed, int(key))
        rows.append(sparse.csr_matrix(_negative_binomial(rng, mean_G, theta_G)[None]))
    return _stack(rows, len(theta_G))


def draw_counterfactual_counts(
    model: CountModel,
    counts: sparse.csr_matrix,
    new_mean_BG: np.ndarray,
    keys: np.ndarray,
    seed: int,
) -> sparse.csr_matrix:
    """Draw the counts that observed cells would have had under another expectation.

    The expectation of the draw is :meth:`CountModel.counterfactual_mean`: transcripts that were seen
    stay with probability new / old where the expectation falls; where it rises, new ones come at the
    cell's own rate. An unchanged expectation gives the observed counts back exactly.

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
    mean_BG = model.mean_BG.double().numpy()
    theta_G = model.theta_G.double().numpy()
    rows = []
    for i, key in enumerate(keys):
        rng = cell_generator(seed, int(key))
        seen_G = counts[i].toarray()[0].astype(np.int64)
        new_G = new_mean_BG[i].astype(np.float64)
        drawn_G = seen_G.copy()
        falls = np.flatnonzero((seen_G > 0) & (new_G < mean_BG[i]))
        drawn_G[falls] = rng.binomial(seen_G[falls], new_G[falls] / mean_BG[i, falls])
        rises = np.flatnonzero(new_G > mean_BG[i])
        shape = seen_G[rises] + theta_G[rises]
        rate = shape / (mean_BG[i, rises] + theta_G[rises])
        rise = (new_G[rises] - mean_BG[i, rises]) * rate
        drawn_G[rises] += _negative_binomial(rng, rise, shape)
        rows.append(sparse.csr_matrix(drawn_G[None]))
    return _stack(rows, len(theta_G))


def _negative_binomial(rng: np.random.Generator, mean: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """A Poisson with a gamma rate; means beyond what integers hold are bounded."""
    rate = mean * rng.standard_gamma(theta) / theta
    return rng.poisson(np.minimum(rate, 1e9))


def _stack(rows: list[sparse.csr_matrix], n_genes: int) -> sparse.csr_matrix:
    if not rows:
        return sparse.csr_matrix((0, n_genes), dtype=np.int32)
    return sparse.vstack(rows, format="csr").astype(np.int32)
