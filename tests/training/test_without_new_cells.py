"""A training for predictions alone costs less, predicts the same, and says what it cannot do."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import pytest
from typer.testing import CliRunner

from celldit import CellDiT
from celldit.cli import app
from celldit.errors import InputError
from celldit.training import TrainingConfig

STEPS = {"flow_epochs": 1, "flow_steps_per_epoch": 5}


@pytest.fixture(scope="module")
def pair(_tiny_screen: ad.AnnData, train_tiny: Callable[..., Any]) -> tuple[CellDiT, CellDiT]:
    models = [
        train_tiny(_tiny_screen.copy(), max_epochs=1, config={**STEPS, "new_cells": new_cells})
        for new_cells in (True, False)
    ]
    return models[0], models[1]


def test_predictions_are_the_same(pair: tuple[CellDiT, CellDiT]) -> None:
    whole, alone = (model.predict(perturbations=["A"]) for model in pair)
    assert whole.obsm["X_celldit"].tobytes() == alone.obsm["X_celldit"].tobytes()
    assert (whole.layers["counts"] != alone.layers["counts"]).nnz == 0
    effects = [model.predict_effects(["A"]) for model in pair]
    assert effects[0].equals(effects[1])


def test_neither_the_flow_from_noise_nor_counts_are_learned(pair: tuple[CellDiT, CellDiT]) -> None:
    whole, alone = pair
    assert whole.history["noise"]
    assert not alone.history["noise"]
    assert len(whole.trained.synthesis.offset_G)
    assert not len(alone.trained.synthesis.offset_G)


def test_new_cells_are_refused_also_after_loading(
    pair: tuple[CellDiT, CellDiT], tmp_path: Path
) -> None:
    _, alone = pair
    alone.save(tmp_path / "model")
    facts = CliRunner().invoke(app, ["info", str(tmp_path / "model")]).stdout
    assert re.search(r"^draws_new_cells +no$", facts, re.MULTILINE)
    for model in (alone, CellDiT.load(tmp_path / "model")):
        with pytest.raises(InputError, match=r"new_cells=False.*cannot draw new cells; train with"):
            model.generate(5)


def test_the_last_training_decides(
    pair: tuple[CellDiT, CellDiT], tiny_screen: ad.AnnData, tmp_path: Path
) -> None:
    settings = {"enable_progress_bar": False, "accelerator": "cpu", "devices": 1, "max_epochs": 1}
    for model, new_cells in zip(pair, (False, True), strict=True):
        model.save(tmp_path / str(new_cells))
        tuned = CellDiT.load(tmp_path / str(new_cells))
        adata = tiny_screen.copy()
        CellDiT.setup_anndata(adata, **model.fields.to_dict())
        tuned.fine_tune(adata, config=TrainingConfig(**STEPS, new_cells=new_cells), **settings)
        if new_cells:
            assert tuned.generate(5).n_obs == 5
        else:
            with pytest.raises(InputError, match="cannot draw new cells"):
                tuned.generate(5)


def test_only_a_yes_or_no_will_do() -> None:
    with pytest.raises(InputError, match="new_cells='no' must be True or False"):
        TrainingConfig(new_cells="no")  # type: ignore[arg-type]
