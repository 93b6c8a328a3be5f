"""One progress bar per stage of training."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import lightning.pytorch as pl
from rich import get_console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LABELS = {
    "error_over_prior": "error over the effect model's",
    "velocity_error": "velocity error",
}


class StageProgress(pl.callbacks.ProgressBar):
    """A bar over the epochs of a stage, named at the left, with its latest numbers."""

    def __init__(self, stage: str) -> None:
        super().__init__()
        self.stage = stage
        self.enabled = True
        self.progress: Progress | None = None

    def disable(self) -> None:
        self.enabled = False

    def enable(self) -> None:
        self.enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.enabled:
            return
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("epoch {task.completed:.0f}/{task.total}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[numbers]}"),
            disable=without_widgets(),
        )
        self.progress.add_task(
            f"training {self.stage}",
            total=trainer.max_epochs,
            completed=trainer.current_epoch,
            numbers="",
        )
        self.progress.start()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.progress is None:
            return
        shown = {n: v for n, v in trainer.callback_metrics.items() if n in LABELS}
        numbers = "  ".join(f"{LABELS[n]} {float(v):.4g}" for n, v in shown.items())
        self.progress.update(
            self.progress.task_ids[0], completed=trainer.current_epoch + 1, numbers=numbers
        )

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None


def without_widgets() -> bool:
    """Whether this is a notebook that cannot draw a bar, where rich would warn at every step."""
    return get_console().is_jupyter and find_spec("ipywidgets") is None
