"""Do the intervals of predicted log fold changes cover what was measured?

Conditions are held out, the model is trained on the rest, and each gene of a held-out condition
that responds (its measured log fold change lies more than four standard errors from 0) is looked up
in the interval that was predicted for it. *covered* counts 90% intervals as they are; *with_noise*
widens them by the measurement's own error, as does *half_with_noise* 50% intervals, and *all_genes*
is the share of all genes inside 90% intervals with noise. *sure* counts responding genes whose 90%
interval does not hold 0, and *sd_responding* is the mean standard deviation of responding genes. In
the problems named "seen" nothing is held out but half of the cells, which judge the intervals of
conditions that training has seen.

    python notebooks/benchmarks/calibration.py docs/results/calibration.csv

Rows are appended; a problem that has rows is not run again.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch
from prior import problems

import celldit as cd
from celldit.calibration.effects.intervals import RESPONDS, Z_90
from celldit.calibration.left_out import MIN_CELLS
from celldit.calibration.rates.means import mean_rates, measured_fold_change
from celldit.conditions import ConditionTable
from celldit.data import Cells

Z_50 = 0.6745
SETUP = {
    "kang": {"perturbation_key": "condition", "covariate_keys": ["cell_type"]},
    "norman": {"perturbation_key": "perturbation"},
    "papalexi": {"perturbation_key": "perturbation", "covariate_keys": ["replicate"]},
}


COLUMNS = (
    "problem", "perturbation", "context", "genes_responding", "covered", "with_noise",
    "half_with_noise", "all_genes", "median_sd", "sure", "sd_responding",
)  # fmt: skip
Held = list[tuple[str, str]]


def read(data: str) -> ad.AnnData:
    """A bundled screen, set up."""
    adata = getattr(cd.datasets, data)()
    cd.CellDiT.setup_anndata(adata, size_factor_key="total_umis", **SETUP[data])
    return adata


def trained(adata: ad.AnnData) -> cd.CellDiT:
    """A model with its default training."""
    model = cd.CellDiT(adata)
    model.train(enable_progress_bar=False)
    return model


def main(out: Path) -> None:
    """Write one row per condition."""
    torch.set_num_threads(1)
    if not out.exists():
        out.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    done = set(pd.read_csv(out)["problem"])
    every = problems()
    for name, (cells, held_out) in every.items():
        if name in done:
            continue
        adata = read(name.split(",")[0])
        pairs = zip(cells.perturbations, cells.contexts, strict=True)
        is_held_out = np.array([pair in set(held_out) for pair in pairs])
        write(out, name, trained(adata[~is_held_out]), cells, held_out)
    whole = {name.split(",")[0]: cells for name, (cells, _) in every.items()}
    for data, cells in whole.items():
        name = f"{data}, seen"
        if name in done:
            continue
        is_train = np.random.default_rng(0).random(cells.n_cells) < 0.5
        adata = read(data)
        write(out, name, trained(adata[is_train]), cells.take(~is_train), None)
    table = pd.read_csv(out)
    pooled = table.groupby("problem")[list(COLUMNS[3:7])].sum()
    print(pooled.assign(**pooled.iloc[:, 1:].div(pooled["genes_responding"], axis=0).round(3)))


def write(out: Path, name: str, model: cd.CellDiT, cells: Cells, held_out: Held | None) -> None:
    """Append one row for each held-out condition; None for all that have the cells."""
    table = ConditionTable.from_cells(cells, "+")
    index = {(c.label("+", cells.control), c.context): i for i, c in enumerate(table.conditions)}
    enough = {name for name, i in index.items() if table.counts[i] >= MIN_CELLS}
    wanted = sorted(enough) if held_out is None else held_out
    labels = list(dict.fromkeys(label for label, _ in wanted if label != cells.control))
    effects = model.predict_effects(labels)
    rates = mean_rates(cells, table.index, set(index.values()))
    with out.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        for label, where in wanted:
            if label == cells.control or (cells.control, where) not in enough:
                continue
            pair = rates[index[cells.control, where]], rates[index[label, where]]
            own = effects[(effects["perturbation"] == label) & (effects["context"] == where)]
            own = own.set_index("gene").loc[list(cells.genes)]
            row = (name, label, where, *coverage(own, *measured_fold_change(*pair)))
            writer.writerow(row)
            print(*row, flush=True)


def coverage(
    own: pd.DataFrame, measured: np.ndarray, noise: np.ndarray
) -> tuple[int, int, int, int, float, float, int, float]:
    """Genes that respond, how many of them are covered, and the rest of a row."""
    off = np.abs(measured - own["log_fold_change"].to_numpy())
    sd, noisy = own["sd"].to_numpy(), np.sqrt(own["sd"].to_numpy() ** 2 + noise)
    responds = measured**2 > RESPONDS**2 * noise
    inside = [off < Z_90 * sd, off < Z_90 * noisy, off < Z_50 * noisy]
    counts = [int(own[responds].sum()) for own in inside]
    shares = round(float(inside[1].mean()), 3), round(float(np.median(sd)), 3)
    sure = int((np.abs(own["log_fold_change"].to_numpy()) > Z_90 * sd)[responds].sum())
    mean_sd = round(float(sd[responds].mean()), 3) if responds.any() else np.nan
    return (int(responds.sum()), *counts, *shares, sure, mean_sd)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
