"""Run a stage with Lightning such that it can be stopped at any moment and gone on with."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from torch.utils.data import DataLoader

from celldit.training.flow_data import FlowBatches
from celldit.training.loop.trainer import listed
from celldit.training.saving.checkpoints import Part

# Batches between two agreements of several processes on whether it is time for a checkpoint.
AGREE_EVERY = 8


class StateIO(TorchCheckpointIO):
    """Lightning's checkpoints of a part of training as files without pickle.

    Other paths, such as those of the user's own callbacks, are left to Lightning.
    """

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.part = part

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        if str(path) == str(self.part.path):
            self.part.keep(checkpoint)
        else:
            super().save_checkpoint(checkpoint, path, storage_options)

    def load_checkpoint(self, path: Any, *args: Any, **options: Any) -> dict[str, Any]:
        if str(path) != str(self.part.path):
            return super().load_checkpoint(path, *args, **options)
        progress = self.part.in_progress()
        assert progress is not None
        return progress


class ResumableLoader(DataLoader[Any]):
    """A loader that Lightning may trust in the middle of an epoch: its source knows where it is."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing: :class:`KeepState` holds the position."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do."""


class KeepState(pl.Callback):
    """Keep the state of training every so often, random numbers and position in the data included.

    A state is only kept between two batches of an epoch, after the step of the optimiser, so that
    whatever was running when the process died is run again as a whole.
    """

    def __init__(self, part: Part, source: FlowBatches) -> None:
        self.part, self.source = part, source
        self.stop_asked: int | None = None
        self._kept_at = time.monotonic()
        self._epoch, self._batches = 0, 0
        self._random: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Position and random number generators, for the checkpoint."""
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {
            "epoch": self._epoch,
            "batches": self._batches,
            "random": {"cpu": torch.random.get_rng_state(), "cuda": cuda},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to the position; random numbers wait for the first batch, as loaders draw some."""
        self.source.start_at(state["epoch"], state["batches"])
        self._random = state["random"]

    def on_train_batch_start(self, *_: Any) -> None:
        if self._random is None:
            return
        torch.random.set_rng_state(self._random["cpu"])
        if len(self._random["cuda"]) == torch.cuda.device_count() > 0:
            torch.cuda.set_rng_state_all(self._random["cuda"])
        self._random = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._epoch, self._batches = trainer.current_epoch, batch_idx + 1
        # Gradients that wait for more batches are in no checkpoint, and an epoch that is over has
        # its end still to come.
        if trainer.is_last_batch or self._batches % trainer.accumulate_grad_batches:
            return
        minutes = self.part.checkpoints.minutes
        due = time.monotonic() - self._kept_at >= 60 * minutes or self.stop_asked is not None
        if trainer.world_size > 1:
            if self._batches % AGREE_EVERY and minutes:
                return
            due = trainer.strategy.reduce_boolean_decision(due, all=False)
        if due:
            trainer.save_checkpoint(self.part.path)
            self._kept_at = time.monotonic()
        if self.stop_asked is not None:
            raise KeyboardInterrupt


@contextmanager
def _stop_between_batches(keeper: KeepState) -> Iterator[None]:
    """Answer the first Ctrl-C (or SIGTERM) after the next batch, with a checkpoint; the second now.

    KeyboardInterrupt says how to go on.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # A job in the background ignores Ctrl-C, and goes on doing so.
    before = {number: old for number, old in before.items() if old is not signal.SIG_IGN}

    def answer(number: int) -> None:
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, None)
        sys.exit(128 + number)

    def ask(number: int, frame: FrameType | None) -> None:
        if keeper.stop_asked is not None:
            answer(number)
        keeper.stop_asked = number

    for number in before:
        signal.signal(number, ask)
    try:
        yield
        if keeper.stop_asked is not None:  # after the last batch, which looks no more
            raise KeyboardInterrupt
    except (KeyboardInterrupt, SystemExit) as error:
        if keeper.stop_asked is None:
            raise
        try:
            answer(keeper.stop_asked)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"training was stopped; the checkpoint in {keeper.part.checkpoints.folder} is "
                "whole, and the same call goes on from there"
            ) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run_stage(
    stage: pl.LightningModule,
    source: FlowBatches,
    *,
    n_epochs: int,
    seed: int,
    trainer_arguments: dict[str, Any],
    part: Part | None,
) -> None:
    """Fit a stage on batches for a number of epochs in all, from where a checkpoint left it.

    The seed is that of torch's global stream, from which dropout draws; the caller's stream is left
    alone. Without a `part` nothing is kept.
    """
    loader = ResumableLoader(source, batch_size=None)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if part is None:
            trainer = pl.Trainer(max_epochs=n_epochs, **trainer_arguments)
            trainer.fit(stage, loader)
            return
        keeper = KeepState(part, source)
        arguments = {
            **trainer_arguments,
            "callbacks": [*trainer_arguments.get("callbacks", []), keeper],
            "plugins": [*listed(trainer_arguments.get("plugins")), StateIO(part)],
        }
        begun = part.in_progress() is not None
        with _stop_between_batches(keeper):
            trainer = pl.Trainer(max_epochs=n_epochs, **arguments)
            trainer.fit(stage, loader, ckpt_path=os.fspath(part.path) if begun else None)
