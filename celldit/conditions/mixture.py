"""A mixture of Gaussians whose shares differ between conditions, fitted to the cells of a context.

The model is that of :mod:`celldit.conditions.states`. It is fitted by expectation maximisation; the
number of states is the one with the best likelihood of cells left out, and is one where a single
Gaussian does. Contexts may also share their states, such as replicates of one culture: what is
fitted to all their cells has room for more of them, and is taken where the cells left out are
clearly likelier in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

LADDER = (1, 2, 4, 8, 16, 24)
CELLS_PER_STATE = 30
N_ROUNDS, SETTLED = 25, 1e-3
# A condition's composition counts as if that of its context had been seen in this many more cells.
PRIOR_CELLS = 20.0
# By how many standard errors left-out cells have to be likelier in states that contexts share.
CLEARLY = 2.0


def densities(x_nF: np.ndarray, means_MF: np.ndarray, factors_MFF: np.ndarray) -> np.ndarray:
    """Log densities of points in M Gaussians, up to a constant in common, shape (n, M)."""
    columns = []
    for mean_F, factor_FF in zip(means_MF, factors_MFF, strict=True):
        white_Fn = solve_triangular(factor_FF, (x_nF - mean_F).T, lower=True, check_finite=False)
        columns.append(-0.5 * (white_Fn**2).sum(0) - np.log(np.diag(factor_FF)).sum())
    return np.stack(columns, axis=1)


@dataclass(frozen=True, eq=False)
class Mixture:
    """M states of one context or of X that share them, and the composition of c conditions."""

    usual_XM: np.ndarray
    offsets_MF: np.ndarray
    factors_MFF: np.ndarray
    conditions: np.ndarray
    shares_cM: np.ndarray

    @property
    def n_states(self) -> int:
        return len(self.offsets_MF)

    def share_of(self, condition: int, context: int) -> np.ndarray:
        """Composition of a condition, that of its context where none of its cells was looked at."""
        at = np.flatnonzero(self.conditions == condition)
        return self.shares_cM[at[0]] if len(at) else self.usual_XM[context]

    def log_likelihoods(self, away_nF: np.ndarray, row_n: np.ndarray) -> np.ndarray:
        """Log of share times density, for cells of the conditions `row_n`, shape (n, M)."""
        shares_nM = self.shares_cM[row_n]
        # Cells are given about the mean of their condition, states about its common place.
        about_nF = away_nF + shares_nM @ self.offsets_MF
        return np.log(shares_nM) + densities(about_nF, self.offsets_MF, self.factors_MFF)


@dataclass(frozen=True, eq=False)
class Tried:
    """Cells of one context and the mixture that suits them best."""

    mixture: Mixture  # fitted to all n cells
    away_nF: np.ndarray  # the cells about the means of their conditions
    condition_n: np.ndarray
    apart_n: np.ndarray  # which were left out to choose the number of states
    score_a: np.ndarray  # log likelihood of each of these


def best_mixture(
    away_nF: np.ndarray, condition_n: np.ndarray, factor_FF: np.ndarray, rng: np.random.Generator
) -> Tried:
    """The mixture whose number of states suits cells of one context that were left out best.

    Cells are about the means of their conditions; a single state has the scatter `factor_FF`.
    """
    conditions, row_n = np.unique(condition_n, return_inverse=True)
    apart_n = rng.random(len(away_nF)) < 0.2
    seed = int(rng.integers(2**31))
    context_c = np.zeros(len(conditions), dtype=np.int64)
    best, score_a = 1, np.zeros(0)
    if len(away_nF) >= 2 * CELLS_PER_STATE:
        best, score_a = _climb(away_nF, row_n, context_c, apart_n, LADDER, seed)
    elif apart_n.any():
        # Too few cells to tell: one Gaussian, which then has seen those left out.
        score_a = densities(away_nF[apart_n], 0 * away_nF[:1], factor_FF[None])[:, 0]
    if best == 1:
        one, zero = np.ones((len(conditions), 1)), np.zeros((1, away_nF.shape[1]))
        mixture = Mixture(np.ones((1, 1)), zero, factor_FF[None], conditions, one)
    else:
        mixture = _fit(away_nF, row_n, conditions, context_c, best, seed)
    return Tried(mixture, away_nF, condition_n, apart_n, score_a)


def shared_mixture(tried: Sequence[Tried], rng: np.random.Generator) -> Mixture | None:
    """One mixture of X contexts; None unless left-out cells are clearly likelier in it."""
    away_nF = np.concatenate([one.away_nF for one in tried])
    apart_n = np.concatenate([one.apart_n for one in tried])
    context_n = np.repeat(np.arange(len(tried)), [len(one.away_nF) for one in tried])
    conditions, first_c, row_n = np.unique(
        np.concatenate([one.condition_n for one in tried]), return_index=True, return_inverse=True
    )
    context_c, seed = context_n[first_c], int(rng.integers(2**31))
    best, score_a = _climb(away_nF, row_n, context_c, apart_n, LADDER[1:], seed)
    if best == 1:
        return None
    gain_a = score_a - np.concatenate([one.score_a for one in tried])
    if gain_a.sum() <= CLEARLY * gain_a.std() * np.sqrt(len(gain_a)):
        return None
    return _fit(away_nF, row_n, conditions, context_c, best, seed)


def _climb(
    away_nF: np.ndarray,
    row_n: np.ndarray,
    context_c: np.ndarray,
    apart_n: np.ndarray,
    ladder: Sequence[int],
    seed: int,
) -> tuple[int, np.ndarray]:
    """The number of states in which cells left out are likeliest, and how likely each cell is."""
    conditions = np.arange(len(context_c))
    best, best_a, in_vain = 1, np.full(int(apart_n.sum()), -np.inf), 0
    for n_states in ladder:
        # Each state has a scale and totals of its own in each context.
        fewest = n_states * CELLS_PER_STATE * (1 + int(context_c.max()))
        if n_states > 1 and len(away_nF) < fewest:
            break
        fitted = _fit(away_nF[~apart_n], row_n[~apart_n], conditions, context_c, n_states, seed)
        log_nM = fitted.log_likelihoods(away_nF[apart_n], row_n[apart_n])
        score_a = np.logaddexp.reduce(log_nM, axis=1)
        if score_a.sum() > best_a.sum():
            best, best_a, in_vain = n_states, score_a, 0
        else:
            in_vain += 1
        # One number of states may do badly by its first guess alone.
        if in_vain == 2:
            break
    return best, best_a


def _fit(
    away_nF: np.ndarray,
    row_n: np.ndarray,
    conditions: np.ndarray,
    context_c: np.ndarray,
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
        usual_XM = _usual(counts_cM, context_c, usual_M)
        shares_cM = counts_cM + PRIOR_CELLS * usual_XM[context_c]
        shares_cM /= shares_cM.sum(1, keepdims=True)
        about_nF = away_nF + shares_cM[row_n] @ offsets_MF
        offsets_MF = (share_nM.T @ about_nF) / in_M[:, None]
        offsets_MF = offsets_MF - usual_M @ offsets_MF
        about_nF = away_nF + shares_cM[row_n] @ offsets_MF
        scatter_MFF = np.empty((len(in_M), n_dims, n_dims))
        for share_n, offset_F, into_FF in zip(share_nM.T, offsets_MF, scatter_MFF, strict=True):
            from_nF = about_nF - offset_F
            np.matmul((share_n[:, None] * from_nF).T, from_nF, out=into_FF)
        # Each state is drawn to the scatter within all, and that to its own diagonal, as if these
        # had been seen in a multiple of F cells.
        pooled = scatter_MFF.sum(0)
        pooled = (pooled + n_dims * np.diag(np.diag(pooled) / n_cells)) / (n_cells + n_dims)
        pooled += 1e-6 * np.eye(n_dims)
        strength = 2.0 * n_dims
        covariance = (scatter_MFF + strength * pooled) / (in_M + strength)[:, None, None]
        factors_MFF = np.linalg.cholesky(covariance)
        mixture = Mixture(usual_XM, offsets_MF, factors_MFF, conditions, shares_cM)
        log_nM = mixture.log_likelihoods(away_nF, row_n)
        likelihood = float(np.logaddexp.reduce(log_nM, axis=1).mean())
        if likelihood - before < SETTLED:
            break
        share_nM, before = softmax(log_nM), likelihood
    assert mixture is not None
    return mixture


def _usual(counts_cM: np.ndarray, context_c: np.ndarray, usual_M: np.ndarray) -> np.ndarray:
    """Composition of each context, (X, M); of a single one it is that of all cells."""
    n_contexts = 1 + int(context_c.max())
    if n_contexts == 1:
        return usual_M[None]
    counts_XM = np.zeros((n_contexts, len(usual_M)))
    np.add.at(counts_XM, context_c, counts_cM)
    counts_XM += PRIOR_CELLS * usual_M
    return np.asarray(counts_XM / counts_XM.sum(1, keepdims=True))


def softmax(log_nM: np.ndarray) -> np.ndarray:
    """Shares that are in proportion to the exponentials of each row, shape (n, M)."""
    return np.exp(log_nM - np.logaddexp.reduce(log_nM, axis=1, keepdims=True))
