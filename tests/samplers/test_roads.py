"""How much of the flow's displacement reaches the cells."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest

from celldit.conditions.trust import Trust
from celldit.model import CellDiT


def trusting(model: CellDiT, trust: Trust) -> CellDiT:
    """The same model with another trust."""
    other = copy.copy(model)
    other._trained = replace(model.trained, trust=dict.fromkeys(model.trained.trust, trust))
    return other


def latent(model: CellDiT, trust: Trust, **arguments: object) -> np.ndarray:
    predicted = trusting(model, trust).predict(perturbations=["A", "B+C"], **arguments)
    return np.asarray(predicted.obsm["X_celldit"])


@pytest.mark.parametrize("sampler", ["transport", "inversion", "edit"])
def test_the_common_shift_alone_keeps_the_shape_of_the_distribution(flowing_model, sampler):
    how = {"sampler": sampler, "n_steps": 4}
    prior, whole = (latent(flowing_model, t, **how) for t in (Trust(), Trust(1.0, 1.0)))
    shifted = latent(flowing_model, Trust(1.0, 0.0), **how)
    obs = flowing_model.predict(perturbations=["A", "B+C"]).obs
    steps = {}
    for key, rows in obs.groupby(["perturbation", "donor"], observed=True).indices.items():
        moved = (shifted - prior)[rows]
        # One shift for all cells of a condition, near what the flow moves them by on average.
        np.testing.assert_allclose(moved, moved[:1].repeat(len(rows), 0), atol=1e-5)
        average = (whole - prior)[rows].mean(0)
        assert np.linalg.norm(moved[0] - average) < 0.5 * np.linalg.norm(average)
        steps[key] = moved[0]
    assert len({tuple(step.round(4)) for step in steps.values()}) == len(steps)


def test_the_two_shares_add_up(flowing_model):
    prior, shift, cells, whole = (
        latent(flowing_model, t) for t in (Trust(), Trust(1.0), Trust(0.0, 1.0), Trust(1.0, 1.0))
    )
    np.testing.assert_allclose(shift + cells - prior, whole, atol=1e-5)


@pytest.mark.parametrize("trust", [Trust(0.5), Trust(1.0, 0.5)])
def test_a_cell_is_the_same_in_any_batch(flowing_model, trust):
    one, two = (latent(flowing_model, trust, batch_size=size) for size in (7, 4096))
    assert np.array_equal(one, two)


def test_controls_are_given_back(flowing_model, tiny_screen):
    model = trusting(flowing_model, Trust(1.0, 0.5))
    predicted = model.predict(tiny_screen, perturbations=["control"])
    controls = tiny_screen[predicted.obs["control_cell"]]
    assert (predicted.layers["counts"] != controls.X).nnz == 0


def test_effects_are_those_of_the_predicted_cells(flowing_model):
    for trust in (Trust(), Trust(1.0), Trust(1.0, 1.0)):
        model = trusting(flowing_model, trust)
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
