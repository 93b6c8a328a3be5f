"""Predictions leave as many cells as they are as did not respond in training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import celldit as cd
from celldit.calibration.means import MeanCalibration
from celldit.calibration.responders.shares import fit_shares
from celldit.conditions import ConditionTable
from celldit.data.cells import Cells
from celldit.data.fields import Fields

SHARE = 0.7


@pytest.fixture(scope="module")
def screen() -> ad.AnnData:
    """Of A's cells a share responds strongly, of B's all; C does nothing."""
    rng, n_genes = np.random.default_rng(0), 60
    label = np.repeat(["control", "A", "B", "C"], [500, 300, 300, 300])
    log_NG = np.log(rng.gamma(2.0, 2.0, n_genes)) + rng.normal(0, 0.1, (len(label), n_genes))
    effects = 1.5 * rng.normal(size=(2, n_genes)) * (rng.random((2, n_genes)) < 0.3)
    log_NG[(label == "A") & (rng.random(len(label)) < SHARE)] += effects[0]
    log_NG[label == "B"] += effects[1]
    obs = pd.DataFrame({"perturbation": label}, index=[f"cell{i}" for i in range(len(label))])
    counts = rng.poisson(np.exp(log_NG)).astype(np.float32)
    counts[:, 0] += 1
    adata = ad.AnnData(sparse.csr_matrix(counts), obs)
    cd.CellDiT.setup_anndata(adata, perturbation_key="perturbation")
    return adata


@pytest.fixture(scope="module")
def model(screen: ad.AnnData, train_tiny: Any) -> cd.CellDiT:
    return train_tiny(screen, max_epochs=0)


def without_shares(model: cd.CellDiT) -> cd.CellDiT:
    """The same model, in which all cells respond."""
    other = cd.CellDiT.__new__(cd.CellDiT)
    other.__dict__.update(model.__dict__)
    trained = model.trained
    calibration = replace(trained.mean_calibration, shares={})
    other._trained = replace(trained, mean_calibration=calibration)
    return other


def test_shares_are_found_where_cells_lie_apart(model: cd.CellDiT) -> None:
    shares = model.trained.mean_calibration.shares
    assert SHARE - 0.05 < shares["A",] < SHARE + 0.15
    assert ("B",) not in shares
    assert ("C",) not in shares


def test_those_that_do_not_respond_keep_their_counts_and_the_mean_stays(
    model: cd.CellDiT, screen: ad.AnnData
) -> None:
    controls = screen[(screen.obs["perturbation"] == "control").to_numpy()].copy()
    some, all_respond = (
        m.predict(controls, perturbations=["A"]) for m in (model, without_shares(model))
    )
    stays = (some.layers["counts"] != controls.X).sum(1).A1 == 0
    assert abs(stays.mean() - (1 - model.trained.mean_calibration.shares["A",])) < 0.06
    np.testing.assert_array_equal(
        some.obsm["X_celldit"][stays], model.predict(controls, perturbations=["control"])
        .obsm["X_celldit"][stays]
    )  # fmt: skip
    before, one, two = (
        np.log1p(x.layers["counts"].toarray() if "counts" in x.layers else x.X.toarray()).mean(0)
        for x in (controls, some, all_respond)
    )
    shift, other = one - before, two - before
    assert ((shift - other) ** 2).sum() < 0.05 * (other**2).sum()
    # The measured cells scatter along the effect as the mixture does.
    treated = np.log1p(screen[screen.obs["perturbation"] == "A"].X.toarray())
    spread = [
        (np.log1p(x) @ other).std()
        for x in (some.layers["counts"].toarray(), all_respond.layers["counts"].toarray())
    ]
    real = (treated @ other).std()
    assert abs(spread[0] - real) < 0.5 * abs(spread[1] - real)


def test_who_responds_belongs_to_the_cell(model: cd.CellDiT, screen: ad.AnnData) -> None:
    controls = screen[(screen.obs["perturbation"] == "control").to_numpy()].copy()
    whole = model.predict(controls, perturbations=["A", "B"])
    part = model.predict(controls[100:50:-1].copy(), perturbations=["A"])
    same = whole[part.obs_names]
    assert (same.layers["counts"] != part.layers["counts"]).nnz == 0


def test_a_saved_model_keeps_its_shares(model: cd.CellDiT, tmp_path: Path) -> None:
    model.save(tmp_path / "m")
    again = cd.CellDiT.load(tmp_path / "m").trained.mean_calibration
    assert again.shares == model.trained.mean_calibration.shares
    config = {**again.to_config(), "responding": [[["A"], 0.0]]}
    with pytest.raises(ValueError, match="share"):
        MeanCalibration.from_config(config, again.arrays(), 60)


def test_cells_on_disk_give_the_same(model: cd.CellDiT, screen: ad.AnnData, tmp_path: Path) -> None:
    screen.copy().write_h5ad(tmp_path / "s.h5ad")
    store = cd.open_store(tmp_path / "s.h5ad", perturbation_key="perturbation", control="control")
    table = ConditionTable.from_cells(store, "+")
    found = fit_shares(store, table, model.trained.population.prior, seed=0)
    cells = Cells.from_anndata(screen, Fields.from_anndata(screen))
    assert found == fit_shares(cells, table, model.trained.population.prior, seed=0)
    assert found == model.trained.mean_calibration.shares
