"""Time, memory and quality on simulated genome-scale screens, from disk, on one core.

    python notebooks/benchmarks/scale.py docs/results/scale.csv 94500x4000x1000x3 [--memory]

Sizes are cells x genes x perturbations x batches. Of some active and some inactive perturbations
the cells of one batch are hidden. A process of its own trains on the rest, and predicts what was
hidden from the batch's controls. The score is the mean change of log expression (counts per 10,000)
over all hidden pairs of perturbation and batch, against freshly drawn cells: *nmse* is the squared
error over the squared change, with the sampling noise of what was drawn taken off both, *r* the
mean Pearson correlation over the active ones. Beside it stand the perturbation's own measured
change in the other batches (*elsewhere*), the mean change of all perturbations in that batch
(*mean shift*) and the effect model without the network (*effect model*).

Seconds are of the processor, gigabytes the largest resident memory of the process (0.5 after its
imports). ``effects_seconds`` is for log fold changes of all perturbations in all batches.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import anndata as ad
import numpy as np
import pandas as pd
from methods import describe_machine
from simulated_screen import CONTROL, KEYS, Layout, World, lay_out, make_world, write_store

import celldit as cd

HIDDEN_ACTIVE, HIDDEN_INACTIVE = 45, 15
N_TRUTH, N_CONTROLS, N_MEASURED = 400, 300, 4_000


def peak_gb() -> float:
    """Highest resident memory of this process so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e6 for line in lines if line.startswith("VmHWM"))


def hidden_pairs(world: World, seed: int = 0) -> list[tuple[int, int]]:
    """Pairs of perturbation and batch that are kept from training."""
    rng = np.random.default_rng([seed, 7])
    active = world.active
    idle = np.setdiff1d(np.arange(len(world.perturbations)), active)
    n_active = min(HIDDEN_ACTIVE, len(active) // 4)
    chosen = [*rng.permutation(active)[:n_active], *rng.permutation(idle)[: n_active // 3]]
    return [(int(p), int(rng.integers(len(world.batches)))) for p in chosen]


def log_expression(counts: Any) -> np.ndarray:
    """log(1 + counts per 10,000), dense."""
    dense = counts.toarray().astype(np.float64)
    return np.asarray(np.log1p(dense / dense.sum(axis=1, keepdims=True).clip(1) * 1e4))


def mean_changes(store: cd.data.CellStore, world: World, layout: Layout) -> np.ndarray:
    """Measured mean log expression by batch and perturbation, controls last, (B, P + 1, G)."""
    n_batches, n_kinds = len(world.batches), len(world.perturbations) + 1
    sums = np.zeros((n_batches * n_kinds, len(world.genes)), dtype=np.float32)
    at = layout.batch_N * n_kinds + layout.perturbation_N % n_kinds
    start = 0
    for block in store.blocks(2_000):
        logs = log_expression(block.counts)
        of_cell = at[start : start + len(logs)]
        start += len(logs)
        for row in np.unique(of_cell):
            sums[row] += logs[of_cell == row].sum(axis=0)
    counts = np.bincount(at, minlength=len(sums)).clip(1)
    return (sums / counts[:, None]).reshape(n_batches, n_kinds, -1)


class Score:
    """Errors summed over pairs."""

    def __init__(self) -> None:
        self.error = self.size = 0.0
        self.pearson: list[float] = []

    def add(self, shift: np.ndarray, truth: np.ndarray, noise: float, active: bool) -> None:
        self.error += float(((shift - truth) ** 2).sum()) - noise
        self.size += float((truth**2).sum()) - noise
        if active:
            self.pearson.append(float(np.corrcoef(shift, truth)[0, 1]))

    def result(self, name: str) -> dict[str, float]:
        r = round(float(np.mean(self.pearson)), 3)
        return {f"r, {name}": r, f"nmse, {name}": round(self.error / self.size, 3)}


def true_changes(world: World, pairs: list[tuple[int, int]]) -> Iterator[tuple[np.ndarray, float]]:
    """Mean change of log expression of each pair, and the variance of its noise over all genes."""
    rng = np.random.default_rng(11)
    before = {}
    for batch in sorted({batch for _, batch in pairs}):
        drawn = [world.draw(np.full(500, -1), np.full(500, batch), rng) for _ in range(8)]
        logs = np.concatenate([log_expression(each) for each in drawn])
        before[batch] = logs.mean(axis=0), float(logs.var(axis=0).sum() / len(logs))
    for perturbation, batch in pairs:
        many = np.full(N_TRUTH, perturbation), np.full(N_TRUTH, batch)
        logs = log_expression(world.draw(*many, rng))
        mean_G, noise = before[batch]
        yield logs.mean(axis=0) - mean_G, float(logs.var(axis=0).sum() / N_TRUTH) + noise


def scores(model: cd.CellDiT, store: cd.data.CellStore, world: World, layout: Layout
           ) -> dict[str, float]:  # fmt: skip
    """What was hidden, predicted in four ways."""
    pairs = hidden_pairs(world)
    measured = mean_changes(store, world, layout)
    changes = measured[:, :-1] - measured[:, -1:]
    has_cells = np.zeros(changes.shape[:2], dtype=bool)
    kept = layout.perturbation_N >= 0
    has_cells[layout.batch_N[kept], layout.perturbation_N[kept]] = True
    mean_shift = [changes[b][has_cells[b]].mean(axis=0) for b in range(len(world.batches))]
    ways = {name: Score() for name in ("celldit", "effect model", "elsewhere", "mean shift")}
    rng = np.random.default_rng(3)
    truths = list(true_changes(world, pairs))
    asked = {"celldit": model, "effect model": model.weighted(0)}
    for batch in sorted({batch for _, batch in pairs}):
        own = np.flatnonzero((layout.batch_N == batch) & (layout.perturbation_N < 0))
        own = np.sort(rng.permutation(own)[:N_CONTROLS])
        controls = ad.AnnData(store.take(own).counts, var=pd.DataFrame(index=list(world.genes)))
        controls.obs = pd.DataFrame({"perturbation": CONTROL, "batch": world.batches[batch]},
                                    index=controls.obs_names)  # fmt: skip
        before_G = log_expression(controls.X).mean(axis=0)
        for (perturbation, where), (truth_G, noise) in zip(pairs, truths, strict=True):
            if where != batch:
                continue
            active = bool(world.complex_P[perturbation] >= 0)
            label = world.perturbations[perturbation]
            for name, own_model in asked.items():
                predicted = own_model.predict(controls, perturbations=[label])
                shift_G = log_expression(predicted.layers["counts"]).mean(axis=0) - before_G
                ways[name].add(shift_G, truth_G, noise, active)
            others = has_cells[:, perturbation]
            elsewhere_G = changes[others, perturbation].mean(axis=0)
            ways["elsewhere"].add(elsewhere_G, truth_G, noise, active)
            ways["mean shift"].add(mean_shift[batch], truth_G, noise, active)
    return {k: v for name, score in ways.items() for k, v in score.result(name).items()}


def screen(shape: tuple[int, ...]) -> tuple[World, Layout]:
    """World and layout of cells x genes x perturbations x batches."""
    n_cells, n_genes, n_perturbations, n_batches = shape
    world = make_world(n_genes, n_perturbations, n_batches)
    return world, lay_out(world, n_cells, set(hidden_pairs(world)))


def run(path: Path, shape: tuple[int, ...], from_memory: bool) -> dict[str, Any]:
    """Train, predict and score; everything measured on the way."""
    warnings.simplefilter("ignore")
    world, layout = screen(shape)
    begin = time.process_time()
    if from_memory:
        data = ad.read_zarr(path)
        cd.CellDiT.setup_anndata(data, **KEYS)
        store = cd.open_store(path, **KEYS)
    else:
        data = store = cd.open_store(path, **KEYS)
    opened = time.process_time()
    model = cd.CellDiT(data, "modules")
    model.train(enable_progress_bar=False)
    trained = time.process_time()
    row: dict[str, Any] = {
        "cells": shape[0], "genes": shape[1], "perturbations": shape[2], "batches": shape[3],
        "source": "memory" if from_memory else "disk",
        "open_seconds": round(opened - begin), "train_seconds": round(trained - opened),
        "train_gb": round(peak_gb(), 2),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model")
        files = (Path(folder) / "model").rglob("*")
        row["model_mb"] = round(sum(f.stat().st_size for f in files if f.is_file()) / 1e6, 1)
    begin = time.process_time()
    effects = model.predict_effects(list(model.perturbations))
    row["effects_seconds"] = round(time.process_time() - begin)
    del effects
    weights = sorted({str(k): v for k, v in model.flow_weight.items()}.items())
    row["weight"] = " ".join(f"{kind}:{value:.2f}" for kind, value in weights if value)
    return row | scores(model, store, world, layout) | {"peak_gb": round(peak_gb(), 2)}


def add_row(out: Path, row: dict[str, Any]) -> None:
    """Put a row into the table, in the place of an older one of the same size and source."""
    table, keys = pd.DataFrame([row]), ["cells", "genes", "perturbations", "batches", "source"]
    if out.exists():
        old = pd.read_csv(out)
        same = (old[keys] == table.loc[0, keys]).all(axis=1)
        table = pd.concat([old[~same], table], ignore_index=True).sort_values(keys)
    table.to_csv(out, index=False)


def main() -> None:
    """Write the stores to a folder, and a row for each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("shapes", nargs="+")
    parser.add_argument("--memory", action="store_true", help="read the counts into memory")
    parser.add_argument("--folder", type=Path, help="keep stores here, and use those there are")
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        shape = tuple(map(int, given.shapes[0].split("x")))
        print(json.dumps(run(given.out, shape, given.memory)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        for text in given.shapes:
            path = (given.folder or Path(temporary)) / f"{text}.zarr"
            if not path.exists():
                write_store(path, *screen(tuple(map(int, text.split("x")))))
            command = [sys.executable, __file__, str(path), text, "--run"]
            command += ["--memory"] * given.memory
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stderr[-3000:])
            row = json.loads(done.stdout.splitlines()[-1])
            print(row, flush=True)
            row |= {"machine": describe_machine(), "date": time.strftime("%Y-%m-%d")}
            add_row(given.out, row)


if __name__ == "__main__":
    main()
