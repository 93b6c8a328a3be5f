"""A batch without control cells: the user is told, and effects there say how sure they are."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from typer.testing import CliRunner

from celldit import CellDiT
from celldit.cli.app import app

# The first batch has everything, the second no controls, the third no C.
PLAN = {
    "b1": {"control": 150, "A": 120, "B": 120, "C": 120},
    "b2": {"A": 120, "B": 120, "C": 120},
    "b3": {"control": 150, "A": 120, "B": 120},
}
N_GENES = 60


def batches(seed: int, *, controls: int = 0) -> tuple[ad.AnnData, pd.Series]:
    """Cells of three batches that differ, and the true log fold changes."""
    rng = np.random.default_rng(seed)
    base_G = rng.dirichlet(np.ones(N_GENES) * 0.7) + 2e-3
    counts, obs, truth = [], [], {}
    for batch, sizes in PLAN.items():
        own_G = base_G * np.exp(rng.normal(0, 0.5, N_GENES))
        own_G /= own_G.sum()
        for label, n in (sizes | ({"control": controls} if batch == "b2" else {})).items():
            change_G = np.zeros(N_GENES)
            if label != "control":
                change_G["ABC".index(label)] = 2
            rate_G = own_G * np.exp(change_G)
            truth |= {(label, batch, f"gene{g}"): change_G[g] - np.log(rate_G.sum())
                      for g in range(N_GENES)}  # fmt: skip
            size_N1 = rng.lognormal(np.log(8000), 0.3, n)[:, None]
            counts.append(rng.poisson(rng.gamma(4.0, size_N1 * rate_G / rate_G.sum() / 4.0)))
            obs += [(label, batch)] * n
    frame = pd.DataFrame(obs, columns=["perturbation", "batch"]).set_index(
        pd.Index([f"cell{i}" for i in range(len(obs))])
    )
    var = pd.DataFrame(index=[f"gene{g}" for g in range(N_GENES)])
    adata = ad.AnnData(sparse.csr_matrix(np.concatenate(counts).astype(np.float32)), frame, var)
    CellDiT.setup_anndata(adata, perturbation_key="perturbation", covariate_keys=["batch"])
    return adata, pd.Series(truth)


def effects_in_b2(model: CellDiT, truth: pd.Series) -> pd.DataFrame:
    table = model.predict_effects(["A", "B", "C"])
    table = table[table["context"] == "b2"].copy()
    keys = zip(table["perturbation"], table["context"], table["gene"], strict=True)
    return table.assign(error=table["log_fold_change"] - [truth[key] for key in keys])


def test_effects_do_not_hold_the_difference_between_batches(tmp_path: Path) -> None:
    errors = []
    for seed in (0, 1):
        adata, truth = batches(seed)
        model = CellDiT(adata, "modules")
        with pytest.warns(UserWarning, match=r"1 context has fewer than 5 control.*'?b2'?"):
            model.train(max_epochs=0, enable_progress_bar=False)
        assert model.without_controls == ("b2",)
        errors.append(effects_in_b2(model, truth))
    found = pd.concat(errors)
    assert np.sqrt((found["error"] ** 2).mean()) < 0.15
    assert 0.85 < (found["error"].abs() < 1.645 * found["sd"]).mean() <= 1
    model.save(tmp_path / "model")
    assert CellDiT.load(tmp_path / "model").without_controls == ("b2",)
    said = CliRunner().invoke(app, ["info", str(tmp_path / "model"), "--json"]).stdout
    assert json.loads(said)["without_controls"] == ["b2"]
    before = effects_in_b2(model, truth)
    after = effects_in_b2(CellDiT.load(tmp_path / "model"), truth)
    pd.testing.assert_frame_equal(before, after)


def test_batches_with_controls_are_not_named() -> None:
    adata, _ = batches(0, controls=100)
    model = CellDiT(adata, "modules")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*control cells of their own.*")
        model.train(max_epochs=0, enable_progress_bar=False)
    assert model.without_controls == ()


def test_the_network_trains_beside_a_batch_without_controls(
    train_tiny: Callable[..., CellDiT],
) -> None:
    adata, _ = batches(0)
    with pytest.warns(UserWarning, match="control cells of their own"):
        model = train_tiny(adata, max_epochs=2)
    predicted = model.predict(perturbations=["A"])
    assert np.isfinite(predicted.obsm["X_celldit"]).all()
