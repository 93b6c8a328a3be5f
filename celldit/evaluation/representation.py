"""Principal components fitted on measured cells, in which distances between samples are taken."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from sklearn.decomposition import PCA

from celldit.random import short_seed

# The covariance of more genes than this no longer fits in memory beside the data.
MOST_GENES_FOR_COVARIANCE = 4000


def fit_components(
    log_NG: sparse.csr_matrix | np.ndarray, n_components: int = 50, seed: int = 0
) -> PCA:
    """Fit on measured cells only: a prediction must not choose how it is looked at.

    There are fewer components where there are fewer cells or genes; the seed is of the iterative
    solver that large gene sets need.
    """
    n, g = log_NG.shape
    if g <= MOST_GENES_FOR_COVARIANCE:
        d, solver = max(1, min(n_components, n, g)), "covariance_eigh"
    else:
        # ARPACK finds fewer components than there are rows and columns.
        d, solver = max(1, min(n_components, n - 1, g - 1)), "arpack"
    return PCA(n_components=d, svd_solver=solver, random_state=short_seed(seed)).fit(log_NG)
