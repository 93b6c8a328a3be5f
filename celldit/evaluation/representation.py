"""Principal components fitted on measured cells, in which distances between samples are taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.decomposition import PCA

from celldit.random import short_seed

# The covariance of more genes than this no longer fits in memory beside the data.
MOST_GENES_FOR_COVARIANCE = 4000


@dataclass(frozen=True, eq=False)
class PrincipalComponents:
    """A linear map from log expression to D coordinates.

    Parameters
    ----------
    mean_G
        Mean expression of the cells it was fitted on, shape (G,).
    components_DG
        Orthonormal directions, largest variance first, shape (D, G).
    """

    mean_G: np.ndarray
    components_DG: np.ndarray

    @classmethod
    def fit(
        cls, log_NG: sparse.csr_matrix | np.ndarray, n_components: int = 50, seed: int = 0
    ) -> PrincipalComponents:
        """Fit on measured cells only: a prediction must not choose how it is looked at.

        There are fewer components where there are fewer cells or genes; the seed is of the
        iterative solver that large gene sets need.
        """
        n, g = log_NG.shape
        if g <= MOST_GENES_FOR_COVARIANCE:
            d, solver = max(1, min(n_components, n, g)), "covariance_eigh"
        else:
            # ARPACK finds fewer components than there are rows and columns.
            d, solver = max(1, min(n_components, n - 1, g - 1)), "arpack"
        pca = PCA(n_components=d, svd_solver=solver, random_state=short_seed(seed))
        pca.fit(log_NG)
        return cls(
            mean_G=np.asarray(pca.mean_, dtype=np.float32).ravel(),
            components_DG=np.asarray(pca.components_, dtype=np.float32),
        )

    def transform(self, log_NG: Any) -> np.ndarray:
        """Coordinates of cells, float32, shape (N, D)."""
        offset_D = self.components_DG @ self.mean_G
        return np.asarray(log_NG @ self.components_DG.T - offset_D, dtype=np.float32)
