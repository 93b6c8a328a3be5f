"""Layers that torch lacks, or has too slowly for small sets of tokens."""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm

_LEVELS = 2**16
MAX_PERIOD = 10_000.0
"""The longest period of the features of a time, in units of t / 1000."""


def zero_linear(n_in: int, n_out: int) -> nn.Linear:
    """A linear layer that returns zero until trained."""
    layer = nn.Linear(n_in, n_out)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class PerTokenLinear(nn.Module):
    """Map token k by its own weight: ``y[b, k] = x[b, k] @ weight[k] + bias[k]``.

    Latent tokens are different things (one holds an interferon programme, the next the cell cycle),
    so sharing one projection among them makes the flow fail. With `zero` the map is silent until
    trained.
    """

    def __init__(self, n_tokens: int, n_in: int, n_out: int, *, zero: bool = False) -> None:
        super().__init__()
        bound = 0.0 if zero else 1 / math.sqrt(n_in)
        self.weight = nn.Parameter(torch.empty(n_tokens, n_in, n_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(n_tokens, n_out))

    def forward(self, x_BKI: Tensor) -> Tensor:
        # (K, B, I) @ (K, I, O) -> (K, B, O): one batched matrix product
        y_KBO = torch.bmm(x_BKI.transpose(0, 1), self.weight.to(x_BKI.dtype))
        # Else everything after would stay in the product's order, which each linear layer copies.
        return y_KBO.transpose(0, 1).contiguous() + self.bias.to(x_BKI.dtype)


class RMSNorm(nn.RMSNorm):
    """:class:`torch.nn.RMSNorm` over the last dimension, cheap under autocast.

    What comes in half precision stays in it, where torch would leave its fused kernel for the
    weight's sake.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype not in (torch.float16, torch.bfloat16):
            return super().forward(x)
        weight = None if self.weight is None else self.weight.to(x.dtype)
        # Versions of torch differ in whether autocast takes norms to single precision.
        known = x.device.type in ("cpu", "cuda")
        with torch.autocast(x.device.type, enabled=False) if known else nullcontext():
            return rms_norm(x, self.normalized_shape, weight, self.eps)


def kept(x: Tensor, share: float) -> Tensor:
    """What dropout multiplies by: zero for a share of the elements, else what keeps the mean.

    torch draws 64 bits for each element on a CPU, which takes longer than the matrix product
    before. Here are 16, so the share is a multiple of 2⁻¹⁶.
    """
    n_dropped = round(share * _LEVELS)
    if n_dropped == _LEVELS:
        return torch.zeros_like(x)
    # Four draws in each integer, over its whole range, sign included.
    bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    mask = torch.empty(x.shape, dtype=x.dtype)
    threshold = n_dropped - _LEVELS // 2
    torch.ge(bits.view(torch.int16)[: x.numel()].view(x.shape), threshold, out=mask)
    return mask.mul_(_LEVELS / (_LEVELS - n_dropped))


class Dropout(nn.Dropout):
    """:class:`torch.nn.Dropout`, on a CPU with :func:`kept`."""

    def forward(self, x: Tensor) -> Tensor:
        plain = x.device.type == "cpu" and x.dtype == torch.float32
        if not (self.training and self.p and plain):
            return super().forward(x)
        return x * kept(x, self.p)


def sinusoid(t_B: Tensor, width: int) -> Tensor:
    """Sinusoidal features of times in [0, 1], shape (B, width), for an even width.

    The time is scaled by 1000 first, so that the slowest and fastest of the usual transformer
    frequencies (Vaswani et al. 2017) both vary over the unit interval.
    """
    half = width // 2
    exponent = torch.arange(half, device=t_B.device, dtype=torch.float32) / half
    angle_BH = 1000.0 * t_B.float()[:, None] * torch.exp(-math.log(MAX_PERIOD) * exponent)
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
