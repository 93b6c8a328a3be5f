"""Energy distance between two samples of cells."""

from __future__ import annotations

import numpy as np

from celldit.evaluation.metrics.pairwise import center_together, mean_over_pairs


def energy_distance(x_ND: np.ndarray, y_MD: np.ndarray) -> float:
    """Energy distance with unsquared Euclidean distances, ``2 E|X-Y| - E|X-X'| - E|Y-Y'|``.

    The U-statistic: the pairs within a sample leave out each point with itself, so the estimate is
    unbiased, 0 on average for two samples of one distribution, and may be negative. Some packages
    square the distances or keep the self-pairs; their values differ.

    Parameters
    ----------
    x_ND, y_MD
        Two samples in D dimensions, shapes (N, D) and (M, D), with at least two points each.
        Memory stays under 200 MB whatever the number of cells.

    Returns
    -------
    float
        In the unit of the coordinates; NaN when a sample has fewer than two points.

    References
    ----------
    Székely & Rizzo (2013), Energy statistics: a class of statistics based on distances.
    """
    x_ND, y_MD = center_together(x_ND, y_MD)
    between = mean_over_pairs(x_ND, y_MD, _root)
    within = mean_over_pairs(x_ND, None, _root) + mean_over_pairs(y_MD, None, _root)
    return 2.0 * between - within


def _root(squared: np.ndarray) -> np.ndarray:
    return np.sqrt(squared, out=squared)
