"""Do cd.tl.responders and pertpy's Mixscape call the same cells of Papalexi's screen?

Mixscape runs in an environment of its own that has pertpy, whose interpreter is given (see
``mixscape_pertpy.py``). A cell is called where its probability is above one half, by both. One row
for each perturbation:

``agreement``, ``kappa``
    Share of cells with the same call, and Cohen's kappa; missing where one of both calls all or
    none.
``silent_*``
    Share of cells without a count of the perturbed gene, where that is among the genes: of those
    called by both, by one alone, by neither, and of the controls.
``left_*``
    What is left of the effect in cells not called, in genes that the caller did not see: each
    method calls with one half of the genes, and in the other half the squared difference of means
    from the controls of the replicates, sampling noise subtracted, of cells not called is over that
    of all perturbed cells. Both halves in turn; 0 where those not called are as controls.

    python notebooks/benchmarks/mixscape.py docs/results/mixscape.csv --pertpy-python ENV/bin/python
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from datetime import date
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from sklearn.metrics import cohen_kappa_score

import celldit as cd
from celldit.data import Cells
from celldit.data.fields import Fields

METHODS = ("celldit", "guides", "mixscape")


def calls(adata: ad.AnnData, python: str) -> dict[str, np.ndarray]:
    """Which cells each method calls; that of controls is of no matter."""
    found = {}
    for name, guide_key in (("celldit", None), ("guides", "grna")):
        cd.tl.responders(adata, guide_key=guide_key)
        found[name] = adata.obs["p_responded"].to_numpy() > 0.5
    with tempfile.TemporaryDirectory() as folder:
        screen, table = Path(folder) / "screen.h5ad", Path(folder) / "calls.csv"
        ad.AnnData(adata.X, adata.obs[["perturbation", "replicate", "total_umis"]], adata.var[[]]
                   ).write_h5ad(screen)  # fmt: skip
        script = Path(__file__).with_name("mixscape_pertpy.py")
        subprocess.run([python, str(script), str(screen), str(table)], check=True)
        p = pd.read_csv(table, index_col=0)["mixscape_class_p_ko"]
    found["mixscape"] = p.loc[adata.obs_names].to_numpy() > 0.5
    return found


def size(log_NG: np.ndarray, cells_N: np.ndarray, control_N: np.ndarray, of_N: np.ndarray) -> float:
    """Squared difference of means from the controls of the same replicates, without noise."""
    shift_G, noise, n = np.zeros(log_NG.shape[1]), 0.0, int(cells_N.sum())
    for replicate in np.unique(of_N[cells_N]):
        own, controls = (log_NG[some & (of_N == replicate)] for some in (cells_N, control_N))
        share = len(own) / n
        shift_G += share * (own.mean(0) - controls.mean(0))
        noise += share**2 * float(controls.var(0, ddof=1).sum()) / len(controls)
        noise += share / n * float(own.var(0).sum())
    return float(shift_G @ shift_G) - noise


def setup() -> ad.AnnData:
    """Papalexi's screen."""
    adata = cd.datasets.papalexi()
    cd.CellDiT.setup_anndata(
        adata, perturbation_key="perturbation", control="control", covariate_keys=["replicate"],
        size_factor_key="total_umis",
    )  # fmt: skip
    return adata


def main(out: Path, python: str) -> None:
    """Write one row for each perturbation, and one for all."""
    adata = setup()
    called = calls(adata, python)
    log_NG = Cells.from_anndata(adata, Fields.from_anndata(adata)).log_normalized().toarray()
    halves = [np.arange(adata.n_vars) % 2 == half for half in (0, 1)]
    of_half = [calls(adata[:, genes].copy(), python) for genes in halves]
    label = adata.obs["perturbation"].astype(str).to_numpy()
    replicate, control_N = adata.obs["replicate"].astype(str).to_numpy(), label == "control"
    rows = []
    for name in sorted(set(label) - {"control"}):
        own_N = label == name
        ours, theirs = called["celldit"][own_N], called["mixscape"][own_N]
        row: dict[str, object] = {"perturbation": name, "n_cells": own_N.sum()}
        row |= {f"share_{method}": called[method][own_N].mean() for method in METHODS}
        for method in ("celldit", "guides"):
            mine = called[method][own_N]
            row[f"agreement_{method}"] = (mine == theirs).mean()
            varies = 0 < mine.sum() < len(mine) and 0 < theirs.sum() < len(mine)
            row[f"kappa_{method}"] = cohen_kappa_score(mine, theirs) if varies else np.nan
        if name in adata.var_names:
            silent_N = log_NG[:, adata.var_names.get_loc(name)] == 0
            parts = {"both": ours & theirs, "celldit": ours & ~theirs,
                     "mixscape": theirs & ~ours, "neither": ~ours & ~theirs}  # fmt: skip
            for part, chosen in parts.items():
                row[f"silent_{part}"] = silent_N[own_N][chosen].mean() if chosen.any() else np.nan
            row["silent_control"] = silent_N[control_N].mean()
        whole = sum(size(log_NG[:, ~g], own_N, control_N, replicate) for g in halves)
        row["effect"] = whole
        for method in METHODS:
            rest = [own_N & ~found[method] for found in of_half]
            enough = all(r.sum() >= 10 for r in rest) and whole > 0
            left = [size(log_NG[:, ~g], r, control_N, replicate)
                    for g, r in zip(halves, rest, strict=True)] if enough else [np.nan]  # fmt: skip
            row[f"left_{method}"] = sum(left) / whole
        rows.append(row)
        print(row, flush=True)
    table = pd.DataFrame(rows)
    perturbed = ~control_N
    whole_row: dict[str, object] = {"perturbation": "all", "n_cells": perturbed.sum()}
    whole_row |= {f"share_{m}": called[m][perturbed].mean() for m in METHODS}
    for m in ("celldit", "guides"):
        pair = called[m][perturbed], called["mixscape"][perturbed]
        whole_row |= {f"agreement_{m}": (pair[0] == pair[1]).mean(),
                      f"kappa_{m}": cohen_kappa_score(*pair)}  # fmt: skip
    table = pd.concat([table, pd.DataFrame([whole_row])], ignore_index=True).round(4)
    table["machine"], table["date"] = "x86_64, one core", date.today().isoformat()
    table.to_csv(out, index=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pertpy-python", required=True)
    options = parser.parse_args()
    main(options.out, options.pertpy_python)
