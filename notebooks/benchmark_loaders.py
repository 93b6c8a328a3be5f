"""How fast do shuffled batches of 256 cells come from memory, from disk, and from disk by scDataset?

Nothing is trained. The same 60,000 synthetic cells x 2,000 genes are read once in a shuffled order
as sparse batches; windows are 16,384 cells, so that not all fit into one. `block` is the number of
neighbours that stay together. scDataset (0.3.0, MIT) reads the backed AnnData as its documentation
shows, and, to compare the loader alone, the rows of celldit's store. It is left out where it is not
installed. Wall and processor time both count: on a busy machine only the latter repeats.

    python notebooks/benchmark_loaders.py docs/results/loaders.csv
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from benchmark_scale import KEYS, write_screen

import celldit as cd
from celldit.data import CellStore
from celldit.data.disk import stored
from celldit.evaluation.benchmark.machine import describe_machine

N_CELLS, BATCH, WINDOW = 60_000, 256, 16_384
warnings.simplefilter("ignore")


def of_store(store: CellStore) -> Iterator[int]:
    """Batches as stage one takes them."""
    order = store.shuffled(np.random.default_rng(0))
    reader = store.reader(order)
    for start in range(0, len(order), BATCH):
        yield reader.take(order[start : start + BATCH]).n_cells


def of_scdataset(collection: object, block: int, **callbacks: Callable) -> Iterator[int]:
    """Batches of scDataset with as many cells in memory."""
    from scdataset import BlockShuffling, scDataset

    loader = scDataset(
        collection,
        BlockShuffling(block_size=block),
        BATCH,
        fetch_factor=WINDOW // BATCH,
        seed=0,
        **callbacks,
    )
    for batch in loader:
        yield batch.shape[0]


def main(out: Path) -> None:
    """Write one row per source, loader and block."""
    rows = []

    def measure(source: str, loader: str, block: int, batches: Iterator[int]) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        n_cells = sum(batches)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        assert n_cells == N_CELLS
        rows.append((source, loader, block, round(n_cells / wall), round(n_cells / cpu)))
        print(rows[-1], flush=True)

    stored.WINDOW_CELLS = WINDOW
    with tempfile.TemporaryDirectory() as folder:
        zarr_path, h5ad_path = Path(folder) / "a.zarr", Path(folder) / "a.h5ad"
        write_screen(zarr_path, N_CELLS)
        adata = ad.read_zarr(zarr_path)
        adata.write_h5ad(h5ad_path, compression="lzf")
        cd.CellDiT.setup_anndata(adata, **KEYS)
        cells = cd.data.Cells.from_anndata(adata, cd.data.Fields.from_anndata(adata))
        measure("memory", "celldit", 1, of_store(cells))
        for path in (h5ad_path, zarr_path):
            store = cd.open_store(path, **KEYS)
            own = path.suffix[1:]
            measure(own, "celldit", store.block, of_store(store))
            if find_spec("scdataset") is None:
                continue
            for block in sorted({16, 64, store.block}):
                if own == "h5ad":
                    backed = ad.read_h5ad(path, backed="r")
                    batches = of_scdataset(backed, block, fetch_transform=lambda view: view.X)
                    measure(own, "scDataset", block, batches)
                measure(
                    own,
                    "scDataset over celldit's rows",
                    block,
                    of_scdataset(
                        np.arange(N_CELLS),
                        block,
                        fetch_callback=lambda _, rows, s=store: s.take(np.asarray(rows)).counts,
                    ),
                )
    columns = ["source", "loader", "block", "cells_per_s", "cells_per_cpu_s"]
    table = pd.DataFrame(rows, columns=columns)
    table["machine"], table["date"] = describe_machine(), time.strftime("%Y-%m-%d")
    table.to_csv(out, index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
