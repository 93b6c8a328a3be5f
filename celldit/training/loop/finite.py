"""Training stops at the first loss that is not finite, and says where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from celldit.data.store import CellStore
from celldit.errors import TrainingError, examples
from celldit.training.latents import LatentFile
from celldit.training.saving.checkpoints import SUFFIX


class FiniteLoss(pl.Callback):
    """Stop at a loss of NaN: before the weights take the step, or on one GPU a step later.

    No state that training can go on from holds weights from after such a loss. The training cells
    are asked for their names only then; `checkpoints` is the folder of these, or None. Batches of
    the flow hold latents only, and are looked up in :attr:`latents`, those of the cells, once they
    are made.
    """

    def __init__(self, cells: CellStore | None, checkpoints: Path | None = None) -> None:
        self.cells, self.checkpoints = cells, checkpoints
        self.latents: Tensor | LatentFile | None = None
        self._batch: Any = None
        # A loss that nobody has looked at, its step and its batch.
        self._suspect: tuple[Tensor, int, Any] | None = None

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._batch = batch

    def on_before_backward(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor
    ) -> None:
        self._settle()
        suspect = loss.detach(), trainer.global_step, self._batch
        if loss.is_cuda and trainer.world_size == 1:
            # To look at it now would be to wait for it, with nothing else under way. Of several
            # processes all would have taken the step by the time that one finds out.
            self._suspect = suspect
        else:
            self.check(*suspect)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._settle()

    def on_save_checkpoint(self, trainer: pl.Trainer, *_: Any) -> None:
        # Weights that took a step along NaN must not be kept.
        self._settle()

    def _settle(self) -> None:
        """Look at the loss of the last step, which is known by now."""
        suspect, self._suspect = self._suspect, None
        if suspect is not None:
            self.check(*suspect)

    def check(self, loss: Tensor, step: int, batch: Any, stage: str = "flow") -> None:
        """Refuse a loss of one batch that is not finite.

        TrainingError with stage, step, cells and the folder of the last good checkpoint.
        """
        if torch.isfinite(loss):
            return
        found = self.names_of(batch.x1_BKD)
        raise TrainingError(
            f"The loss of the {stage} stage became {float(loss.detach())} at step {step}, in a "
            f"batch of {len(found)} cells ({examples(found, 5)}); the model is as it was before "
            f"training, and {self._kept()}. Look at these cells, or lower flow_rate in "
            "config=TrainingConfig(...)."
        )

    def _kept(self) -> str:
        if self.checkpoints is None:
            return "no checkpoints are kept"
        if not any(self.checkpoints.glob(f"*{SUFFIX}")):
            return f"there is no checkpoint in {self.checkpoints} yet"
        return f"the last good checkpoint is in {self.checkpoints}"

    def names_of(self, z_BKD: Tensor) -> list[str]:
        """Names of the training cells whose latents these are, shape (B, K, D)."""
        if self.latents is None or self.cells is None:
            return []
        latents = self.latents
        row_of = {latents[i : i + 1].numpy().tobytes(): i for i in range(len(latents))}
        rows = [row_of.get(row.cpu().numpy().tobytes(), -1) for row in z_BKD]
        names = self.cells.names
        return [str(names[i]) for i in rows if i >= 0]
