"""Distances between two samples of cells: energy, kernel and transport.

Sums over all pairs of cells are taken one tile at a time, so that memory does not grow with the
pairs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.spatial.distance import pdist
from sklearn.metrics import euclidean_distances

from celldit.errors import InputError

Kernel = Callable[[np.ndarray], np.ndarray]

#: Cells on a side of a tile.
TILE = 1400
#: Kernel widths of the MMD are this multiple of the bandwidth, and each half the one before.
LARGEST_FACTOR = 4.0
N_WIDTHS = 5


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
    between = mean_over_pairs(x_ND, y_MD, np.sqrt)
    within = mean_over_pairs(x_ND, None, np.sqrt) + mean_over_pairs(y_MD, None, np.sqrt)
    return 2.0 * between - within


def mmd(
    x_ND: np.ndarray,
    y_MD: np.ndarray,
    *,
    bandwidth: float | None = None,
) -> float:
    """Squared maximum mean discrepancy, unbiased, averaged over RBF kernels of several widths.

    ``E k(X,X') + E k(Y,Y') - 2 E k(X,Y)``, with ``k(x,y)`` the mean of
    ``exp(-|x-y|^2 / (2 (f b)^2))`` over f = 4, 2, 1, 1/2 and 1/4, and without self-pairs, so it is
    0 on average for two samples of one distribution and may be negative.

    Parameters
    ----------
    x_ND
        Predicted cells in D dimensions, shape (N, D).
    y_MD
        Measured cells, shape (M, D).
    bandwidth
        b above, in the unit of the coordinates; None for the median distance between the measured
        cells, so that the prediction cannot choose the kernel it is judged by.

    Returns
    -------
    float
        NaN when a sample has fewer than two points.

    Raises
    ------
    InputError
        If the bandwidth is not above 0.

    References
    ----------
    Gretton et al. (2012), A kernel two-sample test, lemma 6.
    """
    x_ND, y_MD = center_together(x_ND, y_MD)
    if min(len(x_ND), len(y_MD)) < 2:
        return float("nan")
    base = median_distance(y_MD) if bandwidth is None else float(bandwidth)
    if not base > 0:
        raise InputError(
            f"MMD needs bandwidths above 0, but got {base:g}; the measured cells are all alike "
            "unless bandwidth=... was given."
        )
    kernel = _mixture(base)
    within = mean_over_pairs(x_ND, None, kernel) + mean_over_pairs(y_MD, None, kernel)
    return within - 2.0 * mean_over_pairs(x_ND, y_MD, kernel)


def median_distance(y_MD: np.ndarray, n_cells: int = 1000) -> float:
    """Median distance between different points, from at most ``n_cells`` evenly spaced rows."""
    rows = np.unique(np.linspace(0, len(y_MD) - 1, min(len(y_MD), n_cells)).astype(np.int64))
    distances = pdist(np.asarray(y_MD)[rows])
    return float(np.median(distances)) if distances.size else float("nan")


def _mixture(bandwidth: float) -> Kernel:
    def kernel(squared: np.ndarray) -> np.ndarray:
        one = np.exp(squared * (-0.5 / (LARGEST_FACTOR * bandwidth) ** 2))
        total = one.copy()
        for _ in range(N_WIDTHS - 1):
            # Half the width is the fourth power of the kernel: two products instead of an exp.
            np.square(one, out=one)
            np.square(one, out=one)
            total += one
        total /= N_WIDTHS
        return total

    return kernel


def sliced_wasserstein(
    x_ND: np.ndarray,
    y_MD: np.ndarray,
    *,
    n_projections: int = 100,
    seed: int = 0,
) -> float:
    """Sliced Wasserstein-2 distance: root mean square of W2 over random directions.

    Parameters
    ----------
    x_ND, y_MD
        Two samples in D dimensions, shapes (N, D) and (M, D). The sizes may differ: quantile
        functions are compared exactly, nothing is interpolated.
    n_projections
        Number of random directions P.
    seed
        Of the directions.

    Returns
    -------
    float
        In the unit of the coordinates; above 0 even for two samples of one distribution. NaN when a
        sample is empty.

    References
    ----------
    Bonneel et al. (2015), Sliced and Radon Wasserstein barycenters of measures.
    """
    x_ND, y_MD = np.asarray(x_ND, dtype=np.float64), np.asarray(y_MD, dtype=np.float64)
    n, m = len(x_ND), len(y_MD)
    if n == 0 or m == 0:
        return float("nan")
    directions_PD = projections(x_ND.shape[1], n_projections, seed)
    x_NP = np.sort(x_ND @ directions_PD.T, axis=0)
    y_MP = np.sort(y_MD @ directions_PD.T, axis=0)
    # Both quantile functions are steps; in units of 1/(n m) their steps end at whole numbers.
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    weights = np.diff(ends, prepend=0) / (n * m)
    rows_x, rows_y = (ends - 1) // m, (ends - 1) // n
    gaps = x_NP[rows_x] - y_MP[rows_y]
    return float(np.sqrt(np.mean(weights @ np.square(gaps))))


def projections(n_dims: int, n_projections: int, seed: int = 0) -> np.ndarray:
    """Random unit vectors, shape (n_projections, n_dims)."""
    drawn = np.random.default_rng(seed).standard_normal((n_projections, n_dims))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def wasserstein(x_ND: np.ndarray, y_MD: np.ndarray) -> float:
    """Exact Wasserstein-2 distance by linear programming (POT's network simplex).

    Parameters
    ----------
    x_ND, y_MD
        Two samples in D dimensions, shapes (N, D) and (M, D). Time grows with the cube of the
        number of cells: seconds at 2,000.

    Returns
    -------
    float
        In the unit of the coordinates; above 0 even for two samples of one distribution. NaN when a
        sample is empty.
    """
    import ot  # which takes a while

    x_ND, y_MD = np.asarray(x_ND, dtype=np.float64), np.asarray(y_MD, dtype=np.float64)
    if len(x_ND) == 0 or len(y_MD) == 0:
        return float("nan")
    cost_NM = ot.dist(x_ND, y_MD, metric="sqeuclidean")
    return float(np.sqrt(max(ot.emd2([], [], cost_NM, numItermax=10_000_000), 0.0)))


def center_together(x_ND: np.ndarray, y_MD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Move two samples by one vector so that their joint mean is near zero; distances stay.

    Small norms keep the squared distances accurate. Both become float64.
    """
    x_ND, y_MD = (np.asarray(z, dtype=np.float64) for z in (x_ND, y_MD))
    mean_D = 0.5 * (x_ND.mean(axis=0) + y_MD.mean(axis=0))
    return x_ND - mean_D, y_MD - mean_D


def mean_over_pairs(
    x_ND: np.ndarray, y_MD: np.ndarray | None, kernel: Kernel, tile: int = TILE
) -> float:
    """Mean of a function of the squared distance over pairs of cells, summed in float64.

    Pairs of N x M points near the origin (:func:`center_together`), or, without `y_MD`, of two
    different points of `x_ND`. The kernel maps an array of squared distances to one of the same
    shape and may work in place; memory is a few times tile^2 numbers. NaN when there is no pair.
    """
    within = y_MD is None
    other_MD = x_ND if y_MD is None else y_MD
    n, m = len(x_ND), len(other_MD)
    n_pairs = n * (n - 1) if within else n * m
    if n_pairs == 0:
        return float("nan")
    total = 0.0
    for i in range(0, n, tile):
        for j in range(i if within else 0, m, tile):
            some = x_ND[i : i + tile], other_MD[j : j + tile]
            values = kernel(euclidean_distances(*some, squared=True))
            if within and i == j:
                np.fill_diagonal(values, 0.0)
            part = float(values.sum(dtype=np.float64))
            total += 2.0 * part if within and i != j else part
    return total / n_pairs
