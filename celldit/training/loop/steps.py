"""Steps of the weights: gradients no longer than a bound, and the rate over a training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from lightning.pytorch.utilities.types import LRSchedulerConfigType
from torch import Tensor, nn

EPS = 1e-6
"""What torch adds to the norm."""
SMALL = 1_000_000
"""Weights up to which one norm is cheaper, and in float32 right to the fifth digit."""


@torch.no_grad()
def clip_norm_(weights: Sequence[Tensor], bound: float) -> None:
    """Scale the gradients of all weights so that together their norm is at most a bound.

    It is :func:`torch.nn.utils.clip_grad_norm_` but for rounding. On a CPU that takes a norm for
    each weight, and multiplies by one where there is nothing to clip; here there is one norm, which
    is looked at. On other devices to look would be to wait, and for many weights a joint copy costs
    more than it saves, so there it is torch's. Weights without a gradient are left out.
    """
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    n_weights = sum(gradient.numel() for gradient in gradients)
    if n_weights == 0 or n_weights > SMALL or gradients[0].device.type != "cpu":
        nn.utils.clip_grad_norm_(weights, bound)
        return
    norm = torch.linalg.vector_norm(torch.cat([gradient.flatten() for gradient in gradients]))
    share = bound / (norm + EPS)
    # Also where it is not a number, as torch does.
    if not share >= 1:
        torch._foreach_mul_(gradients, float(share))


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
