"""Are effects of measured conditions found that nothing shares, and none where nothing happens?

    python notebooks/benchmarks/seen_effects.py docs/results/seen_effects.csv

Simulated screens of 200 genes and 30 perturbations. In half of the screens fifteen perturbations
change fifteen genes each, which have nothing to do with those of others, by a log factor of N(0,
.8²); in the other half nothing happens. Three programmes vary between cells, counts are negative
binomial, a cell has about 1,800. The effect model is fitted to all cells, and every gene of every
perturbation is asked for. ``called``: share of genes with a local false sign rate below 5%;
``wrong``: share of these that do not change (by less than 2%), or the other way; ``found``: share
of log fold changes above .4 that are called with the right sign; ``in_90``: share of true log fold
changes inside the 90% interval.
"""

from __future__ import annotations

import sys
import warnings
from datetime import date
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch
from methods import describe_machine
from scipy import sparse

import celldit as cd
from celldit.calibration.rates.fold_change import PSEUDO_RATE
from celldit.training import TrainingConfig

SEEDS = (0, 1, 2)
N_GENES, NAMES, N_ACTIVE, N_CHANGED = 200, [f"P{i}" for i in range(30)], 15, 15
#: Control cells, and cells of each perturbation.
SIZES = ((8, 50), (30, 50), (60, 50), (400, 50), (400, 15), (400, 200))
LARGE, NONE = 0.4, 0.02


def simulate(
    n_controls: int, n_cells: int, n_active: int, seed: int
) -> tuple[ad.AnnData, np.ndarray]:
    """A screen, and the true log fold change of each perturbation and gene."""
    rng = np.random.default_rng(seed)
    share_G = np.exp(rng.normal(0, 1.2, N_GENES))
    factor_PG = np.zeros((len(NAMES), N_GENES))
    for row in range(n_active):
        factor_PG[row, rng.permutation(N_GENES)[:N_CHANGED]] = rng.normal(0, 0.8, N_CHANGED)
    row_N = np.repeat(np.arange(-1, len(NAMES)), [n_controls] + [n_cells] * len(NAMES))
    programmes_KG = rng.normal(0, 0.3, (3, N_GENES))
    state_NG = rng.normal(size=(len(row_N), 3)) @ programmes_KG
    rate_NG = share_G * np.exp(np.where(row_N[:, None] < 0, 0, factor_PG[row_N]) + state_NG)
    rate_NG *= np.exp(rng.normal(7.5, 0.3, (len(row_N), 1))) / rate_NG.sum(1, keepdims=True)
    counts_NG = rng.poisson(rate_NG * rng.gamma(3, 1 / 3, rate_NG.shape)).astype(np.float32)
    labels = ["control" if row < 0 else NAMES[row] for row in row_N]
    obs = pd.DataFrame({"perturbation": labels}, [f"c{i}" for i in range(len(labels))])
    var = pd.DataFrame(index=[f"g{i}" for i in range(N_GENES)])
    # Programmes are the same with and without, and raise every gene's mean alike.
    usual_G = share_G * np.exp((programmes_KG**2).sum(0) / 2)
    after_PG = usual_G * np.exp(factor_PG)
    before_G, after_PG = usual_G / usual_G.sum(), after_PG / after_PG.sum(1, keepdims=True)
    truth_PG = np.log(1e4 * after_PG + PSEUDO_RATE) - np.log(1e4 * before_G + PSEUDO_RATE)
    return ad.AnnData(sparse.csr_matrix(counts_NG), obs, var), truth_PG


def measure(n_controls: int, n_cells: int, n_active: int, seed: int) -> dict[str, float]:
    """One row of the table."""
    cells, truth_PG = simulate(n_controls, n_cells, n_active, seed)
    cd.CellDiT.setup_anndata(cells, perturbation_key="perturbation", control="control")
    model = cd.CellDiT(cells, "modules")
    config = TrainingConfig(new_cells=False)
    model.train(0, config=config, seed=seed, enable_progress_bar=False)
    table = cd.tl.effects(cells, model, NAMES)

    def of(column: str) -> np.ndarray:
        wide = table.pivot(index="perturbation", columns="gene", values=column)
        return wide.loc[NAMES, list(cells.var_names)].to_numpy()

    sign_PG = np.where(of("lfsr") < 0.05, np.sign(of("log_fold_change")), 0)
    true_PG = np.where(np.abs(truth_PG) < NONE, 0, np.sign(truth_PG))
    called_PG, large_PG = sign_PG != 0, np.abs(truth_PG) > LARGE
    inside_PG = (of("low") <= truth_PG) & (truth_PG <= of("high"))
    return {
        "controls": n_controls,
        "cells": n_cells,
        "active": n_active,
        "seed": seed,
        "called": called_PG.mean(),
        "wrong": (sign_PG != true_PG)[called_PG].mean() if called_PG.any() else np.nan,
        "found": (sign_PG == true_PG)[large_PG].mean() if large_PG.any() else np.nan,
        "in_90": inside_PG.mean(),
    }


def main(out: Path) -> None:
    """Write the table."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows = []
    for n_active in (0, N_ACTIVE):
        for size in SIZES:
            rows += [measure(*size, n_active, seed) for seed in SEEDS]
            table = pd.DataFrame(rows).assign(date=date.today(), machine=describe_machine())
            table.round(4).to_csv(out, index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
