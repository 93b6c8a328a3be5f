"""Stage one keeps what it learned only where held-out cells say so."""

from __future__ import annotations

import anndata as ad
import pytest
import torch

import celldit.training.autoencoder.stage as stage
from celldit.data.cells import Cells
from celldit.data.fields import Fields
from celldit.latent import Autoencoder, LatentConfig
from celldit.tokenizers import resolve
from celldit.training import TrainingConfig
from celldit.training.trainer import quiet_lightning, trainer_defaults

CONFIG = TrainingConfig(latent_batch=64, latent_rate=5e-3)


@pytest.fixture(scope="module")
def cells(_tiny_screen: ad.AnnData) -> Cells:
    return Cells.from_anndata(_tiny_screen, Fields.from_anndata(_tiny_screen))


def start(cells: Cells) -> Autoencoder:
    config = LatentConfig(n_dims=6, token_dim=3)
    return Autoencoder.start(cells, resolve("modules").fit(cells), config, 0)


def train(model: Autoencoder, cells: Cells, epochs: int | None) -> list[dict[str, float]]:
    with quiet_lightning():
        return stage.train_latent(
            model,
            cells,
            CONFIG,
            max_epochs=epochs,
            seed=0,
            trainer_arguments=trainer_defaults({"enable_progress_bar": False}, "latent"),
        )


def test_no_epochs_change_nothing(cells: Cells) -> None:
    model = start(cells)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert train(model, cells, 0) == []
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())


def test_without_gain_the_start_on_all_cells_stays(
    cells: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "MIN_GAIN", 1.0)
    model = start(cells)
    z, explained = model.encode(cells), model.explained
    assert len(train(model, cells, 2)) == 2
    torch.testing.assert_close(model.encode(cells), z, rtol=1e-4, atol=1e-4)
    assert model.explained == explained
    assert (model.decoder.residual[-1].weight == 0).all()


def test_with_gain_the_best_state_is_kept_at_unit_scale(
    cells: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "MIN_GAIN", -1.0)
    model = start(cells)
    history = train(model, cells, 3)
    assert [entry["epoch"] for entry in history] == [0, 1, 2]
    assert not model.training
    size = model.encode(cells).square().mean(dim=(0, 2)).sqrt()
    torch.testing.assert_close(size, torch.ones(2), rtol=1e-3, atol=1e-3)


def test_the_start_is_judged_by_cells_it_has_not_seen(
    cells: Cells, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, seen = start(cells), []
    restart = Autoencoder.restart

    def watch(self: Autoencoder, some: Cells, seed: int) -> None:
        seen.append(set(some.names))
        restart(self, some, seed)

    monkeypatch.setattr(Autoencoder, "restart", watch)
    train(model, cells, 1)
    assert len(seen) == 1
    assert seen[0] < set(cells.names)
    assert len(seen[0]) == round(0.9 * cells.n_cells)


def test_dropout_is_on_while_training(cells: Cells, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    step = stage.LatentStage.training_step

    def watch(self: stage.LatentStage, batch: stage.CountBatch) -> torch.Tensor:
        modes.append(self.model.decoder.training)
        return step(self, batch)

    monkeypatch.setattr(stage.LatentStage, "training_step", watch)
    train(start(cells), cells, 2)
    assert modes
    assert all(modes)


def test_linear_parts_are_not_decayed(cells: Cells) -> None:
    model = start(cells)
    batches = stage.CountBatches(cells, model, 64, seed=0)
    optimizer = stage.LatentStage(model, batches, CONFIG, 10).configure_optimizers()["optimizer"]
    linear, added = optimizer.param_groups
    assert linear["weight_decay"] == 0
    assert added["weight_decay"] > 0
    n = sum(len(group["params"]) for group in optimizer.param_groups)
    assert n == len(list(model.parameters()))
