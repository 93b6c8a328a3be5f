"""Baselines that do not look at the perturbation."""

from __future__ import annotations

import numpy as np

from celldit.evaluation.baselines.base import Baseline

__all__ = ["MeanShift", "NoChange"]


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
