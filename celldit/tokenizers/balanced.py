"""Cutting genes into modules of equal size whose eigengenes carry the data.

A token should carry as much as it can of the expression of its genes, and tokens should be of
equal size, so that none is idle and none a bottleneck. So the modules maximise the variance that
the leading eigengenes of each capture, at fixed sizes. (k-means leaves modules of one gene beside
modules of hundreds; grouping by correlation crowds genes of large variance into few components.)
Where coherent programmes matter more than reconstruction, use known gene sets.

Each gene is a point whose inner products approximate covariances: the leading right singular
vectors of the centred expression times their singular values, found by randomised subspace
iteration (Halko, Martinsson & Tropp 2011, SIAM Review 53:217) with the centring implicit, so that
the matrix stays sparse and no genes x genes matrix is made. Genes are dealt to the modules in the
order of their variance, like cards, so that the few genes of large variance do not compete for the
components of one module; no random start is needed. Rounds of k-subspaces (Bradley & Mangasarian
2000, Journal of Global Optimization 16:23) with the sizes held fixed move each gene to the module
whose leading subspace holds most of it, the genes with most to gain first. A round that does not
raise the captured variance ends it.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from celldit.components import principal_components

_N_COMPONENTS = 50
_N_ROUNDS = 20


def balanced_modules(
    log_SG: sparse.csc_matrix, n_modules: int, n_values: int, seed: int
) -> list[np.ndarray]:
    """Cut genes into 1 to G modules whose sizes differ by at most one.

    Log expression is (S, G) CSC; genes without variance are allowed. `n_values` eigengenes of each
    module count as captured. The columns of each module are sorted, modules in the order of their
    first gene.
    """
    points_GK = gene_points(log_SG, seed)
    labels = _deal(_variances(log_SG), n_modules)
    labels = _refine(points_GK, labels, n_modules, n_values)
    modules = [np.flatnonzero(labels == label) for label in range(n_modules)]
    return sorted(modules, key=lambda module: int(module[0]))


def gene_points(log_SG: sparse.csc_matrix, seed: int) -> np.ndarray:
    """Place genes so that inner products approximate their covariances, shape (G, K).

    The squared length of a row is the part of the gene's variance that the K leading components
    explain.
    """
    found = principal_components(log_SG, _N_COMPONENTS, seed)
    # Directions times singular values, which is all that inner products need.
    return found.directions_FR * np.sqrt(found.squares_R / log_SG.shape[0])


def _variances(log_SG: sparse.csc_matrix) -> np.ndarray:
    mean_G = np.asarray(log_SG.mean(axis=0, dtype=np.float64)).ravel()
    square_G = np.asarray(log_SG.power(2).sum(axis=0, dtype=np.float64)).ravel() / log_SG.shape[0]
    return square_G - mean_G**2


def _deal(variance_G: np.ndarray, n_modules: int) -> np.ndarray:
    labels = np.empty(len(variance_G), dtype=np.int64)
    labels[np.argsort(-variance_G, kind="stable")] = np.arange(len(variance_G)) % n_modules
    return labels


def _refine(points_GK: np.ndarray, labels: np.ndarray, n_modules: int, n_values: int) -> np.ndarray:
    """Move genes to the subspaces that hold most of them, sizes unchanged."""
    sizes = np.bincount(labels, minlength=n_modules)
    captured, held_GM = _subspaces(points_GK, labels, n_modules, n_values)
    for _ in range(_N_ROUNDS):
        proposed = _assign(held_GM, sizes)
        proposed_captured, held_GM = _subspaces(points_GK, proposed, n_modules, n_values)
        if proposed_captured <= captured * (1 + 1e-5):
            break
        labels, captured = proposed, proposed_captured
    return labels


def _subspaces(
    points_GK: np.ndarray, labels: np.ndarray, n_modules: int, n_values: int
) -> tuple[float, np.ndarray]:
    """Variance captured in all, and the part of each gene that each module's subspace holds."""
    captured = 0.0
    held_GM = np.empty((len(points_GK), n_modules))
    for module in range(n_modules):
        _, lengths, axes = np.linalg.svd(points_GK[labels == module], full_matrices=False)
        captured += float((lengths[:n_values] ** 2).sum())
        held_GM[:, module] = ((points_GK @ axes[:n_values].T) ** 2).sum(axis=1)
    return captured, held_GM


def _assign(held_GM: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Give each gene the best module with room; who gains most over its average chooses first."""
    gain_G = held_GM.max(axis=1) - held_GM.mean(axis=1)
    preferences_GM = np.argsort(-held_GM, axis=1, kind="stable")
    room = sizes.copy()
    labels = np.empty(len(held_GM), dtype=np.int64)
    for gene in np.argsort(-gain_G, kind="stable"):
        choices = preferences_GM[gene]
        label = choices[np.argmax(room[choices] > 0)]
        labels[gene] = label
        room[label] -= 1
    return labels
