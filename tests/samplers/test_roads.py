"""How much of the network's displacement reaches the cells."""

from __future__ import annotations

import numpy as np
import pytest

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
