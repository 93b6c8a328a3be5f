"""The encoder: principal components of log expression, a few to each latent token."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from celldit.components import principal_components

MAX_CELLS = 50_000


@dataclass(frozen=True, eq=False)
class Anchor:
    """Linear map from F features to K tokens of D dimensions."""

    # Directions divided by their token's scale, float32, (F, K·D); principal components are
    # orthogonal, columns beyond the rank of the data zero.
    loadings: np.ndarray
    mean: np.ndarray  # the mean cell's features, (F,)
    offset: np.ndarray  # what the mean cell maps to, (K·D,)
    scale: np.ndarray  # root mean square over the cells of each token before scaling, (K,)
    explained: float  # share of the total variance that the latent keeps


def anchor_rows(n_cells: int, seed: int) -> np.ndarray | None:
    """Positions of the cells whose components are found; None for all."""
    if n_cells <= MAX_CELLS:
        return None
    return np.sort(np.random.default_rng(seed).choice(n_cells, MAX_CELLS, replace=False))


def fit_anchor(
    features: sparse.csr_matrix | np.ndarray, n_tokens: int, token_dim: int, seed: int
) -> Anchor:
    """Find the principal components of N cells (N, F) without a dense copy of a sparse matrix.

    Neighbouring components share a token, so each token has a size of its own; every token is then
    scaled to unit root mean square. The seed is of the decomposition.
    """
    n_cells, n_features = features.shape
    n_dims = n_tokens * token_dim
    found = principal_components(features, n_dims, seed)
    directions_FR, variances_R = found.directions_FR, np.maximum(found.squares_R / n_cells, 0)
    rank = len(variances_R)
    # Signs that no solver decides.
    strongest = np.abs(directions_FR).argmax(axis=0)
    directions_FR = directions_FR * np.sign(directions_FR[strongest, np.arange(rank)])
    loadings = np.zeros((n_features, n_dims))
    loadings[:, :rank] = directions_FR
    padded = np.zeros(n_dims)
    padded[:rank] = variances_R
    scale = np.sqrt(padded.reshape(n_tokens, token_dim).mean(axis=1))
    # What varies by less than single precision shows of the mean is rounding.
    least = max(1e-8, 1e-6 * float(np.linalg.norm(found.mean_F)))
    scale = np.where(scale > least, scale, 1.0)
    loadings /= np.repeat(scale, token_dim)[None]
    return Anchor(
        loadings.astype(np.float32),
        found.mean_F.astype(np.float32),
        (found.mean_F @ loadings).astype(np.float32),
        scale.astype(np.float32),
        float(variances_R.sum() / max(found.total / n_cells, 1e-12)),
    )


def choose_n_dims(n_cells: int, n_genes: int) -> int:
    """How many latent dimensions data of a size can carry: 48, fewer for few cells or genes.

    With nearly as many dimensions as genes, a latent holds the counting noise of every gene, and
    the decoder reads each gene's count from itself: effects of sparse panels then come out doubled.
    """
    return max(2, min(48, n_genes // 3, math.ceil(n_cells / 10)))
