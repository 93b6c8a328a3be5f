"""What the aim of counterfactual cells changes, on bundled screens and on small panels of them.

The problems of the README, and three that look like screens people bring: a drug in five patients
and 300 genes (cell types of Kang, called patients), 72 genes of Papalexi of which an added one
takes half of all counts, and the 72 most variable genes of Norman, whose combinations are held out.
The panels have no library sizes of the whole cell. Each model is trained once and asked three
times, with counts edited by decoded rates alone, with the aim (``celldit/calibration/means.py``)
but nothing beyond the latent, and with all of it; beside them two baselines.

    python notebooks/benchmarks/aim.py docs/results/aim.csv --seeds 0

Rows are appended; a problem that has rows is not run again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import torch
from appended import append_missing
from held_out import (
    COMBINATIONS,
    STRONGER_KNOCK_OUTS,
    HeldOut,
    Problem,
    pose,
    problems,
)
from scipy import sparse

import celldit as cd
from celldit.calibration.means import MeanCalibration
from celldit.data import Cells, Fields
from celldit.effects.residual_genes import ResidualGenes
from celldit.evaluation.baselines import Additive, MeanShift, predict_anndata

MEASURES = ["pearson", "nmse", "energy"]
COLUMNS = ["problem", "method", "seed", *MEASURES, "seconds", "version"]
TYPES = ("CD14 Mono", "CD4 Naive T", "B", "NK", "CD16 Mono")


def patients() -> ad.AnnData:
    """Five cell types of Kang as patients, 300 of the 600 genes with most counts."""
    kang = cd.datasets.kang()
    kang = kang[kang.obs["cell_type"].isin(TYPES)]
    most = np.argsort(-np.ravel(kang.X.mean(0)))[:600]
    panel = kang[:, np.sort(np.random.default_rng(0).choice(most, 300, replace=False))].copy()
    panel.obs = panel.obs[["condition", "cell_type"]].rename(columns={"cell_type": "patient"})
    panel = panel[np.ravel(panel.X.sum(1)) > 5].copy()
    cd.CellDiT.setup_anndata(panel, perturbation_key="condition", covariate_keys=["patient"])
    return panel


def dominated() -> ad.AnnData:
    """71 genes of Papalexi, and one that has as many counts as they have together."""
    screen = cd.datasets.papalexi()
    labels = screen.obs["perturbation"].astype(str)
    targets = [gene for gene in dict.fromkeys(labels) if gene in set(screen.var_names)][:12]
    by_mean = screen.var_names[np.argsort(-np.ravel(screen.X.mean(0)))]
    genes = list(dict.fromkeys([*targets, *by_mean[:150:2]]))[:71]
    panel = screen[:, genes]
    rng = np.random.default_rng(0)
    total = np.ravel(panel.X.sum(1))
    largest = rng.poisson(total * rng.lognormal(0, 0.3, len(total)))
    counts = sparse.csr_matrix(np.column_stack([panel.X.toarray(), largest]).astype(np.float32))
    obs = pd.DataFrame({"perturbation": labels, "replicate": screen.obs["replicate"]})
    whole = ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=[*genes, "largest"]))
    cd.CellDiT.setup_anndata(whole, perturbation_key="perturbation", covariate_keys=["replicate"])
    return whole


def variable() -> ad.AnnData:
    """The 72 genes of Norman whose variance exceeds their mean most."""
    norman = cd.datasets.norman()
    mean = np.ravel(norman.X.mean(0))
    excess = np.ravel(norman.X.power(2).mean(0)) - mean**2 - mean
    panel = norman[:, np.sort(np.argsort(-excess / np.maximum(mean, 1e-3))[:72])].copy()
    panel.obs = panel.obs[["perturbation"]]
    panel = panel[np.ravel(panel.X.sum(1)) > 5].copy()
    cd.CellDiT.setup_anndata(panel, perturbation_key="perturbation")
    return panel


def posed() -> dict[str, HeldOut]:
    """Every problem by its name."""
    found = {}
    for name in TYPES:
        problem = Problem("patients", name, "context", (name,))
        found[f"300 genes, {name}"] = pose(problem, patients())
    held_out = tuple((name, "rep_2") for name in STRONGER_KNOCK_OUTS)
    problem = Problem("dominated", "8 knock-outs", "pair", held_out)
    found["72 genes, one of them half, 8 knock-outs"] = pose(problem, dominated())
    problem = Problem("variable", "3 combinations", "combination", COMBINATIONS)
    found["72 genes, 3 combinations"] = pose(problem, variable())
    found |= {f"{p.dataset}, {p.name}": pose(p) for p in problems()}
    return found


def predictions(problem: HeldOut, seed: int) -> dict[str, tuple[ad.AnnData, float]]:
    """Predicted cells and seconds of training by method."""
    fields = Fields.from_anndata(problem.train)
    train = Cells.from_anndata(problem.train, fields)
    controls = Cells.from_anndata(problem.controls, fields, genes=train.genes)
    asked = problem.perturbations
    made = {
        name: (predict_anndata(baseline.fit(train), controls, asked, fields), 0.0)
        for name, baseline in (("mean shift", MeanShift()), ("additive ridge", Additive()))
    }
    start = time.perf_counter()
    model = cd.CellDiT(problem.train)
    model.train(seed=seed, enable_progress_bar=False)
    seconds = time.perf_counter() - start
    trained, mean_calibration = model.trained, model.trained.mean_calibration
    variants = {
        "decoded rates": MeanCalibration.none(train.n_genes),
        "aim, latent alone": replace(
            mean_calibration, residual_genes=ResidualGenes.none(train.n_genes)
        ),
        "aim": mean_calibration,
    }
    for name, variant in variants.items():
        model._trained = replace(trained, mean_calibration=variant)
        made[name] = model.predict(problem.controls, perturbations=asked, seed=seed), seconds
    return made


def main() -> None:
    """Append the rows that are missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    problems = posed()

    def rows(case: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        problem = problems[case["problem"]]
        for method, (cells, seconds) in predictions(problem, case["seed"]).items():
            scores = cd.tl.evaluate(cells, problem.truth, problem.controls, metrics=MEASURES)
            means = scores.groupby("metric")["value"].mean().round(3)
            yield {
                "method": method, **means[MEASURES], "seconds": round(seconds),
                "version": cd.__version__,
            }  # fmt: skip

    wanted = ({"problem": name, "seed": seed} for name in problems for seed in asked.seeds)
    append_missing(asked.out, COLUMNS, wanted, rows)
    table = pd.read_csv(asked.out).groupby(["problem", "method"], sort=False)[MEASURES].mean()
    print(table.round(3).to_string())


if __name__ == "__main__":
    main()
