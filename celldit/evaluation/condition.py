"""One condition under evaluation: the cells, and what the measures share, computed once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from sklearn.decomposition import PCA

from celldit.evaluation.metrics.cells import thin
from celldit.evaluation.metrics.differential import (
    DifferentialExpression,
    differential_expression,
)
from celldit.evaluation.metrics.distances import median_distance
from celldit.evaluation.metrics.shift import largest


@dataclass(frozen=True, eq=False)
class Condition:
    """Predicted, measured and control cells of one perturbation in one context.

    Cells are log expression, float32, shapes (N, G), (M, G) and (K, G); `components` are those of
    the measured cells. `drawn_from` is the number of cells of which the predicted ones are a random
    part: None when they are all there are, infinity for a part of the measurement itself.
    `predicted_control_KG` are control cells that the predicted cells are compared with; None for
    the same on both sides.
    """

    predicted_NG: np.ndarray
    true_MG: np.ndarray
    control_KG: np.ndarray
    components: PCA
    seed: int = 0
    drawn_from: float | None = None
    predicted_control_KG: np.ndarray | None = None

    @cached_property
    def predicted_shift(self) -> np.ndarray:
        """Mean predicted minus mean control expression, shape (G,)."""
        base = self.predicted_base_KG.mean(axis=0, dtype=np.float64)
        return self.predicted_NG.mean(axis=0, dtype=np.float64) - base

    @property
    def predicted_base_KG(self) -> np.ndarray:
        """Control cells of the predicted side, shape (K, G)."""
        return self.control_KG if self.predicted_control_KG is None else self.predicted_control_KG

    @cached_property
    def true_shift(self) -> np.ndarray:
        """Mean measured minus mean control expression, shape (G,)."""
        base = self.control_KG.mean(axis=0, dtype=np.float64)
        return self.true_MG.mean(axis=0, dtype=np.float64) - base

    @cached_property
    def effect_noise(self) -> float:
        """Squared error of the true shift, over all genes.

        Control cells that both sides share add the same to both shifts, and so nothing to their
        difference: their noise counts where they differ.
        """
        noise = _variance(self.true_MG) / len(self.true_MG)
        if self.predicted_control_KG is not None:
            noise += _variance(self.control_KG) / len(self.control_KG)
        return noise

    @cached_property
    def error_noise(self) -> float:
        """Squared error of the difference of both shifts that is not the prediction's.

        The noise of the measurement, and that of drawing cells for the other side where these are a
        random part. What a prediction of all its cells misses is its error, whatever the cause.
        """
        noise = self.effect_noise
        if self.drawn_from is not None:
            if self.predicted_control_KG is not None:
                noise += _variance(self.predicted_control_KG) / len(self.predicted_control_KG)
            n = len(self.predicted_NG)
            noise += _variance(self.predicted_NG) * max(1.0 / n - 1.0 / self.drawn_from, 0.0)
        return noise

    @cached_property
    def top_genes(self) -> np.ndarray:
        """Positions of the 20 genes with the largest true shift."""
        return largest(self.true_shift, 20)

    @cached_property
    def true_de(self) -> DifferentialExpression:
        """Measured perturbed against control cells."""
        return differential_expression(self.true_MG, self.control_KG)

    @cached_property
    def predicted_de(self) -> DifferentialExpression:
        """Predicted cells, no more than were measured, against control cells.

        Significance grows with the number of cells, which is the experimenter's choice and not a
        merit of the prediction.
        """
        rows = thin(len(self.predicted_NG), len(self.true_MG), self.seed)
        return differential_expression(self.predicted_NG[rows], self.predicted_base_KG)

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


def _variance(log_NG: np.ndarray) -> float:
    """Variance of cells, summed over genes; 0 of a single cell."""
    return float(log_NG.var(axis=0, ddof=1, dtype=np.float64).sum()) if len(log_NG) > 1 else 0.0
