"""The benchmark: what celldit and the baselines predict for conditions that were held out."""

from __future__ import annotations

from celldit.evaluation.benchmark.declared import Declaration, read_declaration
from celldit.evaluation.benchmark.methods import Method, baseline_methods
from celldit.evaluation.benchmark.problems import Posed, Problem, pose, problems
from celldit.evaluation.benchmark.run import CELLDIT, METRICS, run
from celldit.evaluation.benchmark.table import render_table
from celldit.evaluation.benchmark.verdict import Verdict, judge

__all__ = [
    "CELLDIT",
    "METRICS",
    "Declaration",
    "Method",
    "Posed",
    "Problem",
    "Verdict",
    "baseline_methods",
    "judge",
    "pose",
    "problems",
    "read_declaration",
    "render_table",
    "run",
]
