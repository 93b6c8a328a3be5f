"""Gradients no longer than a bound, cheaply for the many small weights of a network on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch
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
    more than it saves, so there it is torch's.

    Parameters
    ----------
    weights
        Those without a gradient are left out.
    bound
        Largest norm.
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
