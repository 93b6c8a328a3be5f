"""Do the 90% intervals of predicted log fold changes cover what was measured?

Conditions are held out, the model is trained on the rest, and each gene of a held-out condition
that responds (its measured log fold change lies more than four standard errors from 0) is looked up
in the interval that was predicted for it. *covered_with_noise* widens the interval by the
measurement's own error; the last column is the share over all genes, responding or not.

    python notebooks/benchmark_calibration.py docs/results/calibration.csv
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from benchmark_prior import problems

import celldit as cd
from celldit.conditions import ConditionTable
from celldit.data import Cells
from celldit.samplers.calibration import RESPONDS, Z_90, mean_rates, measured_fold_change

CHOSEN = (
    "kang, CD14 Mono",
    "kang, CD4 Naive T",
    "kang, B",
    "kang, NK",
    "norman, 3 combinations",
    "papalexi, 8 pairs",
)
SETUP = {
    "kang": {"perturbation_key": "condition", "covariate_keys": ["cell_type"]},
    "norman": {"perturbation_key": "perturbation"},
    "papalexi": {"perturbation_key": "perturbation", "covariate_keys": ["replicate"]},
}


def main(out: Path) -> None:
    """Write one row per held-out condition."""
    rows = []
    for name, (cells, held_out) in problems().items():
        if name not in CHOSEN:
            continue
        data = name.split(",")[0]
        adata = getattr(cd.datasets, data)()
        cd.CellDiT.setup_anndata(adata, size_factor_key="total_umis", **SETUP[data])
        pairs = zip(cells.perturbations, cells.contexts, strict=True)
        is_held_out = np.array([pair in set(held_out) for pair in pairs])
        model = cd.CellDiT(adata[~is_held_out])
        model.train(enable_progress_bar=False)
        effects = model.predict_effects([label for label, _ in held_out])
        for label, where in held_out:
            rows.append((name, label, where, *coverage(cells, effects, label, where)))
            print(*rows[-1], flush=True)
    columns = ["held_out", "perturbation", "context", "genes_responding", "covered"]
    columns += ["covered_with_noise", "share_covered_of_all_genes"]
    table = pd.DataFrame(rows, columns=columns)
    table.to_csv(out, index=False)
    pooled = table.groupby("held_out")[columns[3:6]].sum()
    print(pooled[columns[4:6]].div(pooled["genes_responding"], axis=0).round(3))


def coverage(
    cells: Cells, effects: pd.DataFrame, label: str, where: str
) -> tuple[int, int, int, float]:
    """Genes that respond, how many are covered without and with noise, and the share of all."""
    table = ConditionTable.from_cells(cells, "+")
    index = {(c.label("+", cells.control), c.context): i for i, c in enumerate(table.conditions)}
    control, treated = index[cells.control, where], index[label, where]
    rates = mean_rates(cells, table.index, {control, treated})
    measured, noise = measured_fold_change(rates[control], rates[treated])
    own = effects[(effects["perturbation"] == label) & (effects["context"] == where)]
    own = own.set_index("gene").loc[list(cells.genes)]
    off = np.abs(measured - own["log_fold_change"].to_numpy())
    variance = own["sd"].to_numpy() ** 2
    inside, noisy = off < Z_90 * np.sqrt(variance), off < Z_90 * np.sqrt(variance + noise)
    responds = measured**2 > RESPONDS**2 * noise
    counts = responds.sum(), inside[responds].sum(), noisy[responds].sum()
    return (*map(int, counts), round(float(noisy.mean()), 3))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
