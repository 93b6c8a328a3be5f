"""The baseline that reads off control cells what follows when a gene is turned down."""

from __future__ import annotations

import numpy as np

from celldit.data.cells import Cells
from celldit.errors import InputError, UnknownNameError
from celldit.evaluation.baselines.base import Baseline


class ControlCovariance(Baseline):
    """Genes move with the perturbed gene as they vary with it among control cells.

    The shift of a perturbation of gene g is ``a cov(x, x_g) / sd(x_g)``, with one number a for all
    perturbations, from least squares over the trained ones. A combination is the sum of its parts.
    Covariances are within contexts, averaged over cells.
    """

    name = "covariance of controls"

    _log: np.ndarray
    _scale: float

    def _fit(self, train: Cells) -> None:
        base = train.take(np.flatnonzero(train.is_control))
        log_KG = base.log_normalized().toarray().astype(np.float64)
        for context in dict.fromkeys(base.contexts):
            rows = base.contexts == context
            log_KG[rows] -= log_KG[rows].mean(axis=0)
        self._log = log_KG
        top = bottom = 0.0
        for row, label in enumerate(self.effects.perturbations):
            if all(part in self.effects.genes for part in self._parts(label)):
                direction_G = self._direction(label)
                top += float(self.effects.n_cells[row] * (direction_G @ self.effects.shifts[row]))
                bottom += float(self.effects.n_cells[row] * (direction_G @ direction_G))
        if bottom == 0:
            raise InputError(
                "No trained perturbation names a gene that was measured, so the covariance of "
                "control cells says nothing of what perturbations do; use another baseline."
            )
        self._scale = top / bottom

    def _shift(self, perturbation: str, context: str) -> np.ndarray:
        return self._scale * self._direction(perturbation)

    def _direction(self, perturbation: str) -> np.ndarray:
        """Covariance of all genes with the perturbed ones, in units of these, shape (G,)."""
        total_G = np.zeros(len(self.effects.genes))
        for part in self._parts(perturbation):
            if part not in self.effects.genes:
                raise UnknownNameError.among("gene", part, self.effects.genes)
            own_K = self._log[:, self.effects.genes.index(part)]
            spread = float(own_K.std())
            if spread > 0:
                total_G += own_K @ self._log / (len(own_K) * spread)
        return total_G
