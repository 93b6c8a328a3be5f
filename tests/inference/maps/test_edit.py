"""The inversion-free edit on a trained flow."""

from __future__ import annotations

import pytest
import torch

from celldit.errors import InputError
from celldit.flow import CellNoise
from celldit.inference.batch import ConditionBatch
from celldit.inference.maps.edit import EditConfig, flow_edit
from celldit.inference.solver import SolverConfig
from celldit.random import EDIT_STREAM

EULER = SolverConfig("euler", n_steps=6)


def edited(model, labels, *, n_cells=24, edit=EditConfig(), seed=0, rows=slice(None)):  # noqa: B008
    """Edit the first cells from the first labelled condition to the second."""
    trained = model.trained
    z_BKD = trained.autoencoder.encode(model._model.cells.take(slice(0, n_cells)))[rows]
    ends = []
    for label in labels:
        condition = next(
            c for c in trained.frequencies if c.label("+", "control") == label and "d1" in c.context
        )
        asked = ConditionBatch.of(trained, [condition] * len(z_BKD))
        origin = asked.sources(trained.states)
        state_B = origin.nearest(asked.row, z_BKD)
        ends.append(origin.end(asked.embedding, asked.row, state_B))
    noise = CellNoise(torch.arange(n_cells)[rows], seed, EDIT_STREAM)
    return z_BKD, flow_edit(trained.flow, z_BKD, *ends, EULER, edit, noise)


def test_the_own_condition_gives_the_cell_back_to_the_last_bit(flowing_model):
    z_BKD, moved = edited(flowing_model, ["A", "A"])
    assert torch.equal(moved, z_BKD)


def test_a_cell_has_the_same_noise_in_any_company(flowing_model):
    _, whole = edited(flowing_model, ["control", "A"])
    _, part = edited(flowing_model, ["control", "A"], rows=slice(5, 9))
    torch.testing.assert_close(whole[5:9], part, atol=1e-5, rtol=1e-5)


def test_averaging_brings_seeds_together(flowing_model):
    def spread(n_avg):
        runs = [
            edited(flowing_model, ["control", "A"], edit=EditConfig(n_avg), seed=s)[1]
            for s in range(3)
        ]
        return torch.stack(runs).std(0).mean()

    assert spread(16) < 0.5 * spread(1)


def test_a_later_start_moves_less(flowing_model):
    def distance(t_start):
        z, moved = edited(flowing_model, ["control", "A"], edit=EditConfig(4, t_start))
        return (moved - z).norm()

    assert distance(0.9) < distance(0.5) < distance(0.0)


@pytest.mark.parametrize(
    "settings", [{"n_avg": 0}, {"n_avg": True}, {"n_avg": 1.5}, {"t_start": 1.0}, {"t_start": -0.1}]
)
def test_numbers_that_cannot_be_used(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        EditConfig(**settings)


def test_what_belongs_to_other_samplers_is_refused(tiny_model):
    with pytest.raises(InputError, match="Euler"):
        tiny_model.predict(perturbations=["A"], sampler="edit", solver="heun")
    with pytest.raises(InputError, match="edit="):
        tiny_model.predict(perturbations=["A"], edit=EditConfig())
