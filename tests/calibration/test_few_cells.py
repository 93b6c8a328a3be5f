"""Intervals of log fold changes where no condition has many cells."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from celldit import CellDiT

N_GENES, N_PERTURBATIONS = 80, 20


def screen(n: int, seed: int) -> tuple[ad.AnnData, pd.DataFrame]:
    """Many controls, n cells of each perturbation, and the true log fold changes."""
    rng = np.random.default_rng(seed)
    base_G = rng.gamma(1, 3, N_GENES) * 2
    names = [f"P{i:02d}" for i in range(N_PERTURBATIONS)]
    change = {name: np.where(rng.random(N_GENES) < 0.3, rng.normal(0, 1, N_GENES), 0)
              for name in names}  # fmt: skip
    labels = ["control"] * 200 + [name for name in names for _ in range(n)]
    change_NG = np.array([change.get(label, np.zeros(N_GENES)) for label in labels])
    rate_NG = base_G * np.exp(change_NG) * rng.lognormal(0, 0.3, (len(labels), 1))
    obs = pd.DataFrame({"perturbation": labels}, index=[f"cell{i}" for i in range(len(labels))])
    var = pd.DataFrame(index=[f"gene{g}" for g in range(N_GENES)])
    adata = ad.AnnData(sparse.csr_matrix(rng.poisson(rate_NG).astype(np.float32)), obs, var)
    CellDiT.setup_anndata(adata, perturbation_key="perturbation")
    share = {name: base_G * np.exp(log_G) for name, log_G in change.items()}
    truth = {name: np.log(s / s.sum() * base_G.sum() / base_G) for name, s in share.items()}
    return adata, pd.DataFrame(truth, index=var.index)


@pytest.mark.parametrize(("n", "most"), [(1, 1.0), (2, 0.95), (5, 0.8), (12, 0.53), (19, 0.5)])
def test_intervals_hold_below_twenty_cells(n: int, most: float) -> None:
    """With no condition of twenty cells nothing was learned of errors, and intervals held 15%."""
    adata, truth = screen(n, seed=1)
    model = CellDiT(adata, "modules")
    model.train(max_epochs=0, enable_progress_bar=False)
    table = model.predict_effects(list(truth))
    measured = [truth.at[g, p] for g, p in zip(table["gene"], table["perturbation"], strict=True)]
    error, size = table["log_fold_change"] - measured, np.sqrt(np.mean(np.square(measured)))
    assert (error.abs() < 1.645 * table["sd"]).mean() > 0.85
    assert np.sqrt((error**2).mean()) < most * size


def test_one_and_two_cells_are_told_apart() -> None:
    """Each has a prediction of its own, the less sure the fewer cells it has."""
    adata, _ = screen(40, seed=1)
    rank = adata.obs.groupby("perturbation").cumcount()
    most = adata.obs["perturbation"].map({"P00": 1, "P01": 2, "P02": 2}).fillna(1000)
    few = adata[(rank < most).to_numpy()].copy()
    model = CellDiT(few, "modules")
    model.train(max_epochs=0, enable_progress_bar=False)
    table = model.predict_effects(["P00", "P01", "P02", "P03"])
    change = table.pivot(index="gene", columns="perturbation", values="log_fold_change")
    assert change.T.round(4).drop_duplicates().shape[0] == 4
    sd = table.groupby("perturbation")["sd"].mean()
    assert sd["P00"] > sd["P01"] > sd["P03"]
