"""Every way in for a sparse matrix: one that points outside itself is refused, used or not.

Compiled code would follow it, and read or write memory that belongs to something else.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import celldit as cd
from celldit.effects.features.files import table_of
from celldit.effects.tables.reading import read_table
from celldit.errors import CellditError
from celldit.evaluation.expression import align_genes
from celldit.io.files import read_h5ad

PARTS = ("X", "layers", "obsm", "varm", "obsp", "varp", "raw")
TOLD = r"is damaged, since (its (row pointers|column numbers)|an entry lies at|it has)"


def matrix_of(adata: ad.AnnData, part: str) -> Any:
    if part in ("X", "raw"):
        return adata.X if part == "X" else adata.raw.X
    return getattr(adata, part)["m"]


def with_all(adata: ad.AnnData) -> ad.AnnData:
    """The same with a sparse matrix in every place that may have one."""
    rng, (n, m) = np.random.default_rng(0), adata.shape
    shapes = {"layers": (n, m), "obsm": (n, 3), "varm": (m, 3), "obsp": (n, n), "varp": (m, m)}
    adata.raw = adata.copy()
    for part, shape in shapes.items():
        getattr(adata, part)["m"] = sparse.csr_matrix(rng.poisson(1.0, shape).astype(np.float32))
    return adata


def damage(matrix: Any, rng: np.random.Generator) -> None:
    """One number of a matrix in memory set to what points outside it."""
    if rng.random() < 0.6:
        most = matrix.shape[1]
        outside = [most, most + 1, -1, 2**31 - 1, -(2**31)]
        matrix.indices[rng.integers(len(matrix.indices))] = rng.choice(outside)
    else:
        at = int(rng.integers(1, len(matrix.indptr) - 1))
        matrix.indptr[at] = rng.choice([len(matrix.data) + 5, -1, 2**31 - 1])


def table() -> ad.AnnData:
    """Rows of perturbations, as features and tables of effects have them."""
    values = np.random.default_rng(1).normal(size=(6, 12)).astype(np.float32)
    obs = pd.DataFrame({"perturbation": list("ABCDEF")}, index=list("ABCDEF"))
    return with_all(ad.AnnData(sparse.csr_matrix(values), obs=obs))


def of_file(read: Callable[[Any], Any]) -> Callable[[ad.AnnData, Path], Any]:
    def use(adata: ad.AnnData, folder: Path) -> Any:
        adata.write_h5ad(folder / "damaged.h5ad")
        return read(folder / "damaged.h5ad")

    return use


WAYS: dict[str, Callable[[ad.AnnData, Path], Any]] = {
    "features": lambda adata, _: table_of(adata),
    "features of a view": lambda adata, _: table_of(adata[:4]),
    "features in a file": of_file(table_of),
    "effects": lambda adata, _: read_table(adata),
    "effects of a view": lambda adata, _: read_table(adata[:4]),
    "effects in a file": of_file(read_table),
    "cells in a file": of_file(read_h5ad),
    "a prediction with genes in another order": lambda adata, _: align_genes(
        adata, adata.var_names[::-1], "predicted"
    ),
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.filterwarnings("ignore:The genes of predicted")
def test_tables_and_files(way: str, part: str, tmp_path: Path) -> None:
    if part == "raw" and "view" in way:
        pytest.skip("anndata itself cuts raw when the view is made")
    WAYS[way](table(), tmp_path)
    for seed in range(10):
        adata = table()
        damage(matrix_of(adata, part), np.random.default_rng(seed))
        with pytest.raises(CellditError, match=TOLD):
            WAYS[way](adata, tmp_path)


@pytest.mark.parametrize("part", PARTS)
def test_tools_that_cut_or_copy(part: str, tiny_screen: ad.AnnData, tiny_model: Any) -> None:
    for seed in range(5):
        adata = with_all(tiny_screen.copy())
        damage(matrix_of(adata, part), np.random.default_rng(seed))
        for use in (
            lambda cells: cd.tl.embed(cells, tiny_model, copy=True),
            lambda cells: cd.tl.counterfactual(cells, tiny_model, "A", copy=True),
        ):
            # anndata itself cuts raw when the view is made.
            for cells in (adata,) if part == "raw" else (adata, adata[10:60]):
                with pytest.raises(CellditError, match=TOLD):
                    use(cells)


@pytest.mark.parametrize("part", PARTS)
def test_cells_at_two_times(part: str, tiny_screen: ad.AnnData, train_tiny: Any) -> None:
    adata = tiny_screen[:160].copy()
    adata.obs["t"] = np.arange(adata.n_obs) // 6 % 2 + 1.0
    cd.CellDiT.setup_anndata(adata, perturbation_key="perturbation", time_key="t")
    model = train_tiny(adata, max_epochs=0)
    damage(matrix_of(with_all(adata), part), np.random.default_rng(0))
    with pytest.raises(CellditError, match=TOLD):
        cd.tl.fate_map(adata, model, groupby="donor", start=1, end=2)
