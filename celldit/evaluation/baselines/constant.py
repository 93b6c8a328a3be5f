"""Baselines that do not look at the perturbation."""

from __future__ import annotations

import numpy as np

from celldit.data.cells import Cells
from celldit.evaluation.baselines.base import Baseline


class NoChange(Baseline):
    """Every perturbation leaves the cells as they are."""

    name = "no change"

    def _shift(self, perturbation: str, context: str) -> np.ndarray:
        return np.zeros(len(self.effects.genes))


class MeanShift(Baseline):
    """Every perturbation does what the trained ones did on average, weighted by cells."""

    name = "mean shift"

    def _shift(self, perturbation: str, context: str) -> np.ndarray:
        return self.effects.average(np.arange(len(self.effects.perturbations)))


class MajorityVote(Baseline):
    """Every gene does what it does in most perturbations: the median of the trained shifts.

    Its sign is that of the majority; a gene that most perturbations leave alone stays where it is,
    which a mean does not manage.
    """

    name = "majority vote"
    _median: np.ndarray

    def _fit(self, train: Cells) -> None:
        self._median = np.median(self.effects.shifts, axis=0)

    def _shift(self, perturbation: str, context: str) -> np.ndarray:
        return self._median
