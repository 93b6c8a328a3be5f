"""The baseline that copies the most similar trained perturbation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from celldit.errors import UnknownNameError
from celldit.evaluation.baselines.base import Baseline
from celldit.evaluation.baselines.features import FeatureTable

__all__ = ["NearestPerturbation"]


class NearestPerturbation(Baseline):
    """The effect of the most similar trained perturbation.

    Similarity is the cosine of the mean features of the parts, or without features the share of
    parts in common (Jaccard). A trained perturbation is nearest to itself. Of the nearest, those in
    the context asked for count, or else all, averaged with their numbers of cells as weights.

    Parameters
    ----------
    features
        As in :class:`FeatureRidge`; None to compare parts.
    perturbation_sep
        What stands between two perturbations of one cell.

    Raises
    ------
    InputError
        If the features cannot be used.
    """

    name = "nearest perturbation"

    def __init__(
        self,
        features: Mapping[str, Sequence[float] | np.ndarray] | pd.DataFrame | None = None,
        *,
        perturbation_sep: str = "+",
    ) -> None:
        super().__init__(perturbation_sep=perturbation_sep)
        self.features = None if features is None else FeatureTable(features)

    def _shift(self, perturbation: str, context: str) -> np.ndarray:
        effects = self.effects
        labels = list(dict.fromkeys(effects.perturbations))
        if perturbation in labels:
            nearest = [perturbation]
        else:
            similarity = np.array([self._similarity(perturbation, label) for label in labels])
            top = similarity.max()
            if self.features is None and top <= 0:
                raise UnknownNameError.among(
                    "perturbation without a part in common with trained ones and without features:",
                    perturbation,
                    labels,
                )
            nearest = [
                label
                for label, s in zip(labels, similarity, strict=True)
                if np.isclose(s, top, rtol=1e-9, atol=1e-12)
            ]
        of_context = [effects.find(label, context) for label in nearest]
        rows = np.concatenate(of_context)
        if rows.size == 0:
            rows = np.concatenate([effects.find(label) for label in nearest])
        return effects.average(rows)

    def _similarity(self, one: str, other: str) -> float:
        a, b = self._parts(one), self._parts(other)
        if self.features is None:
            return len(set(a) & set(b)) / len(set(a) | set(b))
        u = np.mean([self.features[part] for part in a], axis=0)
        v = np.mean([self.features[part] for part in b], axis=0)
        lengths = float(np.linalg.norm(u) * np.linalg.norm(v))
        return float(u @ v) / lengths if lengths > 0 else 0.0
