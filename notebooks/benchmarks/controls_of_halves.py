"""How far the ceiling moves when its halves have control cells of their own, and discrimination's
rules.

    python notebooks/benchmarks/controls_of_halves.py

Writes docs/results/controls_of_halves.csv: for each bundled screen the measures of one half of the
cells as a prediction of the other, with all control cells on both sides and with a half of them
each; and the discrimination that control cells in place of a prediction reach when only the own
target, or all targets of the panel, are left out.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from held_out import set_up

from celldit.data.labels.labels import parts
from celldit.evaluation.metrics import discrimination_scores
from celldit.evaluation.task import Task

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results" / "controls_of_halves.csv"
METRICS = (
    "pearson",
    "pearson_centroid",
    "nmse",
    "energy",
    "discrimination",
    "de_overlap",
    "lfc_error",
)
REPEATS = 5


def halves(name: str, task: Task) -> list[dict]:
    """Means over conditions and halvings, with shared and with separate control cells."""
    found: dict[str, list[pd.Series]] = {"shared": [], "separate": []}
    for seed in range(REPEATS):
        first, second = task.truth.halves(seed)
        drawn = dict.fromkeys(first.conditions(), math.inf)
        shared = replace(task, truth=second).score(first, METRICS, drawn_from=drawn)
        half, first = task.halved(seed)
        separate = half.score(first, METRICS, drawn_from=drawn)
        for key, table in (("shared", shared), ("separate", separate)):
            found[key].append(table.groupby("metric")["value"].mean())
    means = {key: pd.concat(tables, axis=1).mean(axis=1) for key, tables in found.items()}
    return [
        {
            "screen": name,
            "metric": m,
            "shared": means["shared"][m],
            "separate": means["separate"][m],
        }
        for m in METRICS
    ]


def empty(name: str, task: Task, metric: str) -> list[dict]:
    """Discrimination of a random half of the control cells, the same for every perturbation."""
    position = {gene: i for i, gene in enumerate(task.truth.genes)}
    scores: dict[str, list[float]] = {"own target": [], "all targets": []}
    for seed in range(20):
        rng = np.random.default_rng(seed)
        for context in sorted({c for _, c in task.truth.conditions()}):
            keys = [k for k in task.truth.conditions() if k[1] == context]
            base = {k[1]: rows for k, rows in task.control.conditions().items()}[context]
            control = task.control.dense(base)
            start = control.mean(axis=0)
            guess = control[rng.permutation(len(control))[: len(control) // 2]].mean(axis=0) - start
            v = np.stack([task.truth.dense(task.truth.conditions()[k]).mean(axis=0) for k in keys])
            targets = [
                np.array([position[p] for p in parts(k[0], "+", "control") if p in position], int)
                for k in keys
            ]
            u = np.tile(guess, (len(keys), 1))
            panel = np.unique(np.concatenate(targets))
            every = discrimination_scores(u, v - start, metric=metric, left_out=panel)
            scores["all targets"].append(float(every.mean()))
            own = [
                discrimination_scores(u, v - start, metric=metric, left_out=t)[p]
                for p, t in enumerate(targets)
            ]
            scores["own target"].append(float(np.mean(own)))
    return [
        {
            "screen": name,
            "metric": f"empty prediction, {metric}, {what} left out",
            "shared": np.nan,
            "separate": float(np.mean(values)),
        }
        for what, values in scores.items()
    ]


def main() -> None:
    """Measure the bundled screens."""
    warnings.filterwarnings("ignore")
    rows = []
    for name in ("papalexi", "norman", "kang"):
        adata = set_up(name)
        task = Task.prepare(adata, adata, seed=0)
        rows += halves(name, task)
        if name != "kang":
            for metric in ("cosine", "l1"):
                rows += empty(name, task, metric)
    table = pd.DataFrame(rows).round(4)
    table.to_csv(RESULTS, index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
