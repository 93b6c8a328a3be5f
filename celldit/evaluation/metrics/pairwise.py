"""Sums over all pairs of cells, one tile at a time, so that memory does not grow with the pairs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

TILE = 2048
# Below this share of the squared norms, |x|^2 + |y|^2 - 2xy has lost too many float32 digits.
CANCELLED = 1e-4

Kernel = Callable[[np.ndarray], np.ndarray]


def center_together(x_ND: np.ndarray, y_MD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Move two samples by one vector so that their joint mean is near zero; distances stay.

    Small norms keep the squared distances accurate. Integers become float64, float32 stays float32.
    """
    dtype = np.result_type(x_ND, y_MD)
    dtype = dtype if dtype in (np.float32, np.float64) else np.dtype(np.float64)
    mean_D = 0.5 * (x_ND.mean(axis=0, dtype=np.float64) + y_MD.mean(axis=0, dtype=np.float64))
    return (x_ND - mean_D).astype(dtype), (y_MD - mean_D).astype(dtype)


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
            squared = _squared_distances(x_ND[i : i + tile], other_MD[j : j + tile])
            values = kernel(squared)
            if within and i == j:
                np.fill_diagonal(values, 0.0)
            part = float(values.sum(dtype=np.float64))
            total += 2.0 * part if within and i != j else part
    return total / n_pairs


def _squared_distances(x_ND: np.ndarray, y_MD: np.ndarray) -> np.ndarray:
    norms_N, norms_M = _squared_norms(x_ND), _squared_norms(y_MD)
    squared_NM = _expand(x_ND, y_MD, norms_N, norms_M)
    if squared_NM.dtype == np.float32:
        # A point's distance to itself is cancelled too, so up to one per row is taken as normal.
        cancelled_NM = squared_NM < CANCELLED * (norms_N[:, None] + norms_M[None, :])
        rows, columns = np.nonzero(cancelled_NM)
        if len(rows) > 4 * len(x_ND):
            x64, y64 = x_ND.astype(np.float64), y_MD.astype(np.float64)
            exact_NM = _expand(x64, y64, _squared_norms(x64), _squared_norms(y64))
            squared_NM = exact_NM.astype(np.float32)
        elif len(rows):
            difference = x_ND[rows].astype(np.float64) - y_MD[columns]
            squared_NM[rows, columns] = np.einsum("pd,pd->p", difference, difference)
    return squared_NM


def _expand(
    x_ND: np.ndarray, y_MD: np.ndarray, norms_N: np.ndarray, norms_M: np.ndarray
) -> np.ndarray:
    squared_NM = x_ND @ y_MD.T
    squared_NM *= -2.0
    squared_NM += norms_N[:, None]
    squared_NM += norms_M[None, :]
    return np.maximum(squared_NM, 0.0, out=squared_NM)


def _squared_norms(x_ND: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", x_ND, x_ND)
