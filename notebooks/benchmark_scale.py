"""Memory and speed of training from disk: 100,000 and 1,000,000 synthetic cells x 2,000 genes.

Each store (zarr, about 5% of the counts non-zero, 40 perturbations in four cell lines, cells sorted
by cell line) is trained on for one epoch of each stage in a process of its own, from disk and, where
it fits, from memory. `peak_mb` is the highest resident memory of that process, `start_mb` what it
had after its imports.

    python notebooks/benchmark_scale.py docs/results/scale.csv [CELLS ...]
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import anndata as ad
import lightning.pytorch as pl
import numpy as np
import pandas as pd
import zarr
from anndata.io import write_elem
from scipy import sparse

import celldit as cd
from celldit.evaluation.benchmark.machine import describe_machine
from celldit.training import TrainingConfig

SIZES = (100_000, 1_000_000)
MEMORY_UP_TO, FLOW_STEPS = 100_000, 500
N_GENES, N_PERTURBATIONS, LINES = 2_000, 40, ("A549", "HCT116", "K562", "RPE1")
DENSITY, BLOCK, CHUNK = 0.05, 10_000, 1 << 16
KEYS = {"perturbation_key": "perturbation", "covariate_keys": ["cell_line"]}


def write_screen(path: Path, n_cells: int, seed: int = 0) -> None:
    """Write a screen a block at a time, as anndata would write it."""
    rng = np.random.default_rng(seed)
    base_G = rng.gamma(0.5, 1.0, N_GENES)
    base_G *= DENSITY / (1 - np.exp(-base_G)).mean()
    line_XG = rng.normal(0, 0.3, (len(LINES), N_GENES))
    strong = rng.random((N_PERTURBATIONS, N_GENES)) < 0.05
    effect_PG = np.vstack([np.zeros(N_GENES), strong * rng.normal(0, 1, strong.shape)])
    root = zarr.open_group(path, mode="w", zarr_format=2)
    group = root.create_group("X")
    group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0",
                        "shape": [n_cells, N_GENES]})  # fmt: skip
    arrays = {
        name: group.create_array(name, shape=(0,), chunks=(CHUNK,), dtype=dtype)
        for name, dtype in (("data", "float32"), ("indices", "int32"))
    }
    indptr, perturbed, lines = [np.zeros(1, dtype=np.int64)], [], []
    for start in range(0, n_cells, BLOCK):
        n = min(BLOCK, n_cells - start)
        of_cell = rng.integers(0, N_PERTURBATIONS + 1, n) * (rng.random(n) > 0.1)
        line = len(LINES) * (start + np.arange(n)) // n_cells
        rate_NG = np.exp(effect_PG[of_cell] + line_XG[line])
        rate_NG *= base_G * rng.gamma(5, 0.2, (n, 1))
        counts = sparse.csr_matrix(rng.poisson(rate_NG).astype(np.float32))
        for name, array in arrays.items():
            values, at = getattr(counts, name), array.shape[0]
            array.resize((at + len(values),))
            array[at:] = values
        indptr.append(indptr[-1][-1] + counts.indptr[1:].astype(np.int64))
        perturbed.append(of_cell)
        lines.append(line)
    write_elem(group, "indptr", np.concatenate(indptr))
    labels = np.array(["control", *(f"P{i}" for i in range(N_PERTURBATIONS))])
    index = [f"cell{i}" for i in range(n_cells)]
    obs = pd.DataFrame({"perturbation": pd.Categorical(labels[np.concatenate(perturbed)]),
                        "cell_line": pd.Categorical(np.array(LINES)[np.concatenate(lines)])},
                       index=index)  # fmt: skip
    write_elem(root, "obs", obs)
    write_elem(root, "var", pd.DataFrame(index=[f"gene{i}" for i in range(N_GENES)]))
    root.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})


class Stopwatch(pl.Callback):
    """Seconds of each epoch of training alone, by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.begin = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object
                           ) -> None:  # fmt: skip
        self.seconds[type(pl_module).__name__] = time.perf_counter() - self.begin


def peak_mb() -> int:
    """Highest resident memory of this process so far.

    `ru_maxrss` would begin at that of the process which started this one, and wrote the screen.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text().splitlines()
        return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def run(path: Path, source: str) -> dict[str, object]:
    """Train for one epoch of each stage; everything measured on the way."""
    warnings.simplefilter("ignore")
    start_mb, begin = peak_mb(), time.perf_counter()
    if source == "memory":
        data = ad.read_zarr(path)
        cd.CellDiT.setup_anndata(data, **KEYS)
    else:
        data = cd.open_store(path, **KEYS)
    model = cd.CellDiT(data, "modules")
    opened = time.perf_counter()
    n_cells, watch = data.n_obs if source == "memory" else data.n_cells, Stopwatch()
    config = TrainingConfig(n_trials=0, flow_steps_per_epoch=FLOW_STEPS)
    model.train(1, config=config, enable_progress_bar=False, callbacks=[watch])
    trained = time.perf_counter()
    n_train = n_cells - min(20_000, n_cells // 10)
    row = {
        "cells": n_cells,
        "source": source,
        "latent_cells_per_s": round(n_train / watch.seconds["LatentStage"]),
        "flow_cells_per_s": round(FLOW_STEPS * config.flow_batch / watch.seconds["FlowStage"]),
        "seconds_to_open": round(opened - begin, 1),
        "seconds_to_train": round(trained - opened, 1),
        "start_mb": start_mb,
        "peak_mb_after_training": peak_mb(),
    }
    controls = data if source == "memory" else data.select(np.flatnonzero(data.is_control)[:2000])
    if source == "memory":
        controls = data[np.flatnonzero(data.obs["perturbation"] == "control")[:2000]]
    predicted = model.predict(controls, perturbations=["P1"])
    row["mean_predicted_count"] = round(float(predicted.layers["counts"].mean()), 5)
    row["peak_mb"] = peak_mb()
    return row


def add_row(out: Path, row: dict[str, object]) -> None:
    """Put a row into the table, in the place of an older one of the same size and source."""
    table = pd.DataFrame([row])
    if out.exists():
        old = pd.read_csv(out)
        other = (old["cells"] != row["cells"]) | (old["source"] != row["source"])
        table = pd.concat([old[other], table], ignore_index=True)
    table.to_csv(out, index=False)


def main(out: Path, sizes: tuple[int, ...]) -> None:
    """Write the stores to a temporary folder, and a row for each run to `out`."""
    with tempfile.TemporaryDirectory() as folder:
        for n_cells in sizes:
            path = Path(folder) / f"{n_cells}.zarr"
            begin = time.perf_counter()
            write_screen(path, n_cells)
            size = sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) >> 20
            print(f"{n_cells} cells written in {time.perf_counter() - begin:.0f} s, {size} MB")
            for source in ["memory"] * (n_cells <= MEMORY_UP_TO) + ["disk"]:
                command = [sys.executable, __file__, "--run", str(path), source]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode:
                    raise SystemExit(done.stderr[-3000:])
                row = json.loads(done.stdout.splitlines()[-1])
                print(row, flush=True)
                row |= {"machine": describe_machine(), "date": time.strftime("%Y-%m-%d")}
                add_row(out, row)


if __name__ == "__main__":
    if sys.argv[1] == "--run":
        print(json.dumps(run(Path(sys.argv[2]), sys.argv[3])))
    else:
        main(Path(sys.argv[1]), tuple(map(int, sys.argv[2:])) or SIZES)
