"""Straightening keeps where the flow goes and makes one step enough."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from celldit import CellDiT
from celldit.errors import InputError, NotTrainedError
from celldit.training.reflow import ReflowConfig


@pytest.fixture(scope="module")
def straightened(flowing_model):
    model = copy.copy(flowing_model)
    model.reflow(config=ReflowConfig(n_pairs=1024, n_updates=400, batch=128, rate=2e-3))
    return model


def error_of_one_step(model, reference):
    one = model.generate(200, solver="euler", n_steps=1).obsm["X_celldit"]
    return float(np.sqrt(((one - reference) ** 2).mean()))


def test_one_step_comes_nearer_to_the_end(flowing_model, straightened):
    reference = flowing_model.generate(200, n_steps=64).obsm["X_celldit"]
    before = error_of_one_step(flowing_model, reference)
    assert error_of_one_step(straightened, reference) < 0.7 * before


def test_the_first_model_is_as_it_was_and_ids_differ(flowing_model, straightened, tmp_path):
    assert straightened.trained.model_id != flowing_model.trained.model_id
    assert straightened.trained.flow is not flowing_model.trained.flow
    straightened.save(tmp_path / "model")
    loaded = CellDiT.load(tmp_path / "model")
    first, again = straightened.generate(5, n_steps=1), loaded.generate(5, n_steps=1)
    assert np.array_equal(first.obsm["X_celldit"], again.obsm["X_celldit"])
    assert loaded.trained.trained_with["reflow_rounds"] == 1


def test_bad_input(tiny_screen):
    with pytest.raises(NotTrainedError):
        CellDiT(tiny_screen, "modules").reflow()
    for settings in ({"n_pairs": 0}, {"n_updates": 1.5}, {"batch": True}, {"rate": 0}):
        with pytest.raises(InputError, match=next(iter(settings))):
            ReflowConfig(**settings)
