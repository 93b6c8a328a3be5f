"""Simple predictors that every model must beat before it is worth its cost."""

from __future__ import annotations

from celldit.evaluation.baselines.effects import Effects, measure_effects
from celldit.evaluation.baselines.prediction import (
    SIMPLE,
    predict_anndata,
    predict_baseline,
)
from celldit.evaluation.baselines.predictors import (
    Additive,
    Baseline,
    ControlCovariance,
    LatentArithmetic,
    MajorityVote,
    MeanShift,
    NearestPerturbation,
    NoChange,
)

__all__ = [
    "SIMPLE",
    "Additive",
    "Baseline",
    "ControlCovariance",
    "Effects",
    "LatentArithmetic",
    "MajorityVote",
    "MeanShift",
    "NearestPerturbation",
    "NoChange",
    "measure_effects",
    "predict_anndata",
    "predict_baseline",
]
