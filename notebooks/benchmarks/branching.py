"""A made-up branching process with known truth: one kind of cell becomes two, out of step.

A cell has come a share s of the way from progenitor to one of two fates. Genes are switched on or
off along s (in all cells, or in one fate after the branch), are transient, or stay. Cells of one
time differ in s, as they do not start together, and one fate takes over (it grows). Counts are
negative binomial about the cell's own rates.
"""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

N_CELLS, N_GENES, TIMES = 400, 300, (0.0, 1.0, 2.0, 3.0, 4.0)
BRANCH, SPREAD, MEDIAN_SIZE, SHAPE = 0.45, 10.0, 1500, 5.0


def branching(seed: int) -> ad.AnnData:
    """Cells at five times, ``obs``: ``time``, ``fate``, ``progress``."""
    rng = np.random.default_rng(100 + seed)
    base_G = rng.normal(0.0, 1.2, N_GENES)
    # Of six genes two stay, one changes in all cells, one for a while, one in each fate.
    kind_G = rng.integers(0, 6, N_GENES)
    at_G, width_G = rng.uniform(0.1, 0.9, N_GENES), rng.uniform(0.04, 0.15, N_GENES)
    size_G = rng.normal(0.0, 1.5, N_GENES)
    counts, frames = [], []
    for time in TIMES:
        mean = (2 + 8 * time / TIMES[-1]) / (SPREAD + 2)
        progress = rng.beta((SPREAD + 2) * mean, (SPREAD + 2) * (1 - mean), N_CELLS)
        is_first = rng.random(N_CELLS) < 0.5 + 0.3 * time / TIMES[-1]
        away_NG = progress[:, None] - at_G
        late_NG = progress[:, None] - np.maximum(at_G, BRANCH)
        switch_NG = 1 / (1 + np.exp(-away_NG / width_G))
        fate_NG = 1 / (1 + np.exp(-late_NG / width_G))
        transient_NG = np.exp(-0.5 * (away_NG / (1.5 * width_G)) ** 2)
        on_NG = np.select(
            [kind_G == 2, kind_G == 3, kind_G == 4, kind_G == 5],
            [switch_NG, transient_NG, fate_NG * is_first[:, None], fate_NG * ~is_first[:, None]],
            0.0,
        )
        log_NG = base_G + size_G * on_NG + 0.2 * rng.normal(size=on_NG.shape)
        rate_NG = np.exp(log_NG) / np.exp(log_NG).sum(axis=1, keepdims=True)
        size_N = rng.lognormal(np.log(MEDIAN_SIZE), 0.3, N_CELLS)
        noise_NG = rng.gamma(SHAPE, 1 / SHAPE, rate_NG.shape)
        counts.append(rng.poisson(rate_NG * size_N[:, None] * noise_NG))
        fate = np.where(progress < BRANCH, "progenitor", np.where(is_first, "fate A", "fate B"))
        frames.append(pd.DataFrame({"time": time, "fate": fate, "progress": progress}))
    obs = pd.concat(frames, ignore_index=True)
    obs.index = [f"cell{i}" for i in range(len(obs))]
    var = pd.DataFrame(index=[f"gene{i}" for i in range(N_GENES)])
    matrix = sparse.csr_matrix(np.concatenate(counts), dtype=np.float32)
    return ad.AnnData(matrix, obs=obs, var=var)
