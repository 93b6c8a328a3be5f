"""How long the six measures take on a screen of the challenge's size, and that they are right.

    python notebooks/benchmarks/challenge_speed.py [--cells 100000 --genes 18000]
        [--perturbations 300]

Simulated counts (a tenth of the entries above zero), predicted and measured cells as many. Writes
docs/results/challenge_speed.csv: seconds and peak memory, inputs included, of the six measures of
one prediction, and with --ends of both ends of the scale. One core.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import numpy as np
import pandas as pd
from scipy import sparse, stats

from celldit.evaluation.challenge.measures import (
    Reference,
    Side,
    aggregate,
    measure_panel,
)
from celldit.evaluation.challenge.panel import CountGroups, Panel
from celldit.evaluation.challenge.rank_tests import (
    ControlRanks,
    _columns,
    _log,
    _totals,
    rank_tests,
)
from celldit.evaluation.challenge.scores import mean_response, replicate

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results" / "challenge_speed.csv"


def draw(rates_PG: np.ndarray, codes: np.ndarray, seed: int) -> sparse.csr_matrix:
    """Counts, a block of cells at a time, by a process of its own whose memory does not count."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "counts.npz"
        worker = multiprocessing.get_context("fork").Process(
            target=_write, args=(rates_PG, codes, seed, path)
        )
        worker.start()
        worker.join()
        return sparse.csr_matrix(sparse.load_npz(path))


def _write(rates_PG: np.ndarray, codes: np.ndarray, seed: int, path: Path) -> None:
    rng, blocks = np.random.default_rng(seed), []
    for start in range(0, len(codes), 1000):
        some = rates_PG[codes[start : start + 1000]]
        depth = rng.lognormal(0.0, 0.3, size=(len(some), 1))
        blocks.append(sparse.csr_matrix(rng.poisson(some * depth).astype(np.float32)))
    sparse.save_npz(path, sparse.vstack(blocks, format="csr"), compressed=False)


def peak() -> float:
    """Largest memory so far, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    """Simulate, measure, check against the plain test, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--genes", type=int, default=18_000)
    parser.add_argument("--perturbations", type=int, default=300)
    parser.add_argument("--controls", type=int, default=10_000)
    parser.add_argument("--ends", action="store_true", help="Both ends of the scale, too.")
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    base_G = rng.gamma(0.22, 0.75, size=asked.genes)
    moved_PG = np.tile(base_G.astype(np.float32), (asked.perturbations, 1))
    for row in moved_PG:
        hit = rng.choice(asked.genes, 150, replace=False)
        row[hit] *= rng.lognormal(0.0, 0.8, size=150)
    n = asked.cells - asked.controls
    codes = np.sort(rng.integers(0, asked.perturbations, size=n))
    labels = tuple(f"p{i:03d}" for i in range(asked.perturbations))
    real = CountGroups(draw(moved_PG, codes, 1), codes, labels)
    predicted = CountGroups(draw(moved_PG**0.8 * base_G**0.2, codes, 2), codes, labels)
    control = CountGroups.single(draw(base_G[None, :], np.zeros(asked.controls, dtype=int), 3))
    share = real.counts.nnz / np.prod(real.counts.shape)
    inputs = peak()
    targets = {label: np.array([i]) for i, label in enumerate(labels)}
    print(f"{share:.3f} of the entries are above zero; inputs take {inputs:.2f} GB", flush=True)

    started = time.perf_counter()
    reference = Reference.of(control)
    side = Side.of(real, reference)
    half_way = time.perf_counter() - started
    found = aggregate(measure_panel(Side.of(predicted, reference), side, targets))
    seconds = time.perf_counter() - started
    rows = [("six measures", seconds, peak())]
    print(
        f"six measures: {seconds:.0f} s ({half_way:.0f} s of them measured cells), {peak():.2f} GB"
    )
    print({name: round(value, 4) for name, value in found.items()}, flush=True)
    if asked.ends:
        genes = tuple(f"g{i}" for i in range(asked.genes))
        panel = Panel(predicted, real, control, targets, genes, "control")
        base = mean_response(panel)
        aggregate(measure_panel(Side.of(base, reference), side, targets))
        rows.append(("six measures and mean response", time.perf_counter() - started, peak()))
        replicate(panel, side)
        rows.append(("six measures and both ends", time.perf_counter() - started, peak()))
        print(rows[-1], flush=True)

    # The plain test of a few groups and genes.
    ranks = ControlRanks.of(control.counts)
    few = CountGroups(real.counts[codes < 3], codes[codes < 3], labels[:3])
    tests = rank_tests(few, ranks)
    log_N, log_K = (_log(_columns(x, 0, _totals(x))).tocsr() for x in (few.counts, control.counts))
    genes = rng.choice(np.flatnonzero(ranks.tested[: log_N.shape[1]]), 100, replace=False)
    worst = 0.0
    for p in range(3):
        x = log_N[few.codes == p][:, genes].toarray().astype(np.float64)
        y = log_K[:, genes].toarray().astype(np.float64)
        plain = stats.mannwhitneyu(x, y, method="asymptotic", use_continuity=False).pvalue
        worst = max(worst, float(np.nanmax(np.abs(plain - tests.p_value[p, genes]))))
    print(f"largest difference to scipy's p values: {worst:.1e}")
    table = pd.DataFrame(rows, columns=["what", "seconds", "peak_gb"]).round(2)
    table = table.assign(
        cells=asked.cells,
        genes=asked.genes,
        perturbations=asked.perturbations,
        controls=asked.controls,
        entries_above_zero=round(share, 3),
        inputs_gb=round(inputs, 2),
        largest_difference_of_p=worst,
        date=time.strftime("%Y-%m-%d"),
        machine="one of 2 cores",
    )
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(RESULTS, index=False)


if __name__ == "__main__":
    main()
