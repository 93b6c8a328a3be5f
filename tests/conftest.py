"""What all tests share: one thread, fixed random examples, and a small screen to break."""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from collections.abc import Callable

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, settings
from scipy import sparse

_SHARED = {
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
}
settings.register_profile("full", max_examples=40, **_SHARED)
settings.register_profile("fast", max_examples=8, **_SHARED)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "full"))


@pytest.fixture
def make_screen() -> Callable[..., ad.AnnData]:
    """A function that makes a small screen of random counts, the same every time."""

    def make(n_cells: int = 60, n_genes: int = 12, labels: tuple[str, ...] = ()) -> ad.AnnData:
        rng = np.random.default_rng(0)
        names = labels or ("control", "A", "B", "A+B")
        counts = rng.poisson(1.5, size=(n_cells, n_genes)) + np.eye(n_cells, n_genes, dtype=int)
        counts[:, 0] += 1  # no empty cell
        obs = pd.DataFrame(
            {
                "perturbation": [names[i % len(names)] for i in range(n_cells)],
                "donor": [f"d{i // len(names) % 3}" for i in range(n_cells)],
                "batch": [i % 2 for i in range(n_cells)],
                "day": np.where(np.arange(n_cells) % 2, 1.5, 2.0),
                "umis": counts.sum(axis=1) * 10.0,
            },
            index=[f"cell{i}" for i in range(n_cells)],
        )
        var = pd.DataFrame(index=[f"gene{i}" for i in range(n_genes)])
        return ad.AnnData(sparse.csr_matrix(counts.astype(np.int32)), obs=obs, var=var)

    return make
