"""Generated cells against measured ones that training never saw.

    python notebooks/benchmark_generation.py baron --seeds 1
    python notebooks/benchmark_generation.py papalexi --seeds 3

Half of the cells of every group (cell type, or perturbation) train the model, the other half judge
it. Each row of the table compares one source of cells with that held-out half:

real           the training half: the ceiling
generated      celldit, the composition and library sizes of the held-out half
own sizes      celldit, with library sizes of its own
noise source   celldit without its flow: a Gaussian for each group in the latent
reconstructed  held-out cells, encoded, decoded and drawn: what the decoder and the count noise cost

AUC, nearest neighbour, MMD (bandwidths 1/2, 1, 2 and more of the median distance, see
``celldit.evaluation.metrics.mmd``), energy and Wasserstein distance in 30 principal components of
the training half, errors of variances, zeros and correlations, and the share of copies.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scipy import sparse
from sklearn.decomposition import PCA

import celldit as cd
from celldit.evaluation import metrics as measure
from celldit.samplers.copies import copies
from celldit.samplers.counts import draw_counts

GROUPS = {"baron": "cell_type", "papalexi": "perturbation"}
SETUP = {
    "baron": {"covariate_keys": ["cell_type"], "size_factor_key": "total_umis"},
    "papalexi": {
        "perturbation_key": "perturbation",
        "covariate_keys": ["replicate"],
        "size_factor_key": "total_umis",
    },
}


class Silent(torch.nn.Module):
    """A flow that leaves its source where it is."""

    def __init__(self) -> None:
        super().__init__()
        self.anything = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x_BKD: torch.Tensor, t_B: torch.Tensor, told: object) -> torch.Tensor:
        """Zero velocity."""
        return torch.zeros_like(x_BKD)


def halves(adata: ad.AnnData, key: str, seed: int) -> tuple[ad.AnnData, ad.AnnData]:
    """Two halves with the same groups; of an odd number the first gets one more."""
    rng = np.random.default_rng(seed)
    second = np.zeros(adata.n_obs, dtype=bool)
    for rows in adata.obs.groupby(key, observed=True).indices.values():
        second[rng.permutation(rows)[: len(rows) // 2]] = True
    return adata[~second].copy(), adata[second].copy()


def log_expression(counts: sparse.csr_matrix, size_factors: np.ndarray) -> np.ndarray:
    """log(1 + counts per 10,000), dense."""
    scale = sparse.diags(1e4 / np.asarray(size_factors, dtype=np.float64))
    return np.log1p((scale @ sparse.csr_matrix(counts)).toarray()).astype(np.float32)


def row(name: str, cells: np.ndarray, real: np.ndarray, pca: PCA, seed: int) -> dict[str, object]:
    """Everything measured of one source of cells."""
    x, y = pca.transform(cells), pca.transform(real)
    some = np.random.default_rng(seed).permutation(min(len(x), len(y)))[:1000]
    return {
        "cells": name,
        "auc": measure.classifier_auc(cells, real, seed=seed),
        "nearest": measure.nearest_neighbor_accuracy(x, y, seed=seed),
        "mmd": measure.mmd(x[some], y[some]),
        "energy": measure.energy_distance(x[some], y[some]),
        "w2": measure.wasserstein(x[some], y[some]),
        "sliced_w2": measure.sliced_wasserstein(x[some], y[some]),
        "mean_error": float(abs(cells.mean(0) - real.mean(0)).mean()),
        "variance_ratio": measure.variance_ratio(cells, real),
        "zero_error": measure.zero_fraction_error(cells, real),
        "correlation_error": measure.correlation_error(cells, real),
    }


def run(name: str, seed: int, max_cells: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """One split: the table of sources, and the copies by group."""
    key = GROUPS[name]
    train, test = halves(getattr(cd.datasets, name)(), key, seed)
    cd.CellDiT.setup_anndata(train, **SETUP[name])
    model = cd.CellDiT(train)
    start = time.perf_counter()
    model.train(seed=seed, enable_progress_bar=False)
    seconds = time.perf_counter() - start
    trained = model.trained
    real = log_expression(test.X, test.obs["total_umis"])
    known = log_expression(train.X, train.obs["total_umis"])
    pca = PCA(30, random_state=0).fit(known)
    n_cells = min(test.n_obs, max_cells)

    def generated(**how: object) -> ad.AnnData:
        return model.generate(n_cells, seed=seed, **how)

    def expression(cells: ad.AnnData) -> np.ndarray:
        return log_expression(cells.layers["counts"], cells.obs["size_factor"])

    start = time.perf_counter()
    made = generated(like=test)
    rate = n_cells / (time.perf_counter() - start)
    sources = {"real": known, "generated": expression(made), "own sizes": expression(generated())}
    model._trained = replace(trained, flow=Silent())
    sources["noise source"] = expression(generated(like=test))
    model._trained = trained
    cells = trained.read(test)
    with torch.no_grad():
        z_NKD = trained.autoencoder.encode(cells)
        counts = trained.autoencoder.decode(z_NKD, torch.from_numpy(cells.size_factors))
    drawn = draw_counts(counts, np.arange(cells.n_cells), seed)
    sources["reconstructed"] = log_expression(drawn, cells.size_factors)
    table = pd.DataFrame([row(n, x, real, pca, seed) for n, x in sources.items()])
    table.insert(0, "data", name)
    table.insert(1, "seed", seed)
    table["seconds_of_training"], table["cells_per_second"] = seconds, rate
    new = copies(
        pca.transform(sources["own sizes"]),
        pca.transform(known),
        generated().obs[key].astype(str).to_numpy(),
        train.obs[key].astype(str).to_numpy(),
    )
    new.insert(0, "data", name)
    new.insert(1, "seed", seed)
    return table, new.reset_index()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=sorted(GROUPS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--max-cells", type=int, default=3000)
    parser.add_argument("--out", default="generation_{data}.csv")
    options = parser.parse_args()
    runs = [run(options.data, seed, options.max_cells) for seed in range(options.seeds)]
    table = pd.concat([t for t, _ in runs])
    new = pd.concat([c for _, c in runs])
    path = options.out.format(data=options.data)
    table.to_csv(path, index=False)
    new.to_csv(path.replace(".csv", "_copies.csv"), index=False)
    shown = table.drop(columns=["data", "seed"]).groupby("cells", sort=False).mean()
    print(shown.round(4).to_string())
    print(new.drop(columns=["data", "seed"]).groupby("group").mean().round(3).to_string())


if __name__ == "__main__":
    main()
