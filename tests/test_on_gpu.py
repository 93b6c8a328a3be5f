"""What celldit does on a GPU, where there is one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
import torch

from celldit import CellDiT
from celldit.training.devices import cuda
from celldit.training.flow_data import FlowBatch
from celldit.training.flow_stage import FlowStage

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture
def on_gpu(flowing_model: CellDiT) -> CellDiT:
    model = copy.copy(flowing_model)
    model._trained = replace(model.trained, flow=copy.deepcopy(model.trained.flow))
    return model.to("cuda")


def test_training_leaves_a_model_for_the_cpu(
    tiny_screen: ad.AnnData, train_tiny: Callable[..., CellDiT], tmp_path: Path
) -> None:
    model = train_tiny(tiny_screen, max_epochs=2, config={"noise_epochs": 2})
    assert model.trained.flow.device.type == "cpu"
    assert np.isfinite(model.predict(perturbations=["A"]).obsm["X_celldit"]).all()
    model.save(tmp_path / "model")
    again = CellDiT.load(tmp_path / "model")
    here, there = (m.predict(tiny_screen, perturbations=["A"]) for m in (model, again))
    assert here.obsm["X_celldit"].tobytes() == there.obsm["X_celldit"].tobytes()


def test_a_large_network_trains_compiled_in_half_precision(
    tiny_screen: ad.AnnData, train_tiny: Callable[..., CellDiT], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = {"flow_steps_per_epoch": 30, "noise_epochs": 1, "n_trials": 0}
    plain = train_tiny(tiny_screen, config={**steps, "compile": "off"}, max_epochs=1)
    seen = []
    monkeypatch.setattr(cuda, "LARGE_STEP", 0)
    training_step = FlowStage.training_step

    def spy(stage: FlowStage, batch: FlowBatch) -> torch.Tensor:
        compiled = all(b._compiled_call_impl is not None for b in stage.flow.dit.blocks)
        seen.append((compiled, torch.is_autocast_enabled("cuda")))
        return training_step(stage, batch)

    monkeypatch.setattr(FlowStage, "training_step", spy)
    large = train_tiny(tiny_screen, config=steps, max_epochs=1)
    assert set(seen) == {(True, True)}
    for a, b in zip(plain.trained.flow.parameters(), large.trained.flow.parameters(), strict=True):
        assert b.dtype == torch.float32
        # Dropout differs; what both learned is alike.
        assert (a - b).norm() < 0.5 * a.norm() + 0.5
    assert np.isfinite(large.predict(perturbations=["A"]).obsm["X_celldit"]).all()


@pytest.mark.parametrize("sampler", ["transport", "inversion", "edit"])
def test_predictions_are_those_of_the_cpu(
    on_gpu: CellDiT, flowing_model: CellDiT, sampler: Any
) -> None:
    here, there = (
        m.predict(perturbations=["A", "A+B"], sampler=sampler) for m in (flowing_model, on_gpu)
    )
    np.testing.assert_allclose(there.obsm["X_celldit"], here.obsm["X_celldit"], atol=2e-3)
    assert (there.layers["counts"] != here.layers["counts"]).mean() < 0.01


@pytest.mark.parametrize("solver", ["heun", "sde"])
def test_new_cells_are_those_of_the_cpu(
    on_gpu: CellDiT, flowing_model: CellDiT, solver: Any
) -> None:
    here, there = (m.generate(60, perturbation="A", solver=solver) for m in (flowing_model, on_gpu))
    np.testing.assert_allclose(there.obsm["X_celldit"], here.obsm["X_celldit"], atol=5e-3)


def test_saving_works_there(on_gpu: CellDiT, tmp_path: Path) -> None:
    on_gpu.save(tmp_path / "model")
    loaded = CellDiT.load(tmp_path / "model")
    assert loaded.trained.flow.device.type == "cpu"
    assert loaded.trained.model_id == on_gpu.trained.model_id


def test_fine_tuning_starts_from_a_model_there(on_gpu: CellDiT, tiny_screen: ad.AnnData) -> None:
    tuned = on_gpu.fine_tune(tiny_screen, max_epochs=1, enable_progress_bar=False)
    assert np.isfinite(tuned.predict(perturbations=["A"]).obsm["X_celldit"]).all()
