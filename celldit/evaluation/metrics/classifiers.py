"""Can a classifier tell predicted from measured cells?"""

from __future__ import annotations

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits


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
    folds = StratifiedKFold(min(5, n_each), shuffle=True, random_state=seed)
    areas = []
    with threadpool_limits(limits=1):
        for train, test in folds.split(x, labels):
            model = HistGradientBoostingClassifier(
                max_iter=60, early_stopping=False, random_state=seed, max_bins=64
            )
            model.fit(x[train], labels[train])
            areas.append(roc_auc_score(labels[test], model.decision_function(x[test])))
    return float(np.mean(areas))


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
