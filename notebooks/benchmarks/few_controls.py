"""What few control cells do to effects: with their noise in them, and without.

    python notebooks/benchmarks/few_controls.py docs/results/few_controls.csv

A screen is cut to a few cells of each condition, controls too. The effect model is fitted to these,
and judged by all other cells, which have control cells of their own. *nmse* is the squared error of
the mean change of log expression over the squared change, each summed over conditions, sampling
noise of the cells that judge taken off both. ``measured``: the change that the few cells show
themselves. ``from measured controls``: what the effect model expects cells to differ by from the
controls at hand, as predicted cells do. ``effects``: what it says the perturbation does
(:mod:`celldit.effects.shared_noise`). Each of conditions that it was fitted to (*seen*), and of the
same, each without its own cells (*left out*). All are read by the line from the latent to log
expression.
"""

from __future__ import annotations

import sys
import warnings
from datetime import date
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from methods import describe_machine
from scores import log_expression

import celldit as cd
from celldit.conditions import Condition
from celldit.training import TrainingConfig

SEEDS = (0, 1, 2)
SETUP = {"perturbation_key": "perturbation", "control": "control", "size_factor_key": "total_umis"}


def screens() -> dict[str, tuple[ad.AnnData, list[str], int]]:
    """Cells, covariates, and how many cells of each condition are kept."""
    return {
        "Papalexi, 60 cells": (cd.datasets.papalexi(), ["replicate"], 60),
        "Papalexi, 20 cells": (cd.datasets.papalexi(), ["replicate"], 20),
        "Norman, 50 cells": (cd.datasets.norman(), [], 50),
    }


def cut(
    screen: ad.AnnData, keys: list[str], n_cells: int, seed: int
) -> tuple[ad.AnnData, dict[Condition, np.ndarray]]:
    """The few cells, and log expression of all others by condition."""
    rng, kept = np.random.default_rng(seed), np.zeros(screen.n_obs, dtype=bool)
    rest: dict[Condition, np.ndarray] = {}
    groups = screen.obs.groupby(["perturbation", *keys], observed=True).indices
    logs = log_expression(screen)
    for names, rows in groups.items():
        label, *context = names if isinstance(names, tuple) else (names,)
        own = rng.permutation(rows)
        n = min(n_cells, len(own) // 2)
        kept[own[:n]] = True
        parts = () if label == "control" else tuple(sorted(str(label).split("+")))
        rest[Condition(parts, None, " | ".join(map(str, context)))] = logs[own[n:]]
    return screen[kept].copy(), rest


def nmse(found_CG: np.ndarray, conditions: tuple[Condition, ...], rest: dict[Condition, Any]
         ) -> float:  # fmt: skip
    """Squared error over squared effect."""
    error = size = 0.0
    for condition, found_G in zip(conditions, found_CG, strict=True):
        treated, control = rest[condition], rest[condition.control()]
        change_G = treated.mean(axis=0) - control.mean(axis=0)
        noise = sum(float(each.var(axis=0).sum()) / len(each) for each in (treated, control))
        error += float(((found_G - change_G) ** 2).sum()) - noise
        size += float((change_G**2).sum()) - noise
    return round(error / size, 4)


def main(out: Path) -> None:
    """Write one row for each screen, seed and estimate."""
    warnings.simplefilter("ignore")
    rows = []
    for name, (screen, keys, n_cells) in screens().items():
        for seed in SEEDS:
            train, rest = cut(screen, keys, n_cells, seed)
            cd.CellDiT.setup_anndata(train, covariate_keys=keys, **SETUP)
            model = cd.CellDiT(train)
            config = TrainingConfig(flow_epochs=0, new_cells=False)
            model.train(seed=seed, config=config, enable_progress_bar=False)
            prior = model.trained.population.prior
            line_FG = model.trained.mean_calibration.slopes_FG
            conditions = prior.conditions
            measured = prior.shifts @ np.linalg.inv(prior.rotation)
            estimates = {("measured", "seen"): measured}
            for what, own in (("from measured controls", prior), ("effects", prior.of_effects)):
                estimates[what, "seen"] = own.estimate(conditions).mean
                estimates[what, "left out"] = own.leave_one_out().mean
            for (what, which), found in estimates.items():
                value = nmse(found @ line_FG, conditions, rest)
                row = {"screen": name, "seed": seed, "estimate": what, "conditions": which}
                rows.append({**row, "nmse": value})
                print(rows[-1], flush=True)
    made = {"date": date.today().isoformat(), "machine": describe_machine()}
    pd.DataFrame(rows).assign(**made).to_csv(out, index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
