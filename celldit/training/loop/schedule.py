"""The learning rate over a training."""

from __future__ import annotations

import numpy as np
import torch
from lightning.pytorch.utilities.types import LRSchedulerConfigType


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
