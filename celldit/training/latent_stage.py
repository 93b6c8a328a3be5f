"""Stage one: the autoencoder learns the likelihood of counts, from its linear start."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.utilities.types import LRSchedulerConfigType, OptimizerLRSchedulerConfig
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from celldit.latent.autoencoder import Autoencoder
from celldit.latent.sparse_rows import SparseRows
from celldit.training.config import TrainingConfig
from celldit.training.parallel import rank_and_world
from celldit.training.resume import ResumableLoader, run_stage

if TYPE_CHECKING:
    from celldit.data.store import CellStore
    from celldit.tokenizers import TokenSet
    from celldit.training.checkpoints import Part

# Share of the learning rate for the decoder's linear part.
LINEAR_RATE = 0.25
# Most cells to stop by: more say nothing new, and they stay in memory.
MAX_HELD_OUT = 20_000
# Least relative gain in held-out likelihood for which training is kept over the start on all cells.
MIN_GAIN = 5e-3


class CountBatch(NamedTuple):
    """A mini-batch of cells, ready for the device."""

    tokens: TokenSet | SparseRows
    counts: SparseRows
    size_B: Tensor


class CountBatches(Dataset[CountBatch]):
    """Mini-batches of cells in an order that changes with every epoch.

    Cells become dense on the device only. Those on disk are read a window ahead.
    """

    def __init__(
        self, cells: CellStore, model: Autoencoder, size: int, *, seed: int | None
    ) -> None:
        self.cells, self.model, self.size, self.seed = cells, model, size, seed
        self.epoch, self.first = 0, 0
        self.order = np.arange(cells.n_cells)
        self.reader = cells.reader(self.order)
        self.shuffle()

    def shuffle(self) -> None:
        """Draw the order of the next epoch."""
        if self.seed is not None:
            rng = np.random.default_rng([self.seed, self.epoch])
            self.order = self.cells.shuffled(rng)
            self.reader = self.cells.reader(self.order)
            self.epoch += 1

    def start_at(self, epoch: int, batch: int) -> None:
        """Begin the next pass at this batch of this epoch of training."""
        # The first order is drawn when the batches are made, the next as each epoch starts.
        self.epoch, self.first = epoch + 1, batch
        self.shuffle()

    def __len__(self) -> int:
        return -(-self.cells.n_cells // self.size)

    def __getitem__(self, i: int) -> CountBatch:
        if i >= len(self):
            raise IndexError(i)
        rows = self.order[i * self.size : (i + 1) * self.size]
        if self.seed is not None:
            rank, world = rank_and_world()
            # A process without a share takes a cell that then counts for nothing.
            rows = rows[rank::world] if rank < len(rows) else rows[:1]
        batch = self.reader.take(rows)
        return CountBatch(
            self.model.tokenize(batch),
            SparseRows.of(batch.counts),
            torch.from_numpy(batch.size_factors),
        )


class CountOrder(Sampler[int]):
    """Batches one after the other, the first pass from where :meth:`CountBatches.start_at` says."""

    def __init__(self, batches: CountBatches) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[int]:
        first, self.batches.first = self.batches.first, 0
        return iter(range(first, len(self.batches)))


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
        counts = self.model.decode(self.model(batch.tokens), batch.size_B)
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


def train_latent(
    model: Autoencoder,
    cells: CellStore,
    config: TrainingConfig,
    *,
    max_epochs: int | None,
    seed: int,
    trainer_arguments: dict[str, Any],
    part: Part | None = None,
    keep_encoder: bool = False,
    keep_start: bool = False,
) -> list[dict[str, float]]:
    """Train the autoencoder in place and return the held-out likelihood after each epoch.

    Parameters
    ----------
    model
        At its linear start, or trained before (see `keep_encoder` and `keep_start`).
    cells
        Training cells; a tenth, at most 20,000, is kept apart to stop by.
    config
        Settings.
    max_epochs
        Bound on the epochs.
    seed
        Of the held-out cells and the order of the rest.
    trainer_arguments
        For :class:`lightning.pytorch.Trainer`.
    part
        Where checkpoints of this stage are; None for none.
    keep_encoder
        Whether only the decoder learns, from where it is, so that latents stay what they are.
    keep_start
        Whether all of it learns from where it is, trained elsewhere, not from its linear start.
    """
    order = np.random.default_rng(seed).permutation(cells.n_cells)
    n_held_out = max(1, min(MAX_HELD_OUT, round(config.held_out_cells * cells.n_cells)))
    held_out = cells.take(np.sort(order[:n_held_out]))
    kept = np.sort(order[n_held_out:])
    rest = cells.select(kept) if len(kept) else held_out
    batches = CountBatches(rest, model, config.latent_batch, seed=seed)
    # About 600 steps, but at least 4 epochs and at most 40.
    adapted = config.latent_epochs or int(np.clip(600 // len(batches), 4, 40))
    n_epochs = adapted if max_epochs is None else min(max_epochs, adapted)
    if not n_epochs:
        return []
    # The linear start is one of the candidates, so it must not have seen the cells that judge it.
    whole, explained = copy.deepcopy(model.state_dict()), model.explained
    if not (keep_encoder or keep_start):
        model.restart(rest, seed)
    encoder = [p for n, p in model.named_parameters() if not n.startswith("decoder.")]
    learning = [p for p in encoder if p.requires_grad]
    for parameter in learning:
        parameter.requires_grad_(not keep_encoder)
    validation = CountBatches(held_out, model, model.batch_size, seed=None)
    accumulated = trainer_arguments.get("accumulate_grad_batches", 1)
    steps_per_epoch = -(-len(batches) // accumulated)
    stage = LatentStage(model, batches, config, n_epochs * steps_per_epoch)
    stage.start_from(validation)
    model.train()
    run_stage(
        stage,
        ResumableLoader(batches, batch_size=None, sampler=CountOrder(batches)),
        batches,
        n_epochs=n_epochs,
        seed=seed,
        trainer_arguments={"num_sanity_val_steps": 0, **trainer_arguments},
        part=part,
        validation=DataLoader(validation, batch_size=None),
    )
    if stage.best < (1 - MIN_GAIN) * stage.at_start:
        model.load_state_dict(stage.best_state)
    else:
        # Nothing learned is worth a tenth of the cells: the start that saw them all.
        model.load_state_dict(whole)
        model.explained = explained
    for parameter in learning:
        parameter.requires_grad_(True)
    model.eval()
    if not keep_encoder:
        model.normalize(cells)
    return stage.history
