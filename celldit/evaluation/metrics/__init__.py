"""Measures of a prediction, as functions of arrays."""

from __future__ import annotations

from celldit.evaluation.metrics.centroid import centroid_correlations
from celldit.evaluation.metrics.classifiers import classifier_auc, nearest_neighbor_accuracy
from celldit.evaluation.metrics.differential import (
    DifferentialExpression,
    de_direction,
    de_overlap,
    differential_expression,
    lfc_error,
)
from celldit.evaluation.metrics.discrimination import discrimination_scores
from celldit.evaluation.metrics.energy import energy_distance
from celldit.evaluation.metrics.kernel import median_distance, mmd
from celldit.evaluation.metrics.shift import (
    cosine_shift,
    largest,
    normalized_squared_error,
    pearson_shift,
)
from celldit.evaluation.metrics.structure import (
    correlation_error,
    variance_ratio,
    zero_fraction_error,
)
from celldit.evaluation.metrics.transport import sliced_wasserstein, wasserstein

__all__ = [
    "DifferentialExpression",
    "centroid_correlations",
    "classifier_auc",
    "correlation_error",
    "cosine_shift",
    "de_direction",
    "de_overlap",
    "differential_expression",
    "discrimination_scores",
    "energy_distance",
    "largest",
    "lfc_error",
    "median_distance",
    "mmd",
    "nearest_neighbor_accuracy",
    "normalized_squared_error",
    "pearson_shift",
    "sliced_wasserstein",
    "variance_ratio",
    "wasserstein",
    "zero_fraction_error",
]
