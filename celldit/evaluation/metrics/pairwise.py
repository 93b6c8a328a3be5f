"""Sums over all pairs of cells, one tile at a time, so that memory does not grow with the pairs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

TILE = 1400

Kernel = Callable[[np.ndarray], np.ndarray]


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
            squared = _squared_distances(x_ND[i : i + tile], other_MD[j : j + tile])
            values = kernel(squared)
            if within and i == j:
                np.fill_diagonal(values, 0.0)
            part = float(values.sum(dtype=np.float64))
            total += 2.0 * part if within and i != j else part
    return total / n_pairs


def _squared_distances(x_ND: np.ndarray, y_MD: np.ndarray) -> np.ndarray:
    squared_NM = x_ND @ y_MD.T
    squared_NM *= -2.0
    squared_NM += np.einsum("nd,nd->n", x_ND, x_ND)[:, None]
    squared_NM += np.einsum("md,md->m", y_MD, y_MD)[None, :]
    return np.maximum(squared_NM, 0.0, out=squared_NM)
