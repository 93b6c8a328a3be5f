"""How long does the effect prior take with thousands of conditions, and how much memory?

Made-up latents of 48 dimensions, ten cells per condition, four fifths single perturbations and one
fifth pairs. Seconds are of the processor, gigabytes the peak of the process.

    python notebooks/benchmark_prior_scale.py docs/results/prior_scale.csv
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from celldit.conditions import Condition, ConditionTable
from celldit.effects import EffectPrior

N_DIMS, N_CELLS = 48, 10


def cells_of(n: int) -> tuple[np.ndarray, ConditionTable]:
    """Latents of cells in n conditions and in a control."""
    rng = np.random.default_rng(0)
    names = [f"p{i:05d}" for i in range(n - n // 5)]
    pairs: set[tuple[str, ...]] = set()
    while len(pairs) < n // 5:
        pairs.add(tuple(sorted(rng.choice(names, 2, replace=False).tolist())))
    sets = [(), *((name,) for name in names), *sorted(pairs)]
    effects = {name: 0.5 * rng.normal(size=N_DIMS) for name in names}
    centres = np.array([sum((effects[p] for p in parts), np.zeros(N_DIMS)) for parts in sets])
    index = np.repeat(np.arange(len(sets)), N_CELLS)
    z = centres[index] + rng.normal(size=(len(index), N_DIMS))
    return z, ConditionTable(tuple(Condition(parts) for parts in sets), index)


def main(out: Path) -> None:
    """Write one row per number of conditions and step."""
    rows = []
    for n in (1000, 5000):
        z, table = cells_of(n)
        start = time.process_time()

        def note(step: str, n: int = n, start: float = start) -> None:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
            rows.append((n, step, round(time.process_time() - start, 1), round(peak, 2)))
            print(*rows[-1], flush=True)

        prior = EffectPrior.fit(z, table)
        note("fit")
        prior.estimate(prior.conditions)
        note("estimate all")
        prior.leave_one_out()
        note("leave each out")
    columns = ["conditions", "step", "seconds_until_then", "gigabytes"]
    pd.DataFrame(rows, columns=columns).to_csv(out, index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
