"""The score of Arc's challenge of 2026: six measures between mean response and replicate."""

from __future__ import annotations

from celldit.evaluation.challenge.measures import MEASURES
from celldit.evaluation.challenge.panel import MeasuredCells, Panel
from celldit.evaluation.challenge.scores import COMPOSITE, check_engine, score_panels
from celldit.evaluation.challenge.submission import check_submission, submission

__all__ = [
    "COMPOSITE",
    "MEASURES",
    "MeasuredCells",
    "Panel",
    "check_engine",
    "check_submission",
    "score_panels",
    "submission",
]
