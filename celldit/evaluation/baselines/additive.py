"""The additive baseline: a combination does what its parts do, added up."""

from __future__ import annotations

from typing import Literal

import numpy as np

from celldit.data.cells import Cells
from celldit.errors import InputError, UnknownNameError
from celldit.evaluation.baselines.base import Baseline
from celldit.evaluation.baselines.ridge import RidgeFit, fit_ridge

__all__ = ["Additive"]


class Additive(Baseline):
    """Weighted ridge regression of the mean shifts on the multi-hot design of perturbations.

    One row for each (perturbation, context), weighted by its number of cells; the strength of the
    ridge by leaving one condition out. Contexts share the effects, so that a context never seen
    perturbed can be predicted.

    Parameters
    ----------
    unseen
        What a part that was never trained on gets: ``"error"``, or ``"mean"`` for the mean shift.
    perturbation_sep
        What stands between two perturbations of one cell.

    Raises
    ------
    InputError
        If ``unseen`` is neither of the two.
    """

    name = "additive"

    def __init__(
        self, *, unseen: Literal["error", "mean"] = "error", perturbation_sep: str = "+"
    ) -> None:
        super().__init__(perturbation_sep=perturbation_sep)
        if unseen not in ("error", "mean"):
            raise InputError(f"unseen={unseen!r} is not known; use 'error' or 'mean'.")
        self.unseen = unseen
        self.columns: dict[str, int] = {}
        self.ridge: RidgeFit | None = None

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
        effects = self.effects
        assert self.ridge is not None
        total_G = np.zeros(len(effects.genes))
        for part in self._parts(perturbation):
            if part in self.columns:
                total_G += self.ridge.coefficients[self.columns[part]]
            elif self.unseen == "mean":
                total_G += effects.average(np.arange(len(effects.perturbations)))
            else:
                raise UnknownNameError.among("perturbation", part, self.columns)
        return total_G
