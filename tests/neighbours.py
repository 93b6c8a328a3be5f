"""Packages that the documentation calls and celldit does not need: what they ask of their input.

As decoupler 2.2, gseapy 1.3 and pertpy 1.0.3 took the blocks of docs/guides/neighbours.md when they
were tried.
"""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd


def ulm(data: pd.DataFrame, net: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    """decoupler takes conditions in rows, genes in columns, and numbers without holes."""
    assert data.index.is_unique
    assert data.columns.is_unique
    assert data.notna().all(axis=None)
    assert set(map(str, data.dtypes)) <= {"float32", "float64"}
    activities = data.iloc[:, :1]
    return activities, activities


def prerank(rnk: pd.Series, gene_sets: Any) -> None:
    """gseapy takes the genes of one condition, from the highest to the lowest."""
    assert isinstance(rnk, pd.Series)
    assert rnk.index.is_unique
    assert rnk.notna().all()
    assert rnk.is_monotonic_decreasing


def enrichr(gene_list: list[str], gene_sets: Any) -> None:
    assert all(isinstance(gene, str) for gene in gene_list)


class Distance:
    """pertpy compares groups of cells in a latent that all of them have."""

    def __init__(self, metric: str, obsm_key: str) -> None:
        assert metric == "edistance"
        self.obsm_key = obsm_key

    def onesided_distances(self, cells: ad.AnnData, groupby: str, selected_group: str) -> None:
        check_space(cells, groupby, self.obsm_key)
        assert selected_group in set(cells.obs[groupby])


class PseudobulkSpace:
    def compute(self, cells: ad.AnnData, target_col: str, embedding_key: str, mode: str) -> None:
        check_space(cells, target_col, embedding_key)
        assert mode == "mean"


def check_space(cells: ad.AnnData, column: str, key: str) -> None:
    """Measured and predicted cells side by side, in one latent without holes."""
    assert {"control", "JAK3", "IRF1+JAK2"} <= set(cells.obs[column])
    assert np.isfinite(cells.obsm[key]).all()


def packages() -> dict[str, Any]:
    """Stand-ins by the name under which they are imported."""
    decoupler, gseapy = ModuleType("decoupler"), ModuleType("gseapy")
    decoupler.mt = SimpleNamespace(ulm=ulm)  # type: ignore[attr-defined]
    decoupler.op = SimpleNamespace(collectri=lambda: None)  # type: ignore[attr-defined]
    gseapy.prerank, gseapy.enrichr = prerank, enrichr  # type: ignore[attr-defined]
    pertpy = ModuleType("pertpy")
    pertpy.tl = SimpleNamespace(Distance=Distance, PseudobulkSpace=PseudobulkSpace)  # type: ignore[attr-defined]
    return {"decoupler": decoupler, "gseapy": gseapy, "pertpy": pertpy}
