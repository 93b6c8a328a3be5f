"""Embedding of the flow time."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def sinusoid(t_B: Tensor, width: int, max_period: float = 10_000.0) -> Tensor:
    """Sinusoidal features of a time in [0, 1].

    The time is scaled by 1000 first, so that the slowest and fastest of the usual transformer
    frequencies (Vaswani et al. 2017) both vary over the unit interval.

    Parameters
    ----------
    t_B
        Times, shape (B,).
    width
        Number of features, even.
    max_period
        The longest period, in units of t / 1000.

    Returns
    -------
    Tensor
        Features, shape (B, width).
    """
    half = width // 2
    exponent = torch.arange(half, device=t_B.device, dtype=torch.float32) / half
    angle_BH = 1000.0 * t_B.float()[:, None] * torch.exp(-math.log(max_period) * exponent)
    return torch.cat([angle_BH.cos(), angle_BH.sin()], dim=1)


class TimeEmbedding(nn.Module):
    """Two-layer perceptron on sinusoidal features of the flow time."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.first = nn.Linear(width, width)
        self.layers = nn.Sequential(self.first, nn.SiLU(), nn.Linear(width, width))

    def forward(self, t_B: Tensor) -> Tensor:
        return self.layers(sinusoid(t_B, self.width).to(self.first.weight.dtype))  # (B, W)
