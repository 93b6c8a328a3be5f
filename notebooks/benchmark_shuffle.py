"""Does shuffling by blocks train as well as a full permutation?

Papalexi, sorted by perturbation (the worst order for reading in blocks), one autoencoder for each way
of shuffling: held-out negative log-likelihood (nats per gene) of stage one at its linear start and
after each of three epochs. `distinct` is the mean number of different perturbations in a batch of
256 cells.

    python notebooks/benchmark_shuffle.py docs/results/shuffle.csv
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np
import pandas as pd

import celldit as cd
from celldit.compute import threads
from celldit.data.disk import stored
from celldit.evaluation.benchmark.machine import describe_machine
from celldit.latent import Autoencoder, LatentConfig
from celldit.tokenizers import Modules
from celldit.training import TrainingConfig
from celldit.training.autoencoder.stage import train_latent
from celldit.training.trainer import quiet_lightning, trainer_defaults

EPOCHS, SEEDS = 3, (0, 1)
WAYS = {  # window and block, in cells
    "permutation": (65_536, 32),
    "blocks of 32 in windows of 2,048": (2_048, 32),
    "blocks of 128 in windows of 2,048": (2_048, 128),
    "blocks of 256, order within them kept together": (256, 256),
}


def main(out: Path) -> None:
    """Write one row per way and seed."""
    warnings.simplefilter("ignore")
    adata = cd.datasets.papalexi()
    keys = {"perturbation_key": "perturbation", "covariate_keys": ["replicate"],
            "size_factor_key": "total_umis"}  # fmt: skip
    order = np.argsort(adata.obs["perturbation"].to_numpy().astype(str), kind="stable")
    rows = []
    with tempfile.TemporaryDirectory() as folder, threads(), quiet_lightning():
        adata[order].copy().write_h5ad(Path(folder) / "a.h5ad")
        for name, (window, block) in WAYS.items():
            stored.WINDOW_CELLS, stored.MIN_BLOCK = window, block
            store = cd.open_store(Path(folder) / "a.h5ad", **keys)
            positions = store.shuffled(np.random.default_rng(0))
            labels = pd.factorize(store.perturbations)[0][positions]
            batches = [labels[i : i + 256] for i in range(0, len(labels) - 255, 256)]
            distinct = float(np.mean([len(np.unique(batch)) for batch in batches]))
            for seed in SEEDS:
                model = Autoencoder.start(store, Modules().fit(store), LatentConfig(), seed)
                arguments = trainer_defaults({"enable_progress_bar": False}, "latent")
                history = train_latent(model, store, TrainingConfig(), max_epochs=EPOCHS,
                                       seed=seed, trainer_arguments=arguments)  # fmt: skip
                losses = [round(entry["held_out_nll"], 5) for entry in history]
                rows.append((name, seed, round(distinct, 1), *losses))
                print(rows[-1], flush=True)
    columns = ["shuffling", "seed", "distinct", *(f"nll_epoch_{i + 1}" for i in range(EPOCHS))]
    table = pd.DataFrame(rows, columns=columns)
    table["machine"], table["date"] = describe_machine(), time.strftime("%Y-%m-%d")
    table.to_csv(out, index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
