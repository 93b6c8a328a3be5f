"""Adaptive shrinkage of estimates with known standard errors (Stephens 2017, Biostatistics 18:275).

True values come from a mixture of normal distributions about 0, one of them a point; its shares are
fitted by expectation maximisation, with a penalty that holds the share of zeros high where data say
little. Posteriors are mixtures of normals in closed form.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

#: Weight of the prior on the point at 0, in estimates, as in the paper.
NULL_PENALTY = 10.0
ROUNDS = 200


class Shrunken(NamedTuple):
    """Posterior mean and standard deviation of G true values, and their local false sign rate.

    That is the probability that the sign is not that of the estimate, or none.
    """

    mean_G: np.ndarray
    sd_G: np.ndarray
    lfsr_G: np.ndarray


def shrink(estimate_G: np.ndarray, error_G: np.ndarray) -> Shrunken:
    """Shrink G estimates with standard errors (above 0) towards 0."""
    # Values far below the errors are no different from none, and to say so is the cautious side.
    largest = max(2 * float(np.abs(estimate_G).max()), float(error_G.min()))
    least = min(float(np.median(error_G)) / 2, largest / 2)
    n_scales = int(np.ceil(np.log2(largest / least) * 2)) + 1
    scale_K = np.concatenate([[0.0], np.geomspace(least, largest, n_scales)])
    variance_GK = error_G[:, None] ** 2 + scale_K**2
    log_GK = -0.5 * (estimate_G[:, None] ** 2 / variance_GK + np.log(variance_GK))
    of_GK = np.exp(log_GK - log_GK.max(axis=1, keepdims=True)) * fit_shares(log_GK, scale_K)
    of_GK /= of_GK.sum(axis=1, keepdims=True)
    mean_GK = estimate_G[:, None] * scale_K**2 / variance_GK
    sd_GK = error_G[:, None] * scale_K / np.sqrt(variance_GK)
    mean_G = (of_GK * mean_GK).sum(axis=1)
    second_G = (of_GK * (mean_GK**2 + sd_GK**2)).sum(axis=1)
    side_GK = ndtr(np.abs(mean_GK) / np.maximum(sd_GK, 1e-300))
    side_GK[:, 0] = 0.0
    lfsr_G = 1 - (of_GK * side_GK).sum(axis=1)
    return Shrunken(mean_G, np.sqrt(np.maximum(second_G - mean_G**2, 0)), lfsr_G)


def fit_shares(log_GK: np.ndarray, scale_K: np.ndarray, rounds: int = ROUNDS) -> np.ndarray:
    """Share of each of K components among G estimates, by their log likelihoods, shape (K,).

    The component of scale 0 has a prior that holds its share high.
    """
    likelihood_GK = np.exp(log_GK - log_GK.max(axis=1, keepdims=True))
    share_K = np.full(len(scale_K), 1 / len(scale_K))
    penalty_K = np.where(scale_K == 0, NULL_PENALTY - 1, 0.0)
    for _ in range(rounds):
        of_GK = likelihood_GK * share_K
        share_K = (of_GK / of_GK.sum(axis=1, keepdims=True)).sum(axis=0) + penalty_K
        share_K /= share_K.sum()
    return share_K
