"""Dispersion of each gene such that drawn cells have the measured share of zeros."""

from __future__ import annotations

import numpy as np

MIN_THETA, MAX_THETA = 1e-2, 1e3
N_HALVINGS = 12
# Fewer cells than this with, or without, a count say too little about the share of zeros.
MIN_CELLS = 5
MOST = 10.0


def theta_of_zeros(
    expected_NG: np.ndarray, counts_NG: np.ndarray, start_G: np.ndarray
) -> np.ndarray:
    """Inverse dispersions θ of negative binomials with given expectations.

    The share of zeros of a negative binomial, the mean over cells of (θ / (θ + μ))^θ, falls as θ
    rises, so bisection in log θ finds the θ that gives the measured share. Log expression, in which
    cells are compared, feels the zeros of a sparse gene far more than its variance, which a few
    cells decide. A gene that is hardly ever zero, or nearly always, keeps its `start_G`.

    Parameters
    ----------
    expected_NG, counts_NG
        Expected and measured counts of N cells; which expectation belongs to which count does not
        matter.
    start_G
        Inverse dispersions to start from.

    Returns
    -------
    numpy.ndarray
        Shape (G,), within [0.01, 1000].
    """
    n_zero_G = (counts_NG == 0).sum(0)
    expected_NG = expected_NG.astype(np.float32)
    share_G = n_zero_G / len(counts_NG)
    error_G = np.sqrt(share_G * (1 - share_G) / len(counts_NG))
    # A share is only known to its standard error, so no gene goes further than to within one.
    share_G = share_G + np.clip(_zeros(expected_NG, start_G) - share_G, -error_G, error_G)
    low_G = np.log(np.maximum(start_G / MOST, MIN_THETA))
    high_G = np.log(np.minimum(start_G * MOST, MAX_THETA))
    for _ in range(N_HALVINGS):
        middle_G = (low_G + high_G) / 2
        too_many_G = _zeros(expected_NG, np.exp(middle_G)) > share_G
        low_G = np.where(too_many_G, middle_G, low_G)
        high_G = np.where(too_many_G, high_G, middle_G)
    found_G = np.exp((low_G + high_G) / 2)
    telling_G = (n_zero_G >= MIN_CELLS) & (len(counts_NG) - n_zero_G >= MIN_CELLS)
    return np.asarray(np.where(telling_G, found_G, start_G))


def _zeros(expected_NG: np.ndarray, theta_G: np.ndarray) -> np.ndarray:
    """Expected share of zeros of each gene, shape (G,)."""
    theta_G = theta_G.astype(np.float32)
    return np.exp(-theta_G * np.log1p(expected_NG / theta_G)).mean(0, dtype=np.float64)
