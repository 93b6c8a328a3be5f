"""A perturbation was measured in one context: what of it carries over to others, how surely?

All other perturbed cells are hidden. *carried over* adds the measured change of mean log expression
to the other context's controls. Scores are those of ``scores.py``; *held* is the share of genes
(measured with a standard error below .3) in 90% intervals of log fold changes, noise of the
measurement included, *sure* how many have a local false sign rate below 5%, and *wrong* how many of
these were measured with the other sign by more than two standard errors.

    python notebooks/benchmarks/one_condition.py docs/results/one_condition.csv FOLDER

FOLDER holds tal1_chimera.h5ad, which does not come with the package.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch
from held_out import chimeras
from scores import log_expression, log_expression_of, shift_scores

import celldit as cd
from celldit.calibration.rates.fold_change import PSEUDO_RATE
from celldit.training import TrainingConfig

MIN_CELLS = 40


def screens(folder: Path) -> Iterator[tuple[str, ad.AnnData, str, str, list[str], list[str]]]:
    """Name, cells, columns of perturbation and context, perturbations, contexts to learn from."""
    tal1, kang, papalexi = (
        chimeras(folder / "tal1_chimera.h5ad"), cd.datasets.kang(), cd.datasets.papalexi()
    )  # fmt: skip
    label = next(name for name in tal1.obs["perturbation"].unique() if name != "control")
    tissues = ["Neural crest", "Endothelium"]
    yield "Tal1", tal1, "perturbation", "cell_type", [label], tissues
    types = ["CD14 Mono", "CD4 Naive T", "B", "NK"]
    yield "Kang", kang, "condition", "cell_type", ["IFNB"], types
    strong = ["STAT1", "SMAD4", "BRD4"]
    yield "Papalexi", papalexi, "perturbation", "replicate", strong, ["rep_1"]


def rates(cells: ad.AnnData) -> tuple[np.ndarray, np.ndarray]:
    """Log mean counts per 10,000 of each gene, and its sampling variance."""
    per_10k = np.expm1(log_expression(cells))
    mean_G = per_10k.mean(0) + PSEUDO_RATE
    return np.log(mean_G), per_10k.var(0, ddof=1) / len(per_10k) / mean_G**2


def held(table: pd.DataFrame, before: ad.AnnData, after: ad.AnnData) -> dict[str, float]:
    """How intervals and calls of one condition fit what was measured."""
    (low_G, of_low_G), (high_G, of_high_G) = rates(before), rates(after)
    measured_G, noise_G = high_G - low_G, of_low_G + of_high_G
    own = table.set_index("gene").loc[after.var_names]
    half_G, middle_G = (own["high"] - own["low"]) / 2, (own["high"] + own["low"]) / 2
    well_G = noise_G < 0.3**2
    within_G = np.abs(measured_G - middle_G) < np.sqrt(half_G**2 + 1.645**2 * noise_G)
    sure_G = (own["lfsr"] < 0.05).to_numpy()
    other_G = np.sign(measured_G) != np.sign(own["log_fold_change"])
    wrong_G = sure_G & other_G & (np.abs(measured_G) > 2 * np.sqrt(noise_G))
    return {
        "held": float(within_G[well_G].mean()), "half_width": float(half_G[well_G].median()),
        "sure": int(sure_G.sum()), "wrong": int(wrong_G.sum()),
    }  # fmt: skip


def rows(folder: Path) -> Iterator[dict[str, object]]:
    """One for each perturbation, context that was learned from, other context and method."""
    for name, cells, key, context_key, labels, sources in screens(folder):
        is_control = (cells.obs[key] == "control").to_numpy()
        context_N = cells.obs[context_key].astype(str).to_numpy()
        for label in labels:
            is_label = (cells.obs[key] == label).to_numpy()
            for source in sources:
                own = is_label & (context_N == source)
                train = cells[is_control | own].copy()
                cd.CellDiT.setup_anndata(
                    train, perturbation_key=key, control="control", covariate_keys=[context_key],
                    size_factor_key="total_umis",
                )  # fmt: skip
                model = cd.CellDiT(train)
                config = TrainingConfig(flow_epochs=0, new_cells=False)
                model.train(config=config, enable_progress_bar=False)
                effects = cd.tl.effects(train, model, perturbations=[label])
                carried_G = log_expression(cells[own]).mean(0)
                carried_G -= log_expression(cells[is_control & (context_N == source)]).mean(0)
                for context in sorted(set(context_N) - {source}):
                    controls = cells[is_control & (context_N == context)].copy()
                    truth = cells[is_label & (context_N == context)].copy()
                    if min(controls.n_obs, truth.n_obs) < MIN_CELLS:
                        continue
                    predicted = model.predict(controls, perturbations=[label], seed=0)
                    before_G = log_expression(controls).mean(0)
                    shift_G = log_expression_of(predicted).mean(0) - before_G
                    where = {"screen": name, "perturbation": label, "learned_from": source}
                    where |= {"predicted": context}
                    for method, change_G in (("celldit", shift_G), ("carried over", carried_G)):
                        r, nmse = shift_scores(change_G, log_expression(truth), before_G)
                        yield {**where, "method": method, "pearson": r, "nmse": nmse} | (
                            held(effects[effects["context"] == context], controls, truth)
                            if method == "celldit" else {}
                        )  # fmt: skip


def main(out: Path, folder: Path) -> None:
    """Write every comparison."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    table = pd.DataFrame(rows(folder)).round(4)
    table["machine"], table["date"] = "x86_64, one core", date.today().isoformat()
    table.to_csv(out, index=False)
    print(table.groupby(["screen", "method"]).mean(numeric_only=True).round(3).to_string())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
