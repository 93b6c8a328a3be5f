"""Measures of single cells: spread, zeros, how genes vary together, telling them from measured."""

from __future__ import annotations

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from celldit.random import short_seed

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


def classifier_auc(
    predicted_NG: np.ndarray,
    true_MG: np.ndarray,
    *,
    seed: int = 0,
) -> float:
    """Area under the ROC curve of gradient-boosted trees, measured against predicted cells.

    Cross-validated: the mean over five folds, fewer of fewer cells, of the area on the cells left
    out.

    Parameters
    ----------
    predicted_NG, true_MG
        Log expression, shapes (N, G) and (M, G). Both are thinned to one size, at most 500.
    seed
        Of the thinning, the folds and the trees.

    Returns
    -------
    float
        0.5 when the two cannot be told apart, 1 when they always can. NaN when there are fewer than
        two cells of either kind.
    """
    x, labels = _balanced(predicted_NG, true_MG, 500, seed)
    n_each = len(labels) // 2
    if n_each < 2:
        return float("nan")
    folds = StratifiedKFold(min(5, n_each), shuffle=True, random_state=short_seed(seed))
    model = HistGradientBoostingClassifier(
        max_iter=60, early_stopping=False, random_state=short_seed(seed), max_bins=64
    )
    with threadpool_limits(limits=1):
        areas = cross_val_score(model, x, labels, cv=folds, scoring="roc_auc")
    return float(areas.mean())


def nearest_neighbor_accuracy(
    predicted_ND: np.ndarray, true_MD: np.ndarray, *, seed: int = 0
) -> float:
    """Leave-one-out accuracy of the nearest neighbour, measured against predicted cells.

    Parameters
    ----------
    predicted_ND, true_MD
        Cells in D dimensions, shapes (N, D) and (M, D). Both are thinned to one size, at most
        2,000.
    seed
        Of the thinning.

    Returns
    -------
    float
        0.5 when the two are mixed, 1 when they lie apart, below 0.5 when predictions sit on top of
        measured cells (copies). NaN when there are fewer than two cells of either kind.

    References
    ----------
    Lopez-Paz & Oquab (2017), Revisiting classifier two-sample tests.
    """
    x, labels = _balanced(predicted_ND, true_MD, 2000, seed)
    if len(labels) < 4:
        return float("nan")
    with threadpool_limits(limits=1):
        nearest = NearestNeighbors(n_neighbors=1).fit(x).kneighbors(return_distance=False)[:, 0]
    return float(np.mean(labels[nearest] == labels))


def thin(n_cells: int, n_kept: int, seed: int) -> np.ndarray:
    """Positions of ``n_kept`` of ``n_cells`` cells drawn without replacement, sorted."""
    if n_cells <= n_kept:
        return np.arange(n_cells)
    return np.sort(np.random.default_rng(seed).choice(n_cells, n_kept, replace=False))


def _balanced(
    predicted_NG: np.ndarray, true_MG: np.ndarray, max_cells: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    n_each = min(len(predicted_NG), len(true_MG), max_cells)
    rows_x, rows_y = thin(len(predicted_NG), n_each, seed), thin(len(true_MG), n_each, seed + 1)
    labels = np.repeat([1, 0], n_each)
    return np.concatenate([predicted_NG[rows_x], true_MG[rows_y]]), labels
