"""Simple predictors that every model must beat before it is worth its cost."""

from __future__ import annotations

from celldit.evaluation.baselines.additive import Additive
from celldit.evaluation.baselines.base import Baseline
from celldit.evaluation.baselines.constant import MajorityVote, MeanShift, NoChange
from celldit.evaluation.baselines.covariance import ControlCovariance
from celldit.evaluation.baselines.effects import Effects, measure_effects
from celldit.evaluation.baselines.fitted import SIMPLE, predict_all, predict_baseline
from celldit.evaluation.baselines.frame import predict_anndata
from celldit.evaluation.baselines.latent import LatentArithmetic
from celldit.evaluation.baselines.nearest import NearestPerturbation

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
    "predict_all",
    "predict_anndata",
    "predict_baseline",
]
