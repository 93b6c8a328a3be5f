"""A day in the middle of a time course, held out: reprogramming on day 10.5.

    python notebooks/benchmark_trajectory.py docs/results/trajectory.csv

celldit is trained on days 10 and 11 and asked for day 10.5: each cell of both days followed there
by ``trajectory()``, through noise (``inversion``) or without (``edit``), and new cells by
``generate()``. Beside them are the days themselves, their mixture, and the middle of cells of the
two days matched by exact optimal transport (in the principal components of the judge; the middle of
log expression). The ceiling is one half of the measured cells of the day against the other.

Energy, Wasserstein and squared error of the mean (over that of the mixture) are of log expression,
the first two in 30 principal components of days 10 and 11. Day 10.5 has no part in anything but
judging.
"""

from __future__ import annotations

import sys
from pathlib import Path

import anndata as ad
import numpy as np
import ot
import pandas as pd
import torch
from sklearn.decomposition import PCA

import celldit as cd
from celldit.evaluation import metrics as measure

HELD_OUT, SEEDS = 10.5, (0, 1, 2)


def log_expression(counts: np.ndarray, total: float) -> np.ndarray:
    """log(1 + counts scaled to one total); the library size of the whole cell is not known."""
    return np.log1p(counts * (total / counts.sum(axis=1, keepdims=True)))


def matched_middle(x_NG: np.ndarray, y_MG: np.ndarray, pca: PCA) -> np.ndarray:
    """The middle of every pair of the exact transport plan between two days."""
    n, m = len(x_NG), len(y_MG)
    cost_NM = ot.dist(pca.transform(x_NG), pca.transform(y_MG))
    rows, columns = np.nonzero(ot.emd(np.full(n, 1 / n), np.full(m, 1 / m), cost_NM))
    return 0.5 * (x_NG[rows] + y_MG[columns])


def of_celldit(train: ad.AnnData, seed: int) -> dict[str, ad.AnnData]:
    """Cells for the day that training did not see, made in several ways."""
    cd.CellDiT.setup_anndata(train, time_key="day")
    model = cd.CellDiT(train)
    model.train(seed=seed, enable_progress_bar=False)
    made = {
        f"trajectory, {sampler}": model.trajectory(
            train, times=[HELD_OUT], sampler=sampler, seed=seed
        )
        for sampler in ("inversion", "edit")
    }
    made["generate"] = model.generate(train.n_obs, time=HELD_OUT, seed=seed)
    return made


def run(seed: int) -> list[dict[str, object]]:
    """Train once and score everything against the held-out day."""
    adata = cd.datasets.reprogramming()
    day = adata.obs["day"].to_numpy()
    counts = adata.X.toarray().astype(np.float64)
    total = float(np.median(counts[day != HELD_OUT].sum(axis=1)))
    log = log_expression(counts, total)
    truth, early, late = (log[day == d] for d in (HELD_OUT, 10.0, 11.0))
    both = np.concatenate([early, late])
    pca = PCA(30, random_state=0).fit(both)
    half = np.random.default_rng(seed).permutation(len(truth)) % 2 == 0
    sources = {
        "day 10": early,
        "day 11": late,
        "mixture of both days": both,
        "middle of matched cells": matched_middle(early, late, pca),
    }
    made = of_celldit(adata[day != HELD_OUT].copy(), seed)
    for name, cells in made.items():
        sources[f"celldit {name}"] = log_expression(
            cells.layers["counts"].toarray().astype(np.float64), total
        )
    gap = np.square(both.mean(0) - truth.mean(0)).sum()
    rows = []
    for name, cells, judge in [
        *((n, c, truth) for n, c in sources.items()),
        ("measured (half against half)", truth[half], truth[~half]),
    ]:
        x, y = pca.transform(cells), pca.transform(judge)
        some = np.random.default_rng(seed).permutation(len(x))[: len(y)]
        rows.append(
            {
                "cells": name,
                "seed": seed,
                "energy": measure.energy_distance(x, y),
                "wasserstein": measure.wasserstein(x[some], y),
                "mean_error": np.square(cells.mean(0) - judge.mean(0)).sum() / gap,
                "variance_ratio": measure.variance_ratio(cells, judge),
            }
        )
        print(rows[-1], flush=True)
    return rows


def main(out: Path) -> None:
    """Write one row per source of cells and seed."""
    torch.set_num_threads(1)
    rows = [row for seed in SEEDS for row in run(seed)]
    pd.DataFrame(rows).to_csv(out, index=False, float_format="%.5g")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
