"""One condition under evaluation: the cells, and what the measures share, computed once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from celldit.evaluation.metrics.classifiers import thin
from celldit.evaluation.metrics.differential import (
    DifferentialExpression,
    differential_expression,
)
from celldit.evaluation.metrics.kernel import median_distance
from celldit.evaluation.metrics.shift import largest
from celldit.evaluation.representation import PrincipalComponents

__all__ = ["Condition"]


@dataclass(frozen=True, eq=False)
class Condition:
    """Predicted, measured and control cells of one perturbation in one context.

    Parameters
    ----------
    predicted_NG, true_MG, control_KG
        Log expression, float32, shapes (N, G), (M, G) and (K, G).
    components
        Principal components of the measured cells.
    seed
        Of everything random in a measure.
    """

    predicted_NG: np.ndarray
    true_MG: np.ndarray
    control_KG: np.ndarray
    components: PrincipalComponents
    seed: int = 0

    @cached_property
    def control_mean(self) -> np.ndarray:
        """Mean of the measured control cells, which both shifts start from, shape (G,)."""
        return self.control_KG.mean(axis=0, dtype=np.float64)

    @cached_property
    def predicted_shift(self) -> np.ndarray:
        """Mean predicted minus mean control expression, shape (G,)."""
        return self.predicted_NG.mean(axis=0, dtype=np.float64) - self.control_mean

    @cached_property
    def true_shift(self) -> np.ndarray:
        """Mean measured minus mean control expression, shape (G,)."""
        return self.true_MG.mean(axis=0, dtype=np.float64) - self.control_mean

    @cached_property
    def top_genes(self) -> np.ndarray:
        """Positions of the 20 genes with the largest true shift."""
        return largest(self.true_shift, 20)

    @cached_property
    def de_genes(self) -> np.ndarray:
        """Positions of the genes that truly differ."""
        return self.true_de.significant()

    @cached_property
    def true_de(self) -> DifferentialExpression:
        """Measured perturbed against control cells."""
        return differential_expression(self.true_MG, self.control_KG)

    @property
    def tested_NG(self) -> np.ndarray:
        """Predicted cells that genes are tested on, no more than were measured, shape (N, G).

        Significance grows with the number of cells, which is the experimenter's choice and not a
        merit of the prediction.
        """
        return self.predicted_NG[thin(len(self.predicted_NG), len(self.true_MG), self.seed)]

    @cached_property
    def predicted_de(self) -> DifferentialExpression:
        """Predicted against measured control cells."""
        return differential_expression(self.tested_NG, self.control_KG)

    @cached_property
    def predicted_ND(self) -> np.ndarray:
        """Predicted cells in principal components, shape (N, D)."""
        return self.components.transform(self.predicted_NG)

    @cached_property
    def true_MD(self) -> np.ndarray:
        """Measured cells in principal components, shape (M, D)."""
        return self.components.transform(self.true_MG)

    @cached_property
    def bandwidth(self) -> float:
        """Median distance between measured cells in principal components."""
        return median_distance(self.true_MD)
