"""What the effect prior says of conditions: a mean shift, and how sure it is in each direction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class EffectEstimate:
    """Effects of Q conditions in a latent of F dimensions.

    Attributes
    ----------
    mean
        Posterior mean shift, float64, shape (Q, F).
    variance
        Posterior variance along the rows of `basis`, shape (Q, F).
    basis
        The independent directions in the latent, shape (F, F).
    """

    mean: np.ndarray
    variance: np.ndarray
    basis: np.ndarray

    @property
    def sd(self) -> np.ndarray:
        """Root mean square of the standard deviations, in units of the spread between cells."""
        return np.sqrt(self.variance.mean(axis=1))

    def project(self, loadings_FG: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation after a linear map, each of shape (Q, G)."""
        directions_FG = self.basis @ loadings_FG
        return self.mean @ loadings_FG, np.sqrt(self.variance @ directions_FG**2)
