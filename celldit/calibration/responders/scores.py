"""How far each cell lies along the effect of its perturbation, learned from the other cells.

The direction is Fisher's linear discriminant, w = Σ⁻¹ d: d is the mean difference between perturbed
cells and the controls of their stratum, each gene shrunken by its sampling variance,

    d ← d · max(0, 1 - c / z²),   z = d / (its standard error),

and Σ the covariance of the controls (Ledoit & Wolf 2004) of the :data:`N_GENES` genes with the
largest z. Cells and controls are dealt into folds, and each cell is projected onto the direction
of the other folds: a cell that defined its own direction would seem to have responded. Scores are
centred by the controls of the stratum and are in standard deviations of the controls.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from sklearn.covariance import ledoit_wolf

from celldit.conditions.latents import membership

N_FOLDS = 5
N_GENES = 100
#: c: genes below √2 standard errors say nothing of the direction.
SHRINKAGE = 2.0


def response_scores(
    log_NG: sparse.csr_matrix,
    stratum_N: np.ndarray,
    perturbed_N: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Project the cells of one perturbation and their controls onto the effect.

    Parameters
    ----------
    log_NG
        Log expression of N cells, perturbed and controls.
    stratum_N
        Number of each cell's stratum, from 0; every stratum has at least :data:`N_FOLDS` controls.
    perturbed_N
        Which cells are perturbed, bool.
    rng
        Deals cells into folds.

    Returns
    -------
    ndarray of float64, shape (N,)
        Controls have mean 0 in each stratum and standard deviation 1.
    """
    n_strata = int(stratum_N.max()) + 1
    group_N = stratum_N + n_strata * perturbed_N
    fold_N = np.empty(len(group_N), dtype=np.int64)
    for group in np.unique(group_N):
        own = np.flatnonzero(group_N == group)
        fold_N[rng.permutation(own)] = np.arange(len(own)) % N_FOLDS
    sums, squares, counts = _sums(log_NG, group_N + 2 * n_strata * fold_N, N_FOLDS, 2 * n_strata)
    scores_N = np.zeros(len(group_N))
    for fold in range(N_FOLDS):
        others = np.arange(N_FOLDS) != fold
        n_S, mean_SG, square_SG = counts[others].sum(0), sums[others].sum(0), squares[others].sum(0)
        mean_SG /= np.maximum(n_S, 1)[:, None]
        variance_SG = square_SG / np.maximum(n_S, 1)[:, None] - mean_SG**2
        of_controls, of_perturbed = np.arange(n_strata), np.arange(n_strata, 2 * n_strata)
        share_S = n_S[of_perturbed] / n_S[of_perturbed].sum()
        d_G = share_S @ (mean_SG[of_perturbed] - mean_SG[of_controls])
        noise_G = share_S**2 @ (
            variance_SG[of_perturbed] / np.maximum(n_S[of_perturbed], 1)[:, None]
            + variance_SG[of_controls] / n_S[of_controls][:, None]
        )
        squared_z_G = d_G**2 / np.maximum(noise_G, 1e-12)
        genes = np.argsort(-squared_z_G, kind="stable")[:N_GENES]
        # The gene that changes most stays, so that there is a direction.
        kept = squared_z_G[genes] > min(SHRINKAGE, squared_z_G[genes[0]] / 2)
        genes = genes[kept]
        if not len(genes):  # no gene differs at all, so there is no direction
            continue
        effect_D = d_G[genes] * (1 - np.minimum(SHRINKAGE / squared_z_G[genes], 0.5))
        rest_ND = log_NG[:, genes].toarray() - mean_SG[stratum_N][:, genes]
        train = (fold_N != fold) & ~perturbed_N
        # A gene that is silent in the controls still has the scatter of the perturbed cells.
        scatter_D = share_S @ variance_SG[of_perturbed][:, genes]
        sd_D = np.sqrt(np.maximum(rest_ND[train].var(axis=0), 0.1 * scatter_D) + 1e-12)
        covariance_DD, _ = ledoit_wolf(rest_ND[train] / sd_D, assume_centered=True)
        weight_D = np.linalg.solve(covariance_DD, effect_D / sd_D)
        weight_D /= np.sqrt(weight_D @ covariance_DD @ weight_D)
        scores_N[fold_N == fold] = rest_ND[fold_N == fold] @ (weight_D / sd_D)
    return _standardized(scores_N, stratum_N, perturbed_N)


def _sums(
    log_NG: sparse.csr_matrix, group_N: np.ndarray, n_folds: int, n_groups: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums, sums of squares and numbers of cells, by fold and group."""
    n = n_folds * n_groups
    chosen = membership(group_N, n)
    sums = (chosen @ log_NG).toarray().reshape(n_folds, n_groups, -1)
    squares = (chosen @ log_NG.multiply(log_NG)).toarray().reshape(n_folds, n_groups, -1)
    return sums, squares, np.bincount(group_N, minlength=n).reshape(n_folds, n_groups)


def _standardized(
    scores_N: np.ndarray, stratum_N: np.ndarray, perturbed_N: np.ndarray
) -> np.ndarray:
    controls = ~perturbed_N
    sums_S = np.bincount(stratum_N[controls], scores_N[controls])
    centred_N = scores_N - (sums_S / np.bincount(stratum_N[controls]))[stratum_N]
    result: np.ndarray = centred_N / max(float(centred_N[controls].std()), 1e-12)
    return result
