"""How much of the network's displacement reaches the cells."""

from __future__ import annotations

from collections.abc import Callable

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from celldit.model import CellDiT


def latent(model: CellDiT, weight: float, **arguments: object) -> np.ndarray:
    predicted = model.weighted(weight).predict(perturbations=["A", "B+C"], **arguments)
    return np.asarray(predicted.obsm["X_celldit"])


@pytest.mark.parametrize("sampler", ["transport", "inversion", "edit"])
def test_a_weight_is_a_share_of_the_displacement(flowing_model, sampler):
    how = {"sampler": sampler, "n_steps": 4}
    alone, some, whole = (latent(flowing_model, weight, **how) for weight in (0, 0.3, 1))
    assert np.abs(whole - alone).max() > 0.01
    np.testing.assert_allclose(some, alone + 0.3 * (whole - alone), atol=1e-5)


def test_a_cell_is_the_same_in_any_batch(flowing_model):
    one, two = (latent(flowing_model, 0.5, batch_size=size) for size in (7, 4096))
    assert np.array_equal(one, two)


def test_controls_are_given_back(flowing_model, tiny_screen):
    predicted = flowing_model.weighted(0.5).predict(tiny_screen, perturbations=["control"])
    controls = tiny_screen[predicted.obs["control_cell"]]
    assert (predicted.layers["counts"] != controls.X).nnz == 0


def test_effects_are_those_of_the_predicted_cells(flowing_model):
    for weight in (0, 0.5, 1):
        model = flowing_model.weighted(weight)
        table = model.predict_effects(["A"])
        predicted = model.predict(perturbations=["A"])
        control = model.predict(perturbations=["control"])
        donors = list(dict.fromkeys(table["context"]))
        rates = [
            np.asarray(a[a.obs["donor"] == donors[0]].X.expm1().mean(0)).ravel()
            for a in (predicted, control)
        ]
        seen = np.log((rates[0] + 0.05) / (rates[1] + 0.05))
        said = table.loc[table["context"] == donors[0], "log_fold_change"]
        assert np.corrcoef(seen, said)[0, 1] > 0.9


@pytest.fixture(scope="module")
def timed(train_tiny: Callable[..., CellDiT]) -> tuple[CellDiT, ad.AnnData]:
    """Controls drift threefold in ten genes until the time at which X was measured."""
    rng = np.random.default_rng(0)
    base, drift = rng.gamma(2, 2, 40) + 0.5, np.r_[np.full(10, 3.0), np.ones(30)]
    counts, perturbation, time = [], [], []
    for label, hours in (("control", 0.0), ("control", 10.0), ("control", 24.0), ("X", 24.0)):
        rate = base * drift ** (min(hours, 10) / 10)
        rate[20:25] *= 4 if label == "X" else 1
        counts.append(rng.poisson(rate, (200, 40)))
        perturbation += [label] * 200
        time += [hours] * 200
    adata = ad.AnnData(
        sparse.csr_matrix(np.concatenate(counts).astype(np.float32)),
        obs=pd.DataFrame({"perturbation": perturbation, "hours": time}).rename(index="c{}".format),
    )
    CellDiT.setup_anndata(adata, perturbation_key="perturbation", time_key="hours")
    return train_tiny(adata, max_epochs=0), adata


@pytest.mark.parametrize("sampler", ["transport", "inversion", "edit"])
def test_a_cell_of_another_time_goes_with_the_controls(timed, sampler):
    """By transport early cells stayed where they were: 2.6 counts where 7.8 were measured."""
    model, adata = timed
    predicted = model.predict(perturbations=["X"], time=24.0, sampler=sampler)
    hours = adata.obs["hours"][predicted.obs["control_cell"]].to_numpy()
    z = model.get_latent_representation(adata)
    drift = z[600:].mean(0) - z[:200].mean(0)
    early, late = (predicted.obsm["X_celldit"][hours == time].mean(0) for time in (0.0, 24.0))
    assert np.linalg.norm(early - late) < 0.15 * np.linalg.norm(drift)


def test_a_cell_of_the_same_time_does_not_drift(timed):
    model, adata = timed
    predicted = model.predict(perturbations=["control"], time=24.0)
    late = predicted[(adata.obs["hours"][predicted.obs["control_cell"]] == 24.0).to_numpy()]
    own = adata[late.obs["control_cell"]]
    assert (late.layers["counts"] != own.X).nnz == 0
