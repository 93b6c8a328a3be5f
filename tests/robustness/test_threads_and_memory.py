"""Threads share a model, and calls in a row do not make the process grow."""

from __future__ import annotations

import gc
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

from celldit import CellDiT


def digest(predicted: ad.AnnData) -> tuple[bytes, ...]:
    parts = (predicted.layers["counts"].toarray(), predicted.layers["mean"].toarray())
    return tuple(np.ascontiguousarray(p).tobytes() for p in (*parts, predicted.obsm["X_celldit"]))


def test_threads_get_the_results_of_serial_calls(
    flowing_model: CellDiT, tiny_screen: ad.AnnData
) -> None:
    def work(i: int) -> tuple[bytes, ...]:
        if i % 3 == 2:
            return digest(flowing_model.generate(20, seed=i))
        return digest(flowing_model.predict(tiny_screen, perturbations=["A", "B+C"][i % 3], seed=i))

    serial = [work(i) for i in range(8)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(8))) == serial


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_200_predictions_do_not_make_the_process_grow(
    flowing_model: CellDiT, tiny_screen: ad.AnnData
) -> None:
    few = tiny_screen[:12].copy()

    def calls(n: int) -> int:
        for i in range(n):
            flowing_model.predict(few, perturbations="A", n_steps=1, seed=i)
        gc.collect()
        return resident()

    start = calls(20)
    assert calls(200) < 1.05 * start
