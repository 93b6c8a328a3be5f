"""The encoder: principal components of log expression, a few to each latent token."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import sparse

MAX_CELLS = 50_000


@dataclass(frozen=True, eq=False)
class Anchor:
    """Linear map from F features to K tokens of D dimensions.

    Attributes
    ----------
    loadings
        Directions divided by their token's scale, float32, shape (F, K·D); principal components
        are orthogonal. Columns beyond the rank of the data are zero.
    mean
        The mean cell's features, shape (F,).
    offset
        What the mean cell maps to, shape (K·D,).
    scale
        Root mean square over the cells of each token before scaling, shape (K,).
    explained
        Share of the total variance that the latent keeps.
    """

    loadings: np.ndarray
    mean: np.ndarray
    offset: np.ndarray
    scale: np.ndarray
    explained: float


def anchor_rows(n_cells: int, seed: int) -> np.ndarray | None:
    """Positions of the cells whose components are found; None for all."""
    if n_cells <= MAX_CELLS:
        return None
    return np.sort(np.random.default_rng(seed).choice(n_cells, MAX_CELLS, replace=False))


def fit_anchor(
    features: sparse.csr_matrix | np.ndarray, n_tokens: int, token_dim: int, seed: int
) -> Anchor:
    """Find the principal components of N cells without a dense copy of a sparse matrix.

    Parameters
    ----------
    features
        Shape (N, F), sparse or dense.
    n_tokens, token_dim
        K and D. Neighbouring components share a token, so each token has a size of its own;
        every token is then scaled to unit root mean square.
    seed
        Of the randomised decomposition (Halko et al. 2011).
    """
    n_cells, n_features = features.shape
    rows = anchor_rows(n_cells, seed)
    if rows is not None:
        features, n_cells = features[rows], len(rows)
    n_dims = n_tokens * token_dim
    rank = min(n_dims, n_features, n_cells)
    mean_F = np.asarray(features.mean(axis=0), dtype=np.float64).ravel()
    centred = _CentredGram(features, mean_F)
    # The eigenvectors of the F x F scatter matrix are the components.
    if n_features <= 4 * MAX_CELLS // 50:
        values, vectors = np.linalg.eigh(centred.scatter())
        order = np.argsort(values)[::-1][:rank]
        variances, components = values[order] / n_cells, vectors[:, order].T
        total = max(values.sum() / n_cells, 1e-12)
    else:
        # Too many features for a scatter matrix: randomised SVD of the uncentred matrix, whose
        # first direction is close to the mean and is turned out of the rest by centring the scores.
        from sklearn.utils.extmath import randomized_svd

        _, _, components = randomized_svd(features, rank, random_state=seed, n_iter=4)
        scores = features @ components.T - mean_F @ components.T
        values, turn = np.linalg.eigh(np.asarray(scores.T @ scores, dtype=np.float64))
        components = turn[:, ::-1].T @ components
        variances = values[::-1] / n_cells
        total = max(centred.total_variance(), 1e-12)
    return assemble(components.T, variances, mean_F, n_tokens, token_dim, float(total))


def assemble(
    directions_FR: np.ndarray,
    variances_R: np.ndarray,
    mean_F: np.ndarray,
    n_tokens: int,
    token_dim: int,
    total: float,
) -> Anchor:
    """Scale each token to unit root mean square, and fix signs that no solver decides.

    Parameters
    ----------
    directions_FR
        Up to K·D directions in the features, of falling importance.
    variances_R
        Variance of the cells along each.
    mean_F
        The mean cell's features.
    n_tokens, token_dim
        K and D.
    total
        Variance of which `variances_R` explain a share.
    """
    n_features, rank = directions_FR.shape
    n_dims = n_tokens * token_dim
    variances_R = np.maximum(variances_R, 0)
    strongest = np.abs(directions_FR).argmax(axis=0)
    directions_FR = directions_FR * np.sign(directions_FR[strongest, np.arange(rank)])
    loadings = np.zeros((n_features, n_dims))
    loadings[:, :rank] = directions_FR
    padded = np.zeros(n_dims)
    padded[:rank] = variances_R
    scale = np.sqrt(padded.reshape(n_tokens, token_dim).mean(axis=1))
    scale = np.where(scale > 1e-8, scale, 1.0)
    loadings /= np.repeat(scale, token_dim)[None]
    return Anchor(
        loadings.astype(np.float32),
        mean_F.astype(np.float32),
        (mean_F @ loadings).astype(np.float32),
        scale.astype(np.float32),
        float(variances_R.sum() / max(total, 1e-12)),
    )


class _CentredGram:
    """Second moments about the mean, from a sparse or dense matrix."""

    def __init__(self, features: sparse.csr_matrix | np.ndarray, mean_F: np.ndarray) -> None:
        self.features, self.mean_F = features, mean_F

    def scatter(self) -> np.ndarray:
        gram = self.features.T @ self.features
        gram = gram.toarray() if sparse.issparse(gram) else np.asarray(gram)
        return gram.astype(np.float64) - len_rows(self.features) * np.outer(
            self.mean_F, self.mean_F
        )

    def total_variance(self) -> float:
        features = self.features
        squares = features**2 if isinstance(features, np.ndarray) else features.power(2)
        return float(squares.sum() / len_rows(self.features) - (self.mean_F**2).sum())


def len_rows(features: sparse.csr_matrix | np.ndarray) -> int:
    """Number of rows of a sparse or dense matrix."""
    return int(features.shape[0])


def choose_n_dims(n_cells: int, n_genes: int) -> int:
    """How many latent dimensions data of a size can carry: 48, fewer for few cells or genes."""
    return max(2, min(48, n_genes - 1, math.ceil(n_cells / 10)))
