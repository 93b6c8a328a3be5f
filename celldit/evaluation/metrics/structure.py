"""Measures of what lies beyond the mean: spread, zeros, and how genes vary together."""

from __future__ import annotations

import numpy as np

# Halves whose correlations agree less than this (as a cosine) make the relative error a lottery.
LEAST_AGREEMENT = 0.05
N_GENES = 100
N_SPLITS = 10


def variance_ratio(predicted_NG: np.ndarray, true_MG: np.ndarray) -> float:
    """Total variance of the predicted cells over that of the measured ones.

    Parameters
    ----------
    predicted_NG, true_MG
        Log expression, shapes (N, G) and (M, G).

    Returns
    -------
    float
        1 is right, below 1 too narrow, 0 for cells that are all alike. NaN when a sample has fewer
        than two cells or the measured ones do not vary.
    """
    if min(len(predicted_NG), len(true_MG)) < 2:
        return float("nan")
    expected = float(np.var(true_MG, axis=0, ddof=1, dtype=np.float64).sum())
    found = float(np.var(predicted_NG, axis=0, ddof=1, dtype=np.float64).sum())
    return found / expected if expected > 0 else float("nan")


def zero_fraction_error(predicted_NG: np.ndarray, true_MG: np.ndarray) -> float:
    """Mean over genes of the absolute error of the share of cells without the gene.

    Parameters
    ----------
    predicted_NG, true_MG
        Log expression, shapes (N, G) and (M, G). Values of 0 or less count as zeros.

    Returns
    -------
    float
        In [0, 1]; NaN when a sample is empty.
    """
    if min(len(predicted_NG), len(true_MG)) < 1:
        return float("nan")
    gap_G = np.mean(predicted_NG <= 0, axis=0) - np.mean(true_MG <= 0, axis=0)
    return float(np.mean(np.abs(gap_G)))


def correlation_error(
    predicted_NG: np.ndarray,
    true_MG: np.ndarray,
    *,
    seed: int = 0,
) -> float:
    """Squared error of the gene-gene correlations over their squared size, free of noise.

    ``<C1 - C1', C2 - C2'> / <C1', C2'>`` over pairs of genes, with C1 and C2 the correlations in
    two halves of the predicted cells and C1', C2' those in two halves of the measured ones,
    averaged over ten random halvings. The genes are the 100 that vary most among the measured
    cells (rare ones correlate with nothing but noise). The noise of one half is independent of that
    of the other, so it cancels in the products; plainly squared, a few hundred cells say more about
    noise than genes.

    Parameters
    ----------
    predicted_NG, true_MG
        Log expression, shapes (N, G) and (M, G).
    seed
        Of the halvings.

    Returns
    -------
    float
        Near 0 for a replicate (it may fall below), 1 for a prediction without correlations; without
        upper bound. A constant gene correlates 0 with all others. NaN when a sample has fewer than
        six cells, or when the measured correlations do not reproduce between halves (usual below
        a hundred cells).
    """
    if min(len(predicted_NG), len(true_MG)) < 6:
        return float("nan")
    spread_G = np.var(true_MG, axis=0, dtype=np.float64)
    chosen = np.argsort(-spread_G, kind="stable")[:N_GENES]
    rng = np.random.default_rng(seed)
    error = signal = size = 0.0
    for _ in range(N_SPLITS):
        found_1, found_2 = _halved_correlations(predicted_NG[:, chosen], rng)
        expected_1, expected_2 = _halved_correlations(true_MG[:, chosen], rng)
        error += float(np.sum((found_1 - expected_1) * (found_2 - expected_2)))
        signal += float(np.sum(expected_1 * expected_2))
        size += float(np.linalg.norm(expected_1) * np.linalg.norm(expected_2))
    return error / signal if signal > LEAST_AGREEMENT * size else float("nan")


def _halved_correlations(
    x_NG: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    order = rng.permutation(len(x_NG))
    half = len(x_NG) // 2
    return _correlations(x_NG[order[:half]]), _correlations(x_NG[order[half:]])


def _correlations(x_NG: np.ndarray) -> np.ndarray:
    """Correlations of genes, 0 on the diagonal and for constant genes, shape (G, G)."""
    centered = x_NG - x_NG.mean(axis=0, dtype=np.float64)
    lengths_G = np.linalg.norm(centered, axis=0)
    varies_G = lengths_G > 1e-5 * np.sqrt(len(x_NG))
    unit = np.divide(centered, lengths_G, out=np.zeros_like(centered), where=varies_G)
    correlations_GG = unit.T @ unit
    np.fill_diagonal(correlations_GG, 0.0)
    return correlations_GG
