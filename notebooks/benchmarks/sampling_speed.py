"""How fast are predictions sampled? celldit and CellFlow on Papalexi, one run, one core each.

    python notebooks/benchmarks/sampling_speed.py docs/results/sampling_speed.csv \\
        --peer PYTHON_WITH_CELLFLOW

Eight knock-outs of Papalexi are held out in one of three replicates. CellFlow (`cellflow-tools`
0.0.9, small configuration) gets 48 principal components and is trained for 1,600 steps, beyond
which its predictions of this problem were not seen to gain; celldit is trained with its defaults.
Both then predict every control of the replicate under all eight knock-outs. Time is seconds of one
core, the second of two calls for CellFlow, so that its compilation does not count. CellFlow gives
latents; of celldit there are two rows each, for latents only and for whole cells with counts drawn.
Energy distance to the held-out cells, mean over knock-outs, is in the principal components that
CellFlow was given; celldit's counts are projected there, so its score holds counting noise as that
of measured cells does. Squared error is over squared effect, of all genes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from held_out import HeldOut, pose, problems
from race_cellflow import Task, ask_cellflow

from celldit import CellDiT
from celldit.data.cells import Cells
from celldit.data.fields import Fields
from celldit.inference import edits
from celldit.inference.counterfactual import predict
from celldit.inference.maps.transport import Sampler
from celldit.inference.request import Counterfactuals
from celldit.inference.solver import SamplingOptions, SolverConfig
from celldit.io.sampling import PredictedCells
from celldit.io.shards import Output

HELD_OUT, PEER_STEPS = "8 knock-outs in rep_3", 1600
SOLVERS = (("euler", 1), ("euler", 2), ("euler", 4), ("euler", 8), ("heun", 8))


def of_celldit(posed: HeldOut, task: Task) -> list[dict[str, object]]:
    """Latents, and whole cells, with some solvers."""
    model = CellDiT(posed.train)
    model.train(enable_progress_bar=False, accelerator="cpu", devices=1)
    trained, labels = model.trained, list(posed.perturbations)
    controls = trained.read(posed.controls)
    n_parameters = sum(p.numel() for p in trained.flow.parameters())
    rows: list[dict[str, object]] = []
    for solver, steps in SOLVERS:
        begun = time.process_time()
        made = model.predict(posed.controls, perturbations=labels, solver=solver, n_steps=steps)
        whole = time.process_time() - begun
        seconds = {
            "counts": whole,
            "latents": _latents_only(trained, controls, labels, solver, steps),
        }
        read = Cells.from_anndata(made, Fields.from_anndata(made))
        log = read.log_normalized().toarray()
        by_condition = {}
        for label, context in task.conditions:
            own = (read.perturbations == label) & (read.contexts == context)
            by_condition[label, context] = log[own].mean(0), task.pca.transform(log[own])
        nmse, energy = task.score(by_condition)
        for output, spent in seconds.items():
            rows.append(
                {
                    "method": "celldit",
                    "parameters": n_parameters,
                    "solver": f"{solver} {steps}",
                    "output": output,
                    "cells_per_second": round(made.n_obs / spent),
                    "nmse": nmse,
                    "energy": energy,
                }
            )
            print(rows[-1], flush=True)
    return rows


def _latents_only(trained, controls, labels, solver: str, steps: int) -> float:
    """Seconds of encoding the controls and moving their latents, without decoding."""
    original = edits.edit
    try:
        # What is left out is the last thing that happens to a tile.
        edits.edit = lambda autoencoder, cells, ends, *_: _bare(cells, ends[1])
        config = SolverConfig(solver, steps)
        begun = time.process_time()
        requested, sampler = Counterfactuals(labels), Sampler(config=config)
        predict(trained, controls, requested, sampler, SamplingOptions(config), Output())
        return time.process_time() - begun
    finally:
        edits.edit = original


def _bare(cells: Cells, moved_BKD: torch.Tensor):
    return PredictedCells(
        cells.counts.astype(np.float32),
        cells.counts,
        cells.size_factors,
        moved_BKD.flatten(1).numpy(),
    )


def of_cellflow(task: Task, python: str) -> list[dict[str, object]]:
    """One training, two solvers."""
    result = ask_cellflow(task, python, "sampling_speed_cellflow.py", PEER_STEPS)
    rows = []
    for solver in ("adaptive", "euler 20"):
        by_condition, n_cells = {}, 0
        for label, context in task.conditions:
            z = result[f"{solver}|{label}"]
            n_cells += len(z)
            by_condition[label, context] = task.pca.inverse_transform(z).mean(0), z
        nmse, energy = task.score(by_condition)
        rows.append(
            {
                "method": "CellFlow",
                "parameters": int(result["n_parameters"]),
                "solver": solver,
                "output": "latents",
                "cells_per_second": round(n_cells / float(result[f"{solver}|seconds"])),
                "nmse": nmse,
                "energy": energy,
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Write one row per method, solver and kind of output."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--peer", required=True, help="interpreter with cellflow-tools")
    options = parser.parse_args()
    torch.set_num_threads(1)
    (problem,) = (p for p in problems() if p.name == HELD_OUT)
    posed = pose(problem)
    task = Task(posed)
    rows = of_cellflow(task, options.peer) + of_celldit(posed, task)
    pd.DataFrame(rows).to_csv(options.out, index=False, float_format="%.5g")


if __name__ == "__main__":
    main()
