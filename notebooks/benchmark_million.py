"""Does a file of generated cells take more memory when it holds more of them?

    python notebooks/benchmark_million.py docs/results/million.csv

A model of Baron's islets (2,000 genes, cell types as covariate, default settings) is trained and
saved. Then a process of its own, for each number of cells, loads it and writes that many new cells
to a zarr store with ``generate(out=)``. Peak memory is that process's largest resident set,
including Python and torch.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

import celldit as cd

SIZES = (1_000, 100_000, 1_000_000)


def train(folder: Path) -> None:
    """Train and save."""
    adata = cd.datasets.baron()
    cd.CellDiT.setup_anndata(adata, covariate_keys=["cell_type"], size_factor_key="total_umis")
    model = cd.CellDiT(adata)
    model.train(enable_progress_bar=False)
    model.save(folder)


def generate(folder: Path, n_cells: int) -> None:
    """Write cells and print seconds, peak memory in MB and the size of the store in MB."""
    target = folder.with_name(f"cells_{n_cells}.zarr")
    model = cd.CellDiT.load(folder)
    start = time.perf_counter()
    model.generate(n_cells, seed=0, out=target)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    size = sum(f.stat().st_size for f in target.rglob("*") if f.is_file()) / 1e6
    print(seconds, peak, size)


def main(out: Path) -> None:
    """Write one row per number of cells."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="celldit-million-") as name:
        folder = Path(name) / "model"
        train(folder)
        for n_cells in SIZES:
            command = [sys.executable, __file__, str(folder), str(n_cells)]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            seconds, peak, size = map(float, said.split())
            rows.append(
                {
                    "cells": n_cells,
                    "cells_per_second": round(n_cells / seconds),
                    "peak_mb": round(peak),
                    "file_mb": round(size),
                }
            )
            print(rows[-1], flush=True)
            shutil.rmtree(folder.with_name(f"cells_{n_cells}.zarr"))
            pd.DataFrame(rows).to_csv(out, index=False)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        generate(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        main(Path(sys.argv[1]))
