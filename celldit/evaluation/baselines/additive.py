"""The additive baseline: a combination does what its parts do, added up."""

from __future__ import annotations

import numpy as np

from celldit.data.cells import Cells
from celldit.errors import UnknownNameError
from celldit.evaluation.baselines.base import Baseline
from celldit.evaluation.baselines.ridge import RidgeFit, fit_ridge


class Additive(Baseline):
    """Weighted ridge regression of the mean shifts on the multi-hot design of perturbations.

    One row for each (perturbation, context), weighted by its number of cells; the strength of the
    ridge by leaving one condition out. Contexts share the effects, so that a context never seen
    perturbed can be predicted.
    """

    name = "additive"

    columns: dict[str, int]
    ridge: RidgeFit

    def _fit(self, train: Cells) -> None:
        labels = [self._parts(p) for p in self.effects.perturbations]
        self.columns = {part: i for i, part in enumerate(sorted({q for ps in labels for q in ps}))}
        design_EP = np.zeros((len(labels), len(self.columns)))
        for row, label in enumerate(labels):
            design_EP[row, [self.columns[part] for part in label]] = 1.0
        self.ridge = fit_ridge(
            design_EP, self.effects.shifts, self.effects.n_cells, range(len(labels))
        )

    def _shift(self, perturbation: str, context: str) -> np.ndarray:
        total_G = np.zeros(len(self.effects.genes))
        for part in self._parts(perturbation):
            if part not in self.columns:
                raise UnknownNameError.among("perturbation", part, self.columns)
            total_G += self.ridge.coefficients[self.columns[part]]
        return total_G
