"""Stage one: the decoder learns the likelihood of counts, from its linear start."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from celldit.latent.autoencoder import Autoencoder
from celldit.training.autoencoder.batches import CountBatches
from celldit.training.autoencoder.likelihood import LatentStage, maximize
from celldit.training.config import TrainingConfig

if TYPE_CHECKING:
    from celldit.data.store import CellStore
    from celldit.training.saving.checkpoints import Part

# Most cells to stop by: more say nothing new, and they stay in memory.
MAX_HELD_OUT = 20_000
# Least relative gain in held-out likelihood for which training is kept over the start on all cells.
MIN_GAIN = 5e-3


def held_out_and_kept(
    n_cells: int, config: TrainingConfig, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the cells to stop by, and of all others, each sorted."""
    order = np.random.default_rng(seed).permutation(n_cells)
    n_held_out = max(1, min(MAX_HELD_OUT, round(config.held_out_cells * n_cells)))
    return np.sort(order[:n_held_out]), np.sort(order[n_held_out:])


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
        Whether latents stay what they are, to their scale.
    keep_start
        Whether the decoder learns from where it is, not from a linear start on fewer cells.
    """
    apart, kept = held_out_and_kept(cells.n_cells, config, seed)
    held_out = cells.take(apart)
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
    accumulated = trainer_arguments.get("accumulate_grad_batches", 1)
    n_steps = n_epochs * -(-len(batches) // accumulated)
    validation = CountBatches(held_out, model, model.batch_size, seed=None)
    stage = LatentStage(model, batches, config, n_steps)
    maximize(
        stage,
        validation,
        n_epochs=n_epochs,
        seed=seed,
        trainer_arguments=trainer_arguments,
        part=part,
    )
    if stage.best < (1 - MIN_GAIN) * stage.at_start:
        model.load_state_dict(stage.best_state)
    else:
        # Nothing learned is worth a tenth of the cells: the start that saw them all.
        model.load_state_dict(whole)
        model.explained = explained
    model.eval()
    if not keep_encoder:
        model.normalize(cells)
    return stage.history
