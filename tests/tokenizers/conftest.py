"""Cells for the tests of tokenizers: made-up ones and small samples of real ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from celldit import datasets
from celldit.data.cells import Cells
from celldit.data.fields import Fields


def cells_of(counts: np.ndarray, genes: Sequence[str], size_factors: np.ndarray) -> Cells:
    n_cells = len(counts)
    return Cells(
        counts=sparse.csr_matrix(np.asarray(counts, dtype=np.float32)),
        size_factors=np.asarray(size_factors, dtype=np.float32),
        genes=tuple(genes),
        perturbations=np.full(n_cells, "control", dtype=object),
        covariates=pd.DataFrame(index=pd.RangeIndex(n_cells)),
        doses=None,
        times=None,
        names=np.array([f"cell{i}" for i in range(n_cells)], dtype=object),
        control="control",
    )


def reordered(cells: Cells, order: np.ndarray) -> Cells:
    genes = [cells.genes[i] for i in order]
    return cells_of(cells.counts.toarray()[:, order], genes, cells.size_factors)


@pytest.fixture
def make_cells() -> Callable[..., Cells]:
    """A function that draws cells with correlated genes; gene names do not come sorted."""

    def make(n_cells: int = 40, n_genes: int = 12, seed: int = 0) -> Cells:
        rng = np.random.default_rng(seed)
        programmes = rng.gamma(1.0, 1.0, size=(n_cells, 3)) @ rng.gamma(0.5, 1.0, (3, n_genes))
        names = rng.permutation([f"G{i}" for i in range(n_genes)])
        return cells_of(rng.poisson(programmes), names, rng.integers(50, 200, n_cells))

    return make


@pytest.fixture(scope="session")
def kang() -> Cells:
    fields = Fields(perturbation_key="condition", size_factor_key="total_umis")
    return Cells.from_anndata(datasets.kang(), fields).take(slice(0, 600))


@pytest.fixture(scope="session")
def papalexi() -> Cells:
    fields = Fields(perturbation_key="perturbation", size_factor_key="total_umis")
    return Cells.from_anndata(datasets.papalexi(), fields).take(slice(0, 2000))
