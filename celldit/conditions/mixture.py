"""A mixture of Gaussians whose shares differ between conditions, fitted to the cells of a context.

The model is that of :mod:`celldit.conditions.states`. It is fitted by expectation maximisation; the
number of states is the one with the best likelihood of cells left out, and is one where a single
Gaussian does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

LADDER = (1, 2, 4, 8, 16, 24)
CELLS_PER_STATE = 30
N_ROUNDS, SETTLED = 25, 1e-3
# A condition's composition counts as if that of its context had been seen in this many more cells.
PRIOR_CELLS = 20.0


def densities(x_nF: np.ndarray, means_MF: np.ndarray, factors_MFF: np.ndarray) -> np.ndarray:
    """Log densities of points in M Gaussians, up to a constant in common, shape (n, M)."""
    columns = []
    for mean_F, factor_FF in zip(means_MF, factors_MFF, strict=True):
        white_Fn = solve_triangular(factor_FF, (x_nF - mean_F).T, lower=True)
        columns.append(-0.5 * (white_Fn**2).sum(0) - np.log(np.diag(factor_FF)).sum())
    return np.stack(columns, axis=1)


@dataclass(frozen=True, eq=False)
class Mixture:
    """M states of one context, and the composition of its conditions."""

    usual_M: np.ndarray
    offsets_MF: np.ndarray
    factors_MFF: np.ndarray
    conditions: np.ndarray
    shares_cM: np.ndarray

    @property
    def n_states(self) -> int:
        return len(self.usual_M)

    def share_of(self, condition: int) -> np.ndarray:
        """Composition of a condition, the usual one where none of its cells was looked at."""
        at = np.flatnonzero(self.conditions == condition)
        return self.shares_cM[at[0]] if len(at) else self.usual_M

    def log_likelihoods(self, away_nF: np.ndarray, row_n: np.ndarray) -> np.ndarray:
        """Log of share times density, for cells of the conditions `row_n`, shape (n, M)."""
        shares_nM = self.shares_cM[row_n]
        # Cells are given about the mean of their condition, states about its common place.
        about_nF = away_nF + shares_nM @ self.offsets_MF
        return np.log(shares_nM) + densities(about_nF, self.offsets_MF, self.factors_MFF)


def best_mixture(
    away_nF: np.ndarray, condition_n: np.ndarray, factor_FF: np.ndarray, rng: np.random.Generator
) -> Mixture:
    """The mixture whose number of states suits cells that were left out best."""
    conditions, row_n = np.unique(condition_n, return_inverse=True)
    n_cells = len(away_nF)
    apart_n = rng.random(n_cells) < 0.2
    best, best_score, seed = 1, -np.inf, int(rng.integers(2**31))
    in_vain = 0
    for n_states in LADDER:
        if n_states > 1 and n_cells < n_states * CELLS_PER_STATE:
            break
        if n_cells < 2 * CELLS_PER_STATE:
            break
        fitted = _fit(away_nF[~apart_n], row_n[~apart_n], conditions, n_states, seed)
        log_nM = fitted.log_likelihoods(away_nF[apart_n], row_n[apart_n])
        score = float(np.logaddexp.reduce(log_nM, axis=1).mean())
        if score > best_score:
            best, best_score, in_vain = n_states, score, 0
        else:
            in_vain += 1
        # One number of states may do badly by its first guess alone.
        if in_vain == 2:
            break
    if best == 1:
        one, zero = np.ones((len(conditions), 1)), np.zeros((1, away_nF.shape[1]))
        return Mixture(np.ones(1), zero, factor_FF[None], conditions, one)
    return _fit(away_nF, row_n, conditions, best, seed)


def _fit(
    away_nF: np.ndarray,
    row_n: np.ndarray,
    conditions: np.ndarray,
    n_states: int,
    seed: int,
) -> Mixture:
    """Fit a number of states, less those that too few cells are left in, by EM."""
    from sklearn.cluster import KMeans

    n_cells, n_dims = away_nF.shape
    first = KMeans(n_states, n_init=3, random_state=seed).fit_predict(away_nF.astype(np.float32))
    share_nM = np.eye(n_states)[first]
    offsets_MF = np.zeros((n_states, n_dims))
    mixture, before = None, -np.inf
    for _ in range(N_ROUNDS):
        in_M = share_nM.sum(0)
        kept = in_M > 2.0
        share_nM, in_M, offsets_MF = share_nM[:, kept], in_M[kept], offsets_MF[kept]
        usual_M = in_M / in_M.sum()
        counts_cM = np.zeros((len(conditions), len(in_M)))
        np.add.at(counts_cM, row_n, share_nM)
        shares_cM = counts_cM + PRIOR_CELLS * usual_M
        shares_cM /= shares_cM.sum(1, keepdims=True)
        about_nF = away_nF + shares_cM[row_n] @ offsets_MF
        offsets_MF = (share_nM.T @ about_nF) / in_M[:, None]
        offsets_MF = offsets_MF - usual_M @ offsets_MF
        about_nF = away_nF + shares_cM[row_n] @ offsets_MF
        scatter_MFF = np.stack(
            [
                (share_nM[:, [m]] * (about_nF - offsets_MF[m])).T @ (about_nF - offsets_MF[m])
                for m in range(len(in_M))
            ]
        )
        # Each state is drawn to the scatter within all, and that to its own diagonal, as if these
        # had been seen in a multiple of F cells.
        pooled = scatter_MFF.sum(0)
        pooled = (pooled + n_dims * np.diag(np.diag(pooled) / n_cells)) / (n_cells + n_dims)
        pooled += 1e-6 * np.eye(n_dims)
        strength = 2.0 * n_dims
        covariance = (scatter_MFF + strength * pooled) / (in_M + strength)[:, None, None]
        factors_MFF = np.linalg.cholesky(covariance)
        mixture = Mixture(usual_M, offsets_MF, factors_MFF, conditions, shares_cM)
        log_nM = mixture.log_likelihoods(away_nF, row_n)
        likelihood = float(np.logaddexp.reduce(log_nM, axis=1).mean())
        if likelihood - before < SETTLED:
            break
        share_nM, before = softmax(log_nM), likelihood
    assert mixture is not None
    return mixture


def softmax(log_nM: np.ndarray) -> np.ndarray:
    """Shares that are in proportion to the exponentials of each row, shape (n, M)."""
    return np.exp(log_nM - np.logaddexp.reduce(log_nM, axis=1, keepdims=True))
