"""Learning an autoencoder by the likelihood of counts."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.types import LRSchedulerConfigType, OptimizerLRSchedulerConfig
from torch import Tensor
from torch.utils.data import DataLoader

from celldit.latent.autoencoder import Autoencoder
from celldit.training.autoencoder.batches import CountBatch, CountBatches, CountOrder
from celldit.training.config import TrainingConfig
from celldit.training.devices.parallel import rank_and_world
from celldit.training.saving.resume import ResumableLoader, run_stage

if TYPE_CHECKING:
    from celldit.training.saving.checkpoints import Part

# Share of the learning rate for the decoder's linear part.
LINEAR_RATE = 0.25


class LatentStage(pl.LightningModule):
    """Negative log-likelihood of raw counts, plus a pull of the residuals towards zero.

    The best state so far is kept, the linear start included.
    """

    def __init__(
        self, model: Autoencoder, batches: CountBatches, config: TrainingConfig, n_steps: int
    ) -> None:
        super().__init__()
        self.model, self.config, self.n_steps = model, config, n_steps
        self.batches = batches
        self.best = self.at_start = float("inf")
        self.best_state: dict[str, Tensor] = copy.deepcopy(model.state_dict())
        self.epochs_without_gain = 0
        self.history: list[dict[str, float]] = []

    def nll(self, batch: CountBatch) -> Tensor:
        """Mean negative log-likelihood of a cell, in nats per gene."""
        counts = self.model.decode(self.model(batch.log), batch.size_B)
        return -counts.log_prob(batch.counts.dense()).mean()

    @torch.no_grad()
    def start_from(self, validation: CountBatches) -> None:
        """Take the present state as the best so far."""
        self.model.eval()
        batches = (validation[i] for i in range(len(validation)))
        losses = [(float(self.nll(batch)), len(batch.size_B)) for batch in batches]
        self.best = self.at_start = sum(x * n for x, n in losses) / sum(n for _, n in losses)
        self.best_state = copy.deepcopy(self.model.state_dict())

    def training_step(self, batch: CountBatch, batch_idx: int = 0) -> Tensor:
        loss = self.nll(batch)
        self.log("nll", loss, prog_bar=True, batch_size=len(batch.size_B))
        rank, world = rank_and_world()
        if world == 1:
            return loss
        # Processes average their gradients; shares that are not equal must not weigh the same.
        n_batch = min(self.batches.size, self.batches.cells.n_cells - batch_idx * self.batches.size)
        n_own = len(batch.size_B) if rank < n_batch else 0
        return loss * (world * n_own / n_batch)

    def on_train_epoch_start(self) -> None:
        self.batches.shuffle()

    def validation_step(self, batch: CountBatch) -> None:
        self.log("held_out_nll", self.nll(batch), prog_bar=True, batch_size=len(batch.size_B))

    def on_validation_epoch_end(self) -> None:
        value = float(self.trainer.callback_metrics["held_out_nll"])
        if self.trainer.sanity_checking:
            return
        self.history.append({"epoch": float(self.current_epoch), "held_out_nll": value})
        if value < self.best * (1 - 1e-3):
            self.epochs_without_gain = 0
        else:
            self.epochs_without_gain += 1
        if value < self.best:
            self.best, self.best_state = value, copy.deepcopy(self.model.state_dict())
        if self.epochs_without_gain >= self.config.latent_patience:
            self.trainer.should_stop = True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["celldit"] = {
            "best": self.best,
            "at_start": self.at_start,
            "best_state": self.best_state,
            "epochs_without_gain": self.epochs_without_gain,
            "history": self.history,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        for name, value in checkpoint["celldit"].items():
            setattr(self, name, value)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        # The linear part starts at its optimum with a prior of its own; what is added to it pays.
        linear = [self.model.decoder.loadings, self.model.decoder.bias]
        linear += list(self.model.decoder.head.parameters())
        own = {id(parameter) for parameter in linear}
        added = [p for p in self.model.parameters() if id(p) not in own]
        rate = self.config.latent_rate
        optimizer = torch.optim.AdamW(
            [
                {"params": linear, "lr": LINEAR_RATE * rate, "weight_decay": 0.0},
                {"params": added, "lr": rate, "weight_decay": self.config.weight_decay},
            ]
        )
        return {"optimizer": optimizer, "lr_scheduler": warm_cosine(optimizer, self.n_steps)}


def warm_cosine(optimizer: torch.optim.Optimizer, n_steps: int) -> LRSchedulerConfigType:
    """Learning rate: linear warm-up over a twentieth of the steps, then a cosine to a tenth."""
    warm_up = max(1, n_steps // 20)

    def factor(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        progress = min(1.0, (step - warm_up) / max(1, n_steps - warm_up))
        return 0.1 + 0.45 * (1 + float(np.cos(np.pi * progress)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {"scheduler": schedule, "interval": "step"}


def maximize(
    stage: LatentStage,
    validation: CountBatches,
    *,
    n_epochs: int,
    seed: int,
    trainer_arguments: dict[str, Any],
    part: Part | None,
) -> None:
    """Train the autoencoder of a stage; the stage then holds the best state by held-out cells.

    Parameters
    ----------
    stage
        The stage, with its training batches.
    validation
        Cells to stop by.
    n_epochs
        Most epochs.
    seed
        Of dropout.
    trainer_arguments
        For :class:`lightning.pytorch.Trainer`.
    part
        Where checkpoints are; None for none.
    """
    stage.start_from(validation)
    stage.model.train()
    run_stage(
        stage,
        ResumableLoader(stage.batches, batch_size=None, sampler=CountOrder(stage.batches)),
        stage.batches,
        n_epochs=n_epochs,
        seed=seed,
        trainer_arguments={"num_sanity_val_steps": 0, **trainer_arguments},
        part=part,
        validation=DataLoader(validation, batch_size=None),
    )
