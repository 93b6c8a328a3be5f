"""Which latent predicts held-out conditions better, principal components or set attention?

The same splits, training and metrics; only ``latent=`` and ``tokenizer=`` differ. One row per
split, latent and seed is appended, and those already there are not run again.

    python notebooks/benchmark_latent_choice.py docs/results/latent_choice.csv --seeds 0 1 2
    python notebooks/benchmark_latent_choice.py docs/results/latent_choice.csv --latents ranks
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

import anndata as ad
import numpy as np
import torch
from benchmark_calibration import SETUP
from benchmark_latent import TOKENIZERS
from benchmark_prior import problems

import celldit as cd
from celldit.training import TrainingConfig

CHOSEN = ("kang, CD14 Mono", "norman, 3 combinations", "papalexi, 8 pairs")
MEASURES = ["pearson", "nmse", "energy"]
# The flow from noise has weights of its own, which predictions by transport do not use.
CONFIG = TrainingConfig(noise_epochs=0)
COLUMNS = ["held_out", "latent", "tokenizer", "seed", *MEASURES, "trust", "seconds", "version"]


def measure(
    train: ad.AnnData, truth: ad.AnnData, control: ad.AnnData, labels: list[str],
    latent: str, tokenizer: str, seed: int,
) -> list[object]:  # fmt: skip
    """Train one model; its scores, trust and seconds."""
    start = time.perf_counter()
    model = cd.CellDiT(train, tokenizer, latent=latent)
    model.train(seed=seed, config=CONFIG, enable_progress_bar=False)
    seconds = time.perf_counter() - start
    predicted = model.predict(control, perturbations=labels, seed=seed)
    scores = cd.tl.evaluate(predicted, truth, control, metrics=MEASURES)
    means = scores.groupby("metric")["value"].mean().round(3)
    trust = max(model.flow_weight[kind] for kind in ("new context", "new combination"))
    return [*means[MEASURES], trust, round(seconds), cd.__version__]


def main() -> None:
    """Append the rows that are missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--latents", nargs="+", default=["pca", *TOKENIZERS])
    parser.add_argument("--held-out", nargs="+", choices=CHOSEN, default=list(CHOSEN))
    asked = parser.parse_args()
    torch.set_num_threads(1)
    done = set()
    if asked.out.exists():
        with asked.out.open(newline="", encoding="utf-8") as file:
            done = {tuple(row[c] for c in COLUMNS[:4]) for row in csv.DictReader(file)}
    else:
        asked.out.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    every = problems()
    for name in asked.held_out:
        cells, held_out = every[name]
        data = name.split(",")[0]
        adata = getattr(cd.datasets, data)()
        cd.CellDiT.setup_anndata(adata, size_factor_key="total_umis", **SETUP[data])
        pairs = zip(cells.perturbations, cells.contexts, strict=True)
        is_held_out = np.array([pair in set(held_out) for pair in pairs])
        contexts = {where for _, where in held_out}
        control = adata[cells.is_control & np.isin(cells.contexts, list(contexts))]
        labels = [label for label, _ in held_out]
        for seed in asked.seeds:
            for name_of_latent in asked.latents:
                latent = "pca" if name_of_latent == "pca" else "set"
                tokenizer = "gene_sets" if latent == "pca" else name_of_latent
                key = (name, latent, "" if latent == "pca" else tokenizer, str(seed))
                if key in done:
                    continue
                train, truth = adata[~is_held_out], adata[is_held_out]
                row = measure(train, truth, control, labels, latent, tokenizer, seed)
                with asked.out.open("a", newline="", encoding="utf-8") as file:
                    csv.writer(file, lineterminator="\n").writerow([*key, *row])
                print(*key, *row, flush=True)


if __name__ == "__main__":
    main()
