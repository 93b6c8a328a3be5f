"""Measures of a prediction, as functions of arrays."""

from __future__ import annotations

from celldit.evaluation.metrics.cells import (
    classifier_auc,
    correlation_error,
    nearest_neighbor_accuracy,
    variance_ratio,
    zero_fraction_error,
)
from celldit.evaluation.metrics.differential import (
    DifferentialExpression,
    de_direction,
    de_overlap,
    differential_expression,
    lfc_error,
)
from celldit.evaluation.metrics.distances import (
    energy_distance,
    median_distance,
    mmd,
    sliced_wasserstein,
    wasserstein,
)
from celldit.evaluation.metrics.shift import (
    centroid_correlations,
    cosine_shift,
    discrimination_scores,
    largest,
    normalized_squared_error,
    pearson_shift,
)

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
