"""Counterfactuals through noise: identity, cells apart, the noise source's algebra."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from celldit.errors import InputError, UnknownNameError
from celldit.inference.batch import ConditionBatch
from celldit.inference.maps.edit import invert
from celldit.inference.solver import SolverConfig, carry


def ends(model, labels, n_cells):
    """Latents of some cells, and the conditions named by `labels` as the roads see them."""
    trained = model.trained
    cells = model._model.cells.take(slice(0, n_cells))
    z_BKD = trained.autoencoder.encode(cells)
    result = []
    for label in labels:
        condition = next(
            c for c in trained.frequencies if c.label("+", "control") == label and "d1" in c.context
        )
        asked = ConditionBatch.of(trained, [condition] * n_cells)
        sources = asked.sources(trained.states)
        state_B = sources.nearest(asked.row, z_BKD)
        result.append(sources.end(asked.embedding, asked.row, state_B))
    return trained.flow, z_BKD, result


def test_noise_and_start_points_are_each_others_inverse(flowing_model):
    _, z_BKD, [(_, source)] = ends(flowing_model, ["A"], 20)
    torch.testing.assert_close(source(source.noise_of(z_BKD)), z_BKD, atol=1e-5, rtol=1e-5)
    noise = torch.randn(z_BKD.shape, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(source.noise_of(source(noise)), noise, atol=1e-4, rtol=1e-4)


def test_the_own_condition_gives_the_cell_back_to_the_last_bit(flowing_model):
    flow, z_BKD, [end] = ends(flowing_model, ["A"], 30)
    back = invert(flow, z_BKD, end, end, SolverConfig())
    assert torch.equal(back, z_BKD)


@pytest.mark.parametrize(("n_steps", "tolerance"), [(8, 2e-2), (32, 2e-3)])
def test_there_and_back_without_correction_within_the_solver_error(
    flowing_model, n_steps, tolerance
):
    flow, z_BKD, [(told, _)] = ends(flowing_model, ["A"], 30)
    config = SolverConfig(n_steps=n_steps)
    x0 = carry(flow, z_BKD, told, config, backward=True)
    assert (x0 - z_BKD).abs().max() > 10 * tolerance  # the flow does move
    assert (carry(flow, x0, told, config) - z_BKD).abs().max() < tolerance


def test_a_cell_does_not_depend_on_the_others(flowing_model):
    flow, z_BKD, [start, end] = ends(flowing_model, ["control", "A"], 8)
    config = SolverConfig()
    whole = invert(flow, z_BKD, start, end, config)
    other = z_BKD.clone()
    other[1:] += 3
    changed = invert(flow, other, start, end, config)
    assert torch.equal(whole[0], changed[0])
    assert not torch.equal(whole[1], changed[1])


@pytest.mark.parametrize("sampler", ["transport", "inversion", "edit"])
def test_without_weight_it_is_the_effect_model(flowing_model, tiny_screen, sampler):
    alone = flowing_model.weighted(0)
    expected = alone.get_latent_representation(
        tiny_screen[tiny_screen.obs["perturbation"] == "control"].copy(), unit_scale=True
    )
    moved = alone.predict(tiny_screen, perturbations=["A"], sampler=sampler, n_steps=2)
    conditions = [c for c in alone.conditions if c.label("+", "control") == "A"]
    estimate = alone.trained.population.estimate(conditions)
    effect = {c.context: e for c, e in zip(conditions, estimate.effect, strict=True)}
    expected += np.stack([effect[c] for c in moved.obs["donor"].astype(str)])
    size_F = alone.trained.autoencoder.scale.repeat_interleave(3).numpy()
    np.testing.assert_allclose(moved.obsm["X_celldit"], expected * size_F, atol=1e-4)


@pytest.mark.parametrize("sampler", ["inversion", "edit"])
def test_predict_keeps_identity_and_controls(flowing_model, tiny_screen, sampler):
    predicted = flowing_model.predict(
        tiny_screen, perturbations=["control", "A"], sampler=sampler, n_steps=4
    )
    controls = tiny_screen[tiny_screen.obs["perturbation"] == "control"]
    n = controls.n_obs
    assert list(predicted.obs["control_cell"]) == list(controls.obs_names) * 2
    assert (predicted.layers["counts"][:n] != controls.X).nnz == 0
    transported = flowing_model.predict(tiny_screen, perturbations=["A"])
    moved, plain = predicted.obsm["X_celldit"][n:], transported.obsm["X_celldit"]
    assert not np.allclose(moved, plain)
    assert np.corrcoef(moved.ravel(), plain.ravel())[0, 1] > 0.8
    assert predicted.uns["celldit"]["made_by"]["sampler"] == sampler


@pytest.mark.parametrize("sampler", ["transport", "inversion", "edit"])
def test_bytes_do_not_depend_on_the_batch_size(flowing_model, tiny_screen, sampler):
    first, second = (
        flowing_model.predict(
            tiny_screen, perturbations=["A", "B"], sampler=sampler, n_steps=2, batch_size=size
        )
        for size in (7, 4096)
    )
    assert np.array_equal(first.obsm["X_celldit"], second.obsm["X_celldit"])
    assert (first.layers["counts"] != second.layers["counts"]).nnz == 0
    assert (first.layers["mean"] != second.layers["mean"]).nnz == 0


def test_what_does_not_fit_is_refused(tiny_model):
    with pytest.raises(UnknownNameError, match="transport"):
        tiny_model.predict(perturbations=["A"], sampler="inverse")
    with pytest.raises(InputError, match="come back"):
        tiny_model.predict(perturbations=["A"], sampler="inversion", solver="sde")
    with pytest.raises(InputError, match="come back"):
        tiny_model.predict(perturbations=["A"], solver="sde")


def test_guidance_of_the_other_condition_only(flowing_model):
    flow, z_BKD, [start, end] = ends(flowing_model, ["control", "A"], 8)
    plain = SolverConfig(n_steps=4)
    args = (flow, z_BKD, start, end)
    guided = invert(*args, replace(plain, guidance=3.0))
    never = invert(*args, replace(plain, guidance=3.0, guidance_interval=(0.99, 0.99)))
    assert not torch.equal(guided, invert(*args, plain))
    assert torch.equal(never, invert(*args, plain))
