"""Do cell types stand apart in the latent as they do in 50 principal components?

A fifth of the cells is held out, another one for each seed. Latents and principal components
(scanpy's: log1p of counts per 10,000, centred, no scaling) learn from the rest, without labels;
held-out cells are then encoded, as `get_latent_representation` gives them: every token at its own
size. The `unit` columns are of tokens at the unit scale that the flow needs.

- kNN accuracy: share of held-out cells whose type is that of most of their 15 nearest training
  cells (Euclidean).
- ARI: adjusted Rand index of k-means (as many clusters as types), fitted on the held-out cells
  alone, against their types. The best of 20 starts still depends on the starts, so it is the mean
  over 20 such runs, and `ari_kmeans_sd` their standard deviation.

    python notebooks/benchmarks/structure.py docs/results/structure.csv
    python notebooks/benchmarks/structure.py docs/results/structure.csv --data kang --seeds 10

Rows are appended, and those already there are not measured again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from appended import append_missing
from latent import split
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import KNeighborsClassifier

import celldit as cd
from celldit.data.cells import Cells
from celldit.data.fields import Fields
from celldit.latent import Autoencoder, LatentConfig
from celldit.tokenizers import resolve

COLUMNS = (
    "data", "latent", "n_dims", "seed", "knn_accuracy", "ari", "ari_kmeans_sd",
    "unit_knn_accuracy", "unit_ari", "seconds", "version",
)  # fmt: skip
#: What a row is of.
CASE = ("data", "latent", "seed")
COMPONENTS = "50 principal components"
KMEANS_RUNS = 20


def encode(train: Cells, test: Cells, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Latents of training and held-out cells, and the size of each dimension."""
    model = Autoencoder.fit(train, resolve("gene_sets").fit(train), LatentConfig(), seed)
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
) -> tuple[float, float, float]:
    """kNN accuracy of held-out cells; adjusted Rand index over runs of k-means, mean and sd."""
    knn = KNeighborsClassifier(15).fit(z_train, train_types).score(z_test, test_types)
    n_types = len(set(test_types))
    indices = []
    for run in range(KMEANS_RUNS):
        clusters = KMeans(n_types, n_init=20, random_state=run).fit_predict(z_test)
        indices.append(adjusted_rand_score(test_types, clusters))
    return round(knn, 4), round(np.mean(indices), 4), round(np.std(indices, ddof=1), 4)


def measure(cells: Cells, types: np.ndarray, latent: str, seed: int) -> dict[str, Any]:
    """What a row of the table says of one latent."""
    rows = split(cells.n_cells, seed)
    train, test = (cells.take(some) for some in rows)
    of_types = [types[some] for some in rows]
    began = time.perf_counter()
    if latent == COMPONENTS:
        z_train, z_test = components(train, test, seed)
        size_F = np.ones(z_train.shape[1], dtype=z_train.dtype)
    else:
        z_train, z_test, size_F = encode(train, test, seed)
    seconds = time.perf_counter() - began
    own_size = scores(z_train, z_test, *of_types)
    unit_knn, unit_ari, _ = scores(z_train / size_F, z_test / size_F, *of_types)
    found = [z_test.shape[1], *own_size, unit_knn, unit_ari, round(seconds, 1), cd.__version__]
    return dict(zip([name for name in COLUMNS if name not in CASE], found, strict=True))


def main() -> None:
    """Append the rows that are missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", default="baron", choices=("baron", "kang"))
    parser.add_argument(
        "--latents", nargs="+", choices=(COMPONENTS, "pca"), default=[COMPONENTS, "pca"]
    )
    parser.add_argument("--seeds", type=int, default=20, help="how many splits")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    adata = cd.datasets.load(asked.data)
    cd.CellDiT.setup_anndata(adata, size_factor_key="total_umis")
    cells = Cells.from_anndata(adata, Fields.from_anndata(adata))
    types = adata.obs["cell_type"].astype(str).to_numpy()
    wanted = (
        {"data": asked.data, "latent": latent, "seed": seed}
        for latent in asked.latents
        for seed in range(asked.seeds)
    )
    append_missing(
        asked.out,
        COLUMNS,
        wanted,
        lambda case: [measure(cells, types, case["latent"], case["seed"])],
    )


if __name__ == "__main__":
    main()
