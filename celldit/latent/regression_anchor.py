"""The linear start of a latent over tokens: the directions that say most about the genes.

Principal components of what tokens carry would count a programme once for every gene set that holds
it and a gene in no large set hardly at all. Measured on Kang's cells (``docs/results/
latent_anchor.csv``) they explain less of log expression than as many components of the genes
themselves, and effects on held-out cell types are estimated worse in them. So the start is the
reduced-rank regression (Izenman 1975) of log expression Y on the features X of the tokens,

    B = (Σxx + κI)⁻¹ Σxy,        z = (x - x̄) B V,

V the principal components of the fitted Ŷ = X B: of all linear latents of a width, the one from
which Y is read best. Where the tokens hold all genes it is the principal component analysis of
log expression.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from celldit.latent.anchor import Anchor, assemble

# Ridge on the features, in units of their mean variance.
RIDGE = 1e-2
# More features make the decomposition cost more than it gains: it is cubic in them.
MAX_FEATURES = 4_000


def fit_regression_anchor(
    features: np.ndarray, targets: sparse.csr_matrix, n_tokens: int, token_dim: int
) -> Anchor:
    """Find the linear map from F features to latent tokens that log expression is read best from.

    Parameters
    ----------
    features
        Of N cells, dense, shape (N, F).
    targets
        Their log expression, shape (N, G).
    n_tokens, token_dim
        K and D; every token is scaled to unit root mean square.

    Returns
    -------
    Anchor
        Its ``explained`` is the share of the variance of log expression that the latent explains.
    """
    n_cells, n_features = features.shape
    n_dims = n_tokens * token_dim
    rank = min(n_dims, n_features, n_cells, targets.shape[1])
    x_NF = features.astype(np.float64)
    mean_F = x_NF.mean(axis=0)
    x_NF -= mean_F
    scatter_FF = x_NF.T @ x_NF / n_cells
    # Centred features need no centred targets.
    cross_FG = np.asarray((targets.T @ x_NF).T, dtype=np.float64) / n_cells
    ridge = RIDGE * max(np.trace(scatter_FF) / n_features, 1e-12)
    solved_FF = np.linalg.solve(scatter_FF + ridge * np.eye(n_features), cross_FG @ cross_FG.T)
    solved_FF = np.linalg.solve(scatter_FF + ridge * np.eye(n_features), solved_FF.T).T
    # Covariance of Ŷ is Bᵀ Σxx B; with C = Σxx^½ B its eigenvectors are those of C Cᵀ, F x F.
    values, vectors = np.linalg.eigh(scatter_FF)
    root_FF = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    variances, left = np.linalg.eigh(root_FF @ solved_FF @ root_FF)
    variances, left = variances[::-1][:rank].clip(min=0), left[:, ::-1][:, :rank]
    kept = variances > 1e-10 * max(variances.max(initial=0), 1e-12)
    scale = np.where(kept, 1 / np.sqrt(np.where(kept, variances, 1)), 0)
    directions_FR = solved_FF @ root_FF @ left * scale
    mean_G = np.asarray(targets.mean(axis=0), dtype=np.float64).ravel()
    total = targets.multiply(targets).sum() / n_cells - (mean_G**2).sum()
    return assemble(directions_FR, variances * kept, mean_F, n_tokens, token_dim, float(total))
