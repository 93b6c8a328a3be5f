"""How long does the effect model take with thousands of conditions, and how much memory?

Made-up latents of 48 dimensions, five cells per condition and 500 controls per batch: single
perturbations, each in every batch. Every number of perturbations has a process of its own. Seconds
are of the processor, since the fit began; gigabytes the peak of the process (0.5 after its
imports). For the smallest, ``off_by`` is the largest difference of a leave-one-out estimate, mean
or variance over the largest, from the one that the whole matrix gives.

    python notebooks/benchmarks/effect_scale.py docs/results/effect_scale.csv
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np
import pandas as pd
from methods import describe_machine
from scale import peak_gb

from celldit.conditions import Condition, ConditionTable
from celldit.effects import sharing
from celldit.effects.fit_prior import fit_prior

N_DIMS, N_CELLS, N_CONTROLS, N_BATCHES = 48, 5, 500, 3
SIZES = (300, 1_700, 7_000)


def cells_of(n: int) -> tuple[np.ndarray, ConditionTable]:
    """Latents of cells of n perturbations in each batch, and of controls."""
    rng = np.random.default_rng(0)
    batches = [f"batch{b}" for b in range(N_BATCHES)]
    conditions = [Condition(context=batch) for batch in batches]
    conditions += [Condition((f"p{i:05d}",), None, batch) for i in range(n) for batch in batches]
    batch_BF = 0.3 * rng.normal(size=(N_BATCHES, N_DIMS))
    effect_PF = np.vstack([np.zeros(N_DIMS), 0.5 * rng.normal(size=(n, N_DIMS))])
    centre_CF = (effect_PF[:, None] + batch_BF).reshape(-1, N_DIMS).astype(np.float32)
    n_cells = np.where([c.is_control for c in conditions], N_CONTROLS, N_CELLS)
    index = np.repeat(np.arange(len(conditions)), n_cells)
    noise = rng.normal(size=(len(index), N_DIMS)).astype(np.float32)
    return centre_CF[index] + noise, ConditionTable(tuple(conditions), index)


def run(n: int) -> list[dict[str, object]]:
    """Fit, estimate every condition, and leave every one out."""
    z, table = cells_of(n)
    start, rows = time.process_time(), []

    def note(step: str) -> None:
        seconds = round(time.process_time() - start, 1)
        row = {"perturbations": n, "conditions": n * N_BATCHES, "step": step}
        rows.append(row | {"seconds_until_then": seconds, "gigabytes": round(peak_gb(), 2)})

    prior = fit_prior(z, table)
    note("fit")
    prior.estimate(prior.conditions)
    note("estimate all")
    left_out = prior.leave_one_out()
    note("leave each out")
    if n == min(SIZES):
        sharing.SMALL = len(prior.conditions)
        whole = prior.without(()).leave_one_out()
        pairs = (left_out.mean, whole.mean), (left_out.variance, whole.variance)
        rows[-1]["off_by"] = max(float(abs(a - b).max() / abs(b).max()) for a, b in pairs)
    return rows


def main(out: Path) -> None:
    """Write one row per number of conditions and step."""
    rows: list[dict[str, object]] = []
    for n in SIZES:
        command = [sys.executable, __file__, "--run", str(n)]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        rows += json.loads(said.splitlines()[-1])
        print(*rows[-3:], sep="\n", flush=True)
    how = {"machine": describe_machine(), "date": time.strftime("%Y-%m-%d")}
    pd.DataFrame([row | how for row in rows]).to_csv(out, index=False)


if __name__ == "__main__":
    if sys.argv[1] == "--run":
        print(json.dumps(run(int(sys.argv[2]))))
    else:
        main(Path(sys.argv[1]))
