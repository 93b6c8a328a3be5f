"""Do the cell types of Baron stand apart in the latent as they do in 50 principal components?

A fifth of the cells is held out, another one for each seed. Latents and principal components
(scanpy's: log1p of counts per 10,000, centred, no scaling) learn from the rest, without labels;
held-out cells are then encoded, as `get_latent_representation` gives them: every token at its own
size. The `unit` columns are of tokens at the unit scale that the flow needs.

- kNN accuracy: share of held-out cells whose type is that of most of their 15 nearest training
  cells (Euclidean).
- ARI: adjusted Rand index of k-means (as many clusters as types, 20 starts), fitted on the held-out
  cells alone, against their types.

    python notebooks/benchmark_structure.py docs/results/structure.csv
"""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path

import numpy as np
import torch
from benchmark_latent import TOKENIZERS, split
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import KNeighborsClassifier

import celldit as cd
from celldit.data.cells import Cells
from celldit.data.fields import Fields
from celldit.latent import Autoencoder, LatentConfig
from celldit.tokenizers import resolve
from celldit.training.config import TrainingConfig
from celldit.training.latent_stage import train_latent
from celldit.training.trainer import quiet_lightning, trainer_defaults

COLUMNS = (
    "latent", "tokenizer", "n_dims", "seed", "knn_accuracy", "ari", "unit_knn_accuracy",
    "unit_ari", "seconds", "version",
)  # fmt: skip


SEEDS = range(5)


def encode(
    train: Cells, test: Cells, latent: str, tokenizer: str, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Latents of training and held-out cells after stage one, and the size of each dimension."""
    with quiet_lightning():
        config = LatentConfig(kind=latent)
        model = Autoencoder.start(train, resolve(tokenizer).fit(train), config, seed)
        train_latent(
            model,
            train,
            TrainingConfig(),
            max_epochs=None,
            seed=seed,
            trainer_arguments=trainer_defaults({"enable_progress_bar": False}, "latent"),
        )
    size_F = model.scale.repeat_interleave(model.token_dim).numpy()
    z_train, z_test = (model.at_own_size(model.encode(cells)) for cells in (train, test))
    return z_train, z_test, size_F


def components(train: Cells, test: Cells, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Fifty principal components of log expression."""

    def log_expression(cells: Cells) -> np.ndarray:
        return np.log1p(cells.counts.toarray() * (1e4 / cells.size_factors[:, None]))

    pca = PCA(50, random_state=seed).fit(log_expression(train))
    return pca.transform(log_expression(train)), pca.transform(log_expression(test))


def scores(
    z_train: np.ndarray,
    z_test: np.ndarray,
    train_types: np.ndarray,
    test_types: np.ndarray,
    seed: int,
) -> tuple[float, float]:
    """kNN accuracy and adjusted Rand index of held-out cells."""
    knn = KNeighborsClassifier(15).fit(z_train, train_types).score(z_test, test_types)
    clusters = KMeans(len(set(test_types)), n_init=20, random_state=seed).fit_predict(z_test)
    return round(knn, 4), round(adjusted_rand_score(test_types, clusters), 4)


def main(out: Path) -> None:
    """Write one row per latent."""
    torch.set_num_threads(1)
    adata = cd.datasets.load("baron")
    cd.CellDiT.setup_anndata(adata, size_factor_key="total_umis")
    cells = Cells.from_anndata(adata, Fields.from_anndata(adata))
    types = adata.obs["cell_type"].astype(str).to_numpy()
    runs = [("50 principal components", ""), ("pca", "")]
    runs += [("set", tokenizer) for tokenizer in TOKENIZERS]
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for latent, tokenizer in runs:
            for seed in SEEDS:
                rows = split(cells.n_cells, seed)
                train, test = (cells.take(some) for some in rows)
                of_types = [types[some] for some in rows]
                began = time.perf_counter()
                if latent in ("pca", "set"):
                    own = tokenizer or "gene_sets"
                    z_train, z_test, size_F = encode(train, test, latent, own, seed)
                else:
                    z_train, z_test = components(train, test, seed)
                    size_F = np.ones(z_train.shape[1], dtype=z_train.dtype)
                seconds = time.perf_counter() - began
                sized = scores(z_train, z_test, *of_types, seed)
                unit = scores(z_train / size_F, z_test / size_F, *of_types, seed)
                parts = (*sized, *unit, round(seconds, 1))
                row = (latent, tokenizer, z_test.shape[1], seed, *parts, cd.__version__)
                writer.writerow(row)
                file.flush()
                print(*row, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
