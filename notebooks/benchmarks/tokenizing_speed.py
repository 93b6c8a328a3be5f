"""Speed of the gene-set tokenizer.

    python notebooks/benchmarks/tokenizing_speed.py docs/results/tokenizing_speed.csv

100,000 cells x 2,000 genes (CSR, a tenth of the entries seen), in batches of 2,048, on one thread,
beside a plain product of the same sparse matrix with a dense one that has a column for each value
of each token: the least that any tokenizer of this kind has to compute. Rows are appended.
"""

from __future__ import annotations

import csv
import sys
import time
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import torch
from scipy import sparse

import celldit as cd
from celldit.data.cells import Cells
from celldit.data.fields import Fields
from celldit.tokenizers import GeneSets

BATCH = 2048


def simulated(n_cells: int, genes: list[str], density: float) -> Cells:
    """Counts at random places; what they say does not matter for speed and memory."""
    rng = np.random.default_rng(0)
    per_cell = round(density * len(genes))
    column = rng.integers(0, len(genes), (n_cells, per_cell), dtype=np.int32)
    counts = sparse.csr_matrix(
        (
            rng.geometric(0.5, n_cells * per_cell).astype(np.float32),
            column.ravel(),
            np.arange(n_cells + 1) * per_cell,
        ),
        shape=(n_cells, len(genes)),
    )
    counts.sum_duplicates()
    adata = ad.AnnData(counts, var=pd.DataFrame(index=genes))
    adata.obs_names = [f"cell{i}" for i in range(n_cells)]
    cd.CellDiT.setup_anndata(adata)
    return Cells.from_anndata(adata, Fields.from_anndata(adata))


def speed() -> dict[str, object]:
    """Cells per second of CPU time, and on the clock, on one thread."""
    genes = list(cd.datasets.load("kang").var_names)
    cells = simulated(100_000, genes, 0.1)
    tokenizer = GeneSets().fit(cells.take(slice(0, 5_000)))
    weights = np.random.default_rng(0).random(
        (cells.n_genes, tokenizer.n_identities * tokenizer.n_values), np.float32
    )
    plain = clocked(lambda batch: batch.counts @ weights, cells)
    busy, seconds = clocked(tokenizer, cells)
    return {
        "tokenizer": "gene_sets",
        "n_tokens": tokenizer.n_identities,
        "cells_per_cpu_second": round(cells.n_cells / busy),
        "cells_per_second": round(cells.n_cells / seconds),
        "product_cells_per_cpu_second": round(cells.n_cells / plain[0]),
        "time_over_product": round(busy / plain[0], 2),
    }


def clocked(work: Callable[[Cells], object], cells: Cells) -> tuple[float, float]:
    """Seconds of CPU time and on the clock for all cells, batch by batch; the better of three."""
    taken = []
    for _ in range(3):
        began, busy = time.perf_counter(), time.process_time()
        for start in range(0, cells.n_cells, BATCH):
            work(cells.take(slice(start, start + BATCH)))
        taken.append((time.process_time() - busy, time.perf_counter() - began))
    return min(taken)


def main() -> None:
    torch.set_num_threads(1)
    row = speed()
    row["version"] = cd.__version__
    path = Path(sys.argv[-1])
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)
    print(row)


if __name__ == "__main__":
    main()
