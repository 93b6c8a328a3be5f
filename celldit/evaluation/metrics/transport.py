"""Wasserstein-2 distances between two samples of cells, sliced and exact."""

from __future__ import annotations

import numpy as np

from celldit.errors import InputError


def sliced_wasserstein(
    x_ND: np.ndarray,
    y_MD: np.ndarray,
    *,
    n_projections: int = 100,
    seed: int = 0,
    directions_PD: np.ndarray | None = None,
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
    directions_PD
        Unit vectors to use instead of random ones, shape (P, D).

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
    if directions_PD is None:
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

    Raises
    ------
    InputError
        If POT is not installed.
    """
    try:
        import ot
    except ImportError as error:
        raise InputError(
            "The exact Wasserstein distance needs POT; install it with pip install 'celldit[eval]'."
        ) from error
    x_ND, y_MD = np.asarray(x_ND, dtype=np.float64), np.asarray(y_MD, dtype=np.float64)
    if len(x_ND) == 0 or len(y_MD) == 0:
        return float("nan")
    cost_NM = ot.dist(x_ND, y_MD, metric="sqeuclidean")
    return float(np.sqrt(max(ot.emd2([], [], cost_NM, numItermax=10_000_000), 0.0)))
