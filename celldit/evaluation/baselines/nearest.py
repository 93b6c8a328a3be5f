"""The baseline that copies the most similar trained perturbation."""

from __future__ import annotations

import numpy as np

from celldit.errors import UnknownNameError
from celldit.evaluation.baselines.base import Baseline


class NearestPerturbation(Baseline):
    """The effect of the most similar trained perturbation.

    Similarity is the share of parts in common (Jaccard). A trained perturbation is nearest to
    itself. Of the nearest, those in the context asked for count, or else all, averaged with their
    numbers of cells as weights.
    """

    name = "nearest perturbation"

    def _shift(self, perturbation: str, context: str) -> np.ndarray:
        effects = self.effects
        labels = list(dict.fromkeys(effects.perturbations))
        if perturbation in labels:
            nearest = [perturbation]
        else:
            similarity = np.array([self._similarity(perturbation, label) for label in labels])
            top = similarity.max()
            if top <= 0:
                raise UnknownNameError.among(
                    "perturbation without a part in common with trained ones:",
                    perturbation,
                    labels,
                )
            nearest = [
                label
                for label, s in zip(labels, similarity, strict=True)
                if np.isclose(s, top, rtol=1e-9, atol=1e-12)
            ]
        rows = np.concatenate([effects.find(label, context) for label in nearest])
        if rows.size == 0:
            rows = np.concatenate([effects.find(label) for label in nearest])
        return effects.average(rows)

    def _similarity(self, one: str, other: str) -> float:
        a, b = set(self._parts(one)), set(self._parts(other))
        return len(a & b) / len(a | b)
