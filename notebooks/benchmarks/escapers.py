"""Do predictions hold the cells that did not respond?

Some cells of a knock-out are as controls are, so measured cells are bimodal where the effect is
large. *half* trains on half of the cells of each perturbation and context and is judged by the
others (Papalexi, Norman); *rep_3* holds eight knock-outs of Papalexi out in one replicate. For each
perturbation, of cells *predicted* from controls, of the same where all cells respond (*all
respond*: the same model without its shares of responders), and of new cells (*generated*):

``zeros``
    Share of cells without a count of the perturbed gene, measured, in controls, predicted and
    generated.
``zeros_top``
    Mean absolute error of the shares of zeros of the 20 genes that change most.
``score_w1``
    Wasserstein distance of scores along the measured effect, in standard deviations of the
    controls: 0 where as many cells responded, as far. ``score_sd`` is their standard deviation over
    the measured one, nothing where no measured cell has any of the 20 genes.
``auc``, ``energy``, ``nmse``
    Can boosted trees tell predicted from measured cells, and scores as in ``scores.py``.

    python notebooks/benchmarks/escapers.py docs/results/escapers.csv
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from datetime import date
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch
from held_out import HeldOut, cases
from scipy import stats
from scores import Scorer, log_expression_of, shift_scores

import celldit as cd
from celldit.evaluation.metrics.cells import classifier_auc

N_TOP, N_NEW, N_SEEDS, MIN_CELLS = 20, 1_000, 2, 25


def half(screen: ad.AnnData, name: str, seed: int, **setup: object) -> HeldOut:
    """Every second cell of each condition."""
    rng = np.random.default_rng(seed)
    hidden = np.zeros(screen.n_obs, dtype=bool)
    keys = ["perturbation", *setup.get("covariate_keys", [])]
    for rows in screen.obs.groupby(keys, observed=True).indices.values():
        hidden[rng.permutation(rows)[: len(rows) // 2]] = True
    control = (screen.obs["perturbation"] == "control").to_numpy()
    train = screen[~hidden].copy()
    cd.CellDiT.setup_anndata(
        train, perturbation_key="perturbation", control="control", size_factor_key="total_umis",
        **setup,
    )  # fmt: skip
    controls, truth = screen[hidden & control].copy(), screen[hidden & ~control].copy()
    asked = tuple(sorted(set(truth.obs["perturbation"].astype(str))))
    return HeldOut(name, train, truth, controls, asked, "perturbation")


def halves(seed: int) -> list[HeldOut]:
    """What is judged with one seed."""
    return [
        half(cd.datasets.papalexi(), "Papalexi, half", seed, covariate_keys=["replicate"]),
        cases()["papalexi"](),
        half(cd.datasets.norman(), "Norman, half", seed),
    ]


def spread_ratio(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Standard deviation of scores over the measured one; NaN where that is rounding error."""
    spread = measured.std()
    return float(predicted.std() / spread) if spread > 1e-6 else float("nan")


def compared(problem: HeldOut, model: cd.CellDiT, seed: int) -> list[dict[str, object]]:
    """One row for each perturbation and kind of cells."""
    score, names = Scorer(problem), list(problem.train.var_names)
    obs = problem.truth.obs[problem.perturbation_key].astype(str).to_numpy()
    trained, asked = model.trained, {"perturbations": problem.perturbations, "seed": seed}
    shares, predicted = trained.mean_calibration.shares, {}
    for kind, used in (("predicted", shares), ("all respond", {})):
        calibration = replace(trained.mean_calibration, shares=used)
        model._trained = replace(trained, mean_calibration=calibration)
        predicted[kind] = model.predict(problem.controls, **asked)
    model._trained = trained
    of_predicted = predicted["predicted"].obs[problem.perturbation_key].astype(str).to_numpy()
    logs = {kind: log_expression_of(cells) for kind, cells in predicted.items()}
    rows, before = [], score.before
    for label in problem.perturbations:
        truth = score.truth[obs == label]
        if len(truth) < MIN_CELLS:
            continue
        shift = truth.mean(0) - before.mean(0)
        noise = truth.var(0) / len(truth) + before.var(0) / len(before)
        top = np.argsort(-np.abs(shift) / np.sqrt(noise + 1e-9))[:N_TOP]
        away = [cells[:, top] @ shift[top] for cells in (before, truth)]
        centre, sd = away[0].mean(), away[0].std()
        measured = (away[1] - centre) / sd
        new = model.generate(N_NEW, like=problem.truth[obs == label].copy(), seed=seed)
        parts = sorted(label.split("+"))
        asked = of_predicted == "+".join(parts)
        kinds = {kind: cells[asked] for kind, cells in logs.items()}
        for kind, cells in {**kinds, "generated": log_expression_of(new)}.items():
            along = (cells[:, top] @ shift[top] - centre) / sd
            zeros = [(some == 0).mean(0) for some in (cells, truth, before)]
            row: dict[str, object] = {
                "problem": problem.name, "seed": seed, "perturbation": label, "cells": kind,
                "n_cells": len(truth), "size": measured.mean(),
                "share": shares.get(tuple(parts), 1.0),
                "zeros_top": np.abs(zeros[0] - zeros[1])[top].mean(),
                "score_w1": stats.wasserstein_distance(along, measured),
                "score_sd": spread_ratio(along, measured),
                "auc": classifier_auc(cells, truth, seed=seed),
                "energy": score.energy(cells, truth),
                "nmse": shift_scores(cells.mean(0) - before.mean(0), truth, before.mean(0))[1],
            }  # fmt: skip
            if label in names:
                own = [some[names.index(label)] for some in zeros]
                row |= dict(zip(("zeros", "zeros_measured", "zeros_control"), own, strict=True))
            rows.append(row)
    return rows


def main(out: Path) -> None:
    """Write every comparison."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows: list[dict[str, object]] = []
    for seed in range(N_SEEDS):
        for problem in halves(seed):
            model = cd.CellDiT(problem.train)
            model.train(seed=seed, enable_progress_bar=False)
            rows += compared(problem, model, seed)
            table = pd.DataFrame(rows).round(4)
            table["machine"], table["date"] = "x86_64, one core", date.today().isoformat()
            table.to_csv(out, index=False)
    # Where a share was learned, and everywhere else, where nothing differs.
    split = table["share"].lt(1).rename("some stay")
    measures = ["zeros_top", "score_w1", "auc", "energy", "nmse"]
    print(table.groupby(["problem", split, "cells"])[measures].mean().round(4))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
