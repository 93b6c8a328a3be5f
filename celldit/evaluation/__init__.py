"""Honest evaluation: measures, baselines, a ceiling, and the three side by side."""

from __future__ import annotations

from celldit.evaluation import baselines, metrics
from celldit.evaluation.catalogue import DEFAULT, METRICS, Metric
from celldit.evaluation.ceiling import ceiling, score
from celldit.evaluation.compare import compare
from celldit.evaluation.dynamic_range import dynamic_range
from celldit.evaluation.evaluate import evaluate
from celldit.evaluation.resampling import headroom, paired
from celldit.evaluation.uncertainty import detectable, intervals

__all__ = [
    "DEFAULT",
    "METRICS",
    "Metric",
    "baselines",
    "ceiling",
    "compare",
    "detectable",
    "dynamic_range",
    "evaluate",
    "headroom",
    "intervals",
    "metrics",
    "paired",
    "score",
]


def __dir__() -> list[str]:
    return list(__all__)
