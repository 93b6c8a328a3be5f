"""What each step between the flow and the counts of a prediction is worth, one left out at a time.

    python notebooks/benchmarks/observation_ablation.py docs/results/observation_ablation.csv

A type of Kang, knock-outs of Papalexi in a replicate without them, the same where no replicate has
them, and pairs of Norman are held out, and predicted by the effect model alone (no epoch of
training). Each row leaves out one step of ``celldit/calibration/means.py`` and all else is as it
was; scores as in ``scores.py``. Rows are appended. What the steps of new cells are worth is in
``generation.csv``.
"""

from __future__ import annotations

import argparse
import csv
import platform
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import torch
from held_out import COMBINATIONS, HeldOut, Problem, pose, problems
from scores import Scorer

import celldit as cd
from celldit.calibration.means import MeanCalibration
from celldit.calibration.own_gene.on_target import OnTarget
from celldit.effects.residual_genes import ResidualGenes
from celldit.training import TrainingConfig

COLUMNS = ["problem", "without", "seed", "pearson", "nmse", "energy", "date", "machine"]
#: Held out in all replicates; nothing is known of them but gene sets.
NEVER_SEEN = ("STAT1", "IRF1", "IFNGR1", "CD86", "CAV1", "JAK2")


def posed() -> Iterator[HeldOut]:
    """The problems."""
    named = {f"{p.dataset}, {p.name}": p for p in problems()}
    for name in ("kang, CD14 Mono", "papalexi, 8 knock-outs in rep_3"):
        yield pose(named[name])
    yield pose(Problem("papalexi", "6 knock-outs never seen", "perturbation", NEVER_SEEN))
    yield pose(Problem("norman", "3 combinations", "combination", COMBINATIONS))


def without_steps(whole: MeanCalibration, n_genes: int) -> dict[str, MeanCalibration]:
    """Mean calibrations, each without one step."""
    return {
        "nothing": whole,
        "mean calibration": MeanCalibration.none(n_genes),
        "fitted weights": replace(whole, weights={}),
        "residual genes": replace(whole, residual_genes=ResidualGenes.none(n_genes)),
        "on-target effect": replace(whole, on_target=OnTarget()),
        "responders": replace(whole, shares={}),
    }


def run(problem: HeldOut, seed: int) -> Iterator[dict[str, object]]:
    """Train once, and score each."""
    features = None
    if problem.name.endswith("never seen"):
        whole = cd.datasets.papalexi()
        cd.CellDiT.setup_anndata(whole, perturbation_key="perturbation")
        features = cd.pp.gene_features(whole, source="reactome", allow_missing=True)
    model = cd.CellDiT(problem.train, features=features)
    model.train(0, seed=seed, config=TrainingConfig(new_cells=False), enable_progress_bar=False)
    trained, score = model.trained, Scorer(problem)
    for step, means in without_steps(trained.mean_calibration, len(trained.genes)).items():
        model._trained = replace(trained, mean_calibration=means)
        predicted = model.predict(problem.controls, perturbations=problem.perturbations, seed=seed)
        scores = {name: round(float(value), 4) for name, value in score(predicted).items()}
        yield {
            "problem": problem.name, "without": step, "seed": seed, **scores,
            "date": date.today().isoformat(), "machine": f"{platform.machine()}, one core",
        }  # fmt: skip


def main() -> None:
    """Append a row for each problem, seed and step."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    is_new = not asked.out.exists()
    with asked.out.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        for problem in posed():
            for seed in asked.seeds:
                for row in run(problem, seed):
                    writer.writerow(row)
                    print(row, flush=True)
                file.flush()


if __name__ == "__main__":
    main()
