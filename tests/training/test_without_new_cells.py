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
    assert len(whole.trained.new_cell_model.offset_G)
    assert not len(alone.trained.new_cell_model.offset_G)


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


def tuned(model: CellDiT, adata: ad.AnnData, folder: Path, *, new_cells: bool) -> CellDiT:
    """A copy of a model, tuned on cells set up alike."""
    model.save(folder)
    again = CellDiT.load(folder)
    CellDiT.setup_anndata(adata, **model.fields.to_dict())
    config = TrainingConfig(**STEPS, new_cells=new_cells)
    settings = {"enable_progress_bar": False, "accelerator": "cpu", "devices": 1, "max_epochs": 1}
    return again.fine_tune(adata, config=config, **settings)


@pytest.mark.parametrize("first", [True, False])
def test_one_training_without_is_enough_to_refuse(
    pair: tuple[CellDiT, CellDiT], tiny_screen: ad.AnnData, tmp_path: Path, first: bool
) -> None:
    """Donors that only the training without saw would come out as they are decoded."""
    one_donor = tiny_screen[tiny_screen.obs["donor"] == "d1"].copy()
    whole, alone = pair
    again = tuned(whole if first else alone, one_donor, tmp_path / "model", new_cells=not first)
    with pytest.raises(InputError, match=r"or the one it was tuned from.*cannot draw new cells"):
        again.generate(5)


def test_what_was_all_learned_again_is_drawn(
    pair: tuple[CellDiT, CellDiT], tiny_screen: ad.AnnData, tmp_path: Path
) -> None:
    again = tuned(pair[1], tiny_screen.copy(), tmp_path / "model", new_cells=True)
    assert again.generate(5).n_obs == 5


def test_only_a_yes_or_no_will_do() -> None:
    with pytest.raises(InputError, match="new_cells='no' must be True or False"):
        TrainingConfig(new_cells="no")  # type: ignore[arg-type]
