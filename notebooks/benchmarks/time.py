"""A time that nobody measured: the middle of a time course held out, and asked for.

    python notebooks/benchmarks/time.py docs/results/time.csv --seeds 0 1 2 --data FOLDER

celldit is trained on the other times. Its new cells (``generate``) and the cells of both neighbours
followed there (``trajectory``) stand beside the simple answers: cells of either neighbour, equal
numbers of both, and cells of both matched by exact optimal transport (in the principal components
of the judge) and read at the time's share of the way between them, in log expression. The ceiling
is one half of the measured cells against the other.

``energy``
    Energy distance to the held-out cells in 50 principal components of log expression (counts per
    10,000) of the training cells; unbiased.
``nmse``
    Squared error of the mean over the squared distance between the held-out mean and that of the
    neighbour before; sampling noise of the measured means is subtracted from both.

Rows are appended. ``--label`` names the version of celldit. ``--data`` names the folder of
``scicar_dex.h5ad``, which celldit does not bundle.
"""

from __future__ import annotations

import argparse
import csv
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import anndata as ad
import numpy as np
import ot
import torch
from branching import branching
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA

import celldit as cd

COLUMNS = [
    "problem", "seed", "label", "cells", "energy", "nmse", "train_seconds", "date", "machine",
]  # fmt: skip
N_COMPONENTS, MAX_CELLS = 50, 1000


@dataclass(frozen=True, eq=False)
class Course:
    """A time course with a time held out.

    Attributes
    ----------
    name, cells
        What it is, and all of its cells.
    time_key, size_key
        Columns of times, and of library sizes; None for totals.
    held_out
        The time that training does not see.
    """

    name: str
    cells: ad.AnnData
    time_key: str
    size_key: str | None
    held_out: float

    @property
    def times(self) -> np.ndarray:
        """Of each cell."""
        return self.cells.obs[self.time_key].to_numpy(float)

    @property
    def neighbours(self) -> tuple[float, float]:
        """The measured times before and after."""
        others = np.unique(self.times)
        return others[others < self.held_out].max(), others[others > self.held_out].min()


def course(name: str, seed: int, folder: Path | None) -> Course:
    """One of the problems."""
    if name == "reprogramming":
        return Course("reprogramming, day 10.5", cd.datasets.reprogramming(), "day", None, 10.5)
    if name == "branching":
        return Course("branching process, time 2", branching(seed), "time", None, 2.0)
    if folder is None:
        raise SystemExit("sci-CAR needs --data FOLDER")
    scicar = ad.read_h5ad(folder / "scicar_dex.h5ad")
    return Course("sci-CAR, 1 h", scicar, "hours", "total_umis", 1.0)


def log_expression(counts: np.ndarray, size_N: np.ndarray) -> np.ndarray:
    """log(1 + counts per 10,000)."""
    return np.log1p(counts / size_N[:, None] * 1e4)


class Judge:
    """Scores of cells against the held-out ones."""

    def __init__(self, train: np.ndarray, truth: np.ndarray, before: np.ndarray) -> None:
        self.pca = PCA(N_COMPONENTS, random_state=0, svd_solver="randomized").fit(train)
        self.truth, self.noise = truth, truth.var(0, ddof=1).sum() / len(truth)
        before_noise = before.var(0, ddof=1).sum() / len(before)
        gap = ((truth.mean(0) - before.mean(0)) ** 2).sum()
        self.gap = gap - self.noise - before_noise

    def __call__(self, cells: np.ndarray) -> dict[str, float]:
        """Energy distance and squared error of the mean."""
        error = ((cells.mean(0) - self.truth.mean(0)) ** 2).sum() - self.noise
        rng = np.random.default_rng(0)
        x, y = (
            self.pca.transform(group[rng.permutation(len(group))[:MAX_CELLS]])
            for group in (cells, self.truth)
        )
        n, m = len(x), len(y)
        within = cdist(x, x).sum() / (n * (n - 1)) + cdist(y, y).sum() / (m * (m - 1))
        return {"energy": float(2 * cdist(x, y).mean() - within), "nmse": float(error / self.gap)}


def matched(x_NG: np.ndarray, y_MG: np.ndarray, share: float, pca: PCA) -> np.ndarray:
    """Every pair of the exact transport plan, a share of the way from one to the other."""
    n, m = len(x_NG), len(y_MG)
    cost_NM = ot.dist(pca.transform(x_NG), pca.transform(y_MG))
    rows, columns = np.nonzero(ot.emd(np.full(n, 1 / n), np.full(m, 1 / m), cost_NM))
    return (1 - share) * x_NG[rows] + share * y_MG[columns]


def simple(problem: Course, judge: Judge, log: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Cells of the simple answers."""
    low, high = problem.neighbours
    early, late = log[problem.times == low], log[problem.times == high]
    n, rng = min(len(early), len(late)), np.random.default_rng(seed)
    half = [group[rng.permutation(len(group))[:n]] for group in (early, late)]
    share = (problem.held_out - low) / (high - low)
    return {
        "earlier neighbour": early,
        "later neighbour": late,
        "half-half mixture": np.concatenate(half),
        "matched cells interpolated": matched(early, late, share, judge.pca),
    }


def of_celldit(problem: Course, seed: int) -> tuple[dict[str, ad.AnnData], float]:
    """Cells for the time that training did not see, and how long training took."""
    train = problem.cells[problem.times != problem.held_out].copy()
    cd.CellDiT.setup_anndata(train, time_key=problem.time_key, size_factor_key=problem.size_key)
    model = cd.CellDiT(train)
    start = time.process_time()
    model.train(seed=seed, enable_progress_bar=False)
    seconds = time.process_time() - start
    around = train[train.obs[problem.time_key].isin(problem.neighbours)].copy()
    made = {
        "celldit, generate": model.generate(2000, time=problem.held_out, seed=seed),
        "celldit, trajectory": model.trajectory(around, times=[problem.held_out], seed=seed),
    }
    return made, seconds


def run(problem: Course, seed: int, label: str) -> Iterator[dict[str, object]]:
    """Train once and score everything against the held-out time."""
    is_out = problem.times == problem.held_out
    counts = problem.cells.X.toarray().astype(float)
    size_key = problem.size_key
    size_N = counts.sum(1) if size_key is None else problem.cells.obs[size_key].to_numpy(float)
    log, before = log_expression(counts, size_N), problem.times == problem.neighbours[0]
    judge = Judge(log[~is_out], log[is_out], log[before])
    half = np.random.default_rng(seed).permutation(is_out.sum()) % 2 == 0
    ceiling = Judge(log[~is_out], log[is_out][~half], log[before])(log[is_out][half])
    scores = {"measured, half against half": ceiling}
    answers = simple(problem, judge, log, seed)
    made, seconds = of_celldit(problem, seed)
    for name, cells in made.items():
        drawn = cells.layers["counts"].toarray().astype(float)
        # As of measured cells: by all counts of the cell where the data say no more.
        own = drawn.sum(1).clip(1) if size_key is None else cells.obs["size_factor"].to_numpy(float)
        answers[name] = log_expression(drawn, own)
    scores |= {name: judge(cells) for name, cells in answers.items()}
    for name, score in scores.items():
        rounded = {key: round(value, 4) for key, value in score.items()}
        yield {
            "problem": problem.name, "seed": seed, "label": label, "cells": name, **rounded,
            "train_seconds": round(seconds, 1) if name in made else "",
            "date": date.today().isoformat(), "machine": f"{platform.machine()}, one core",
        }  # fmt: skip


def main() -> None:
    """Append one row for each problem, seed and kind of cells."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    problems = ["reprogramming", "scicar", "branching"]
    parser.add_argument("--problems", nargs="+", default=problems, choices=problems)
    parser.add_argument("--label", default="celldit")
    parser.add_argument("--data", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    is_new = not asked.out.exists()
    with asked.out.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if is_new:
            writer.writeheader()
        for name in asked.problems:
            for seed in asked.seeds:
                for row in run(course(name, seed, asked.data), seed, asked.label):
                    writer.writerow(row)
                    print(row, flush=True)
                file.flush()


if __name__ == "__main__":
    main()
