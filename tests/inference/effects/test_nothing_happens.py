"""A screen in which nothing happens, with few controls and few counts, is read as one."""

from __future__ import annotations

from dataclasses import replace

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import celldit as cd
from celldit.inference.effects.summary import findings
from celldit.latent import LatentConfig

N_CONTROLS, N_PERTURBED, N_GENES = 60, 120, 400


@pytest.fixture(scope="module")
def screen() -> ad.AnnData:
    """Ten labels of the same cells, about one count in twenty a gene and cell."""
    rng = np.random.default_rng(0)
    labels = ["control"] * N_CONTROLS + [f"p{i}" for i in range(10) for _ in range(N_PERTURBED)]
    rate_G = rng.gamma(0.5, 0.1, N_GENES)
    size_N1 = rng.lognormal(0, 0.4, (len(labels), 1))
    # Two states of cells, so that there is something for a latent to hold.
    state_NG = np.where(rng.random((len(labels), 1)) < 0.5, rng.lognormal(0, 0.5, N_GENES), 1.0)
    counts = sparse.csr_matrix(rng.poisson(rate_G * size_N1 * state_NG).astype(np.float32))
    names = [f"cell{i}" for i in range(len(labels))]
    return ad.AnnData(
        counts,
        obs=pd.DataFrame({"perturbation": labels}, index=names),
        var=pd.DataFrame(index=[f"g{g}" for g in range(N_GENES)]),
    )


@pytest.fixture(scope="module")
def model(screen: ad.AnnData) -> cd.CellDiT:
    cd.CellDiT.setup_anndata(screen, perturbation_key="perturbation", control="control")
    model = cd.CellDiT(screen, "modules", LatentConfig(n_dims=8, token_dim=4))
    model.train(0, enable_progress_bar=False)
    return model


def test_hardly_a_gene_has_probably_changed(screen: ad.AnnData, model: cd.CellDiT) -> None:
    table = cd.tl.effects(screen, model)
    assert (table["p_changed"] > 0.8).mean() < 0.05
    assert (table["lfsr"] < 0.05).mean() < 0.01
    # Sixty controls with a count in twenty cells know less than this by themselves.
    assert table["log2_sd"].median() < 1
    # Nor is that for want of any doubt: no change lies within the intervals.
    assert ((table["low"] <= 0) & (table["high"] >= 0)).mean() > 0.9


def test_what_all_conditions_share_passes_for_no_prediction(model: cd.CellDiT) -> None:
    # Controls that are off by a lot put the same shift into every condition, which each of them
    # then tells of every other: here in the dimension in which the screen has most in common.
    trained = model.trained
    prior = trained.population.prior
    off_F = np.eye(len(prior.common))[np.argmax(prior.common)] * 10
    shared = replace(prior, shifts=prior.shifts + off_F, common=prior.common + off_F**2)
    estimate_F = (shared.leave_one_out().mean @ prior.rotation).mean(axis=0)
    assert estimate_F @ off_F > 0.8 * off_F @ off_F
    found = findings(replace(trained, population=replace(trained.population, prior=shared)))
    assert max(found.explained.values()) < 0.5


def test_a_screen_without_effects_is_called_one(model: cd.CellDiT) -> None:
    found = findings(model.trained)
    assert not found.strongest
    assert max(found.explained.values()) < 0.5
    assert "reliable" not in model.summary()
    assert "nothing tells how far predictions go" in model.summary()


def test_a_handful_of_controls_is_no_certainty() -> None:
    # Too few controls to compare anything with are still what every change is counted from.
    rng = np.random.default_rng(1)
    labels = ["control"] * 8 + [f"p{i}" for i in range(6) for _ in range(40)]
    rate_NG = rng.gamma(2, 5, 80) * rng.lognormal(0, 0.4, (len(labels), 80))
    screen = ad.AnnData(
        sparse.csr_matrix(rng.poisson(rate_NG).astype(np.float32)),
        obs=pd.DataFrame({"perturbation": labels}, index=[f"cell{i}" for i in range(len(labels))]),
        var=pd.DataFrame(index=[f"g{g}" for g in range(80)]),
    )
    cd.CellDiT.setup_anndata(screen, perturbation_key="perturbation", control="control")
    model = cd.CellDiT(screen, "modules")
    model.train(0, enable_progress_bar=False)
    table = cd.tl.effects(screen, model)
    assert ((table["low"] <= 0) & (table["high"] >= 0)).mean() > 0.8
    assert (table["lfsr"] < 0.05).mean() < 0.2
