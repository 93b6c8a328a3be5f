"""The baseline that lets the trained perturbations vote, gene by gene."""

from __future__ import annotations

import numpy as np

from celldit.data.cells import Cells
from celldit.evaluation.baselines.base import Baseline

__all__ = ["MajorityVote"]


class MajorityVote(Baseline):
    """Every gene does what it does in most perturbations: the median of the trained shifts.

    Its sign is that of the majority; a gene that most perturbations leave alone stays where it is,
    which a mean does not manage.
    """

    name = "majority vote"

    def __init__(self, *, perturbation_sep: str = "+") -> None:
        super().__init__(perturbation_sep=perturbation_sep)
        self._median = np.zeros(0)

    def _fit(self, train: Cells) -> None:
        self._median = np.median(self.effects.shifts, axis=0)

    def _shift(self, perturbation: str, context: str) -> np.ndarray:
        return self._median
