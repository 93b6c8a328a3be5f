"""Maximum mean discrepancy between two samples of cells."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import pdist

from celldit.errors import InputError
from celldit.evaluation.metrics.pairwise import Kernel, center_together, mean_over_pairs

# Kernel widths are this multiple of the bandwidth, and each half the one before.
LARGEST_FACTOR = 4.0
N_WIDTHS = 5


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
