"""How well a prediction tells what a perturbation does beyond what all of them do."""

from __future__ import annotations

import numpy as np

from celldit.evaluation.metrics.shift import pearson_shift


def centroid_correlations(predicted_PG: np.ndarray, true_PG: np.ndarray) -> np.ndarray:
    """Pearson correlation of shifts taken from the centroid of the measured perturbations.

    From control cells, what all perturbations have in common makes every prediction look right;
    from their centroid only what sets one apart counts.

    Parameters
    ----------
    predicted_PG, true_PG
        Shifts of P perturbations in log expression, shape (P, G), in the same order.

    Returns
    -------
    numpy.ndarray of float, shape (P,)
        0 for a prediction of the centroid itself. All NaN with fewer than three perturbations: of
        two, each lies opposite the other.
    """
    u_PG = np.asarray(predicted_PG, dtype=np.float64)
    v_PG = np.asarray(true_PG, dtype=np.float64)
    if len(v_PG) < 3:
        return np.full(len(v_PG), np.nan)
    centroid_G = v_PG.mean(axis=0)
    return np.array(
        [pearson_shift(u - centroid_G, v - centroid_G) for u, v in zip(u_PG, v_PG, strict=True)]
    )
