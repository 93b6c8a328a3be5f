"""RMS normalisation that is cheap on a CPU, and under autocast."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import rms_norm

from celldit.nn.on_cpu import trains_on_cpu


class RMSNorm(nn.RMSNorm):
    """:class:`torch.nn.RMSNorm` over the last dimension.

    On a CPU torch derives the gradient in a dozen passes; there it is written out. What comes in
    half precision stays in it, where torch would leave its fused kernel for the weight's sake.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype in (torch.float16, torch.bfloat16):
            weight = None if self.weight is None else self.weight.to(x.dtype)
            # Versions of torch differ in whether autocast takes norms to single precision.
            known = x.device.type in ("cpu", "cuda")
            with torch.autocast(x.device.type, enabled=False) if known else nullcontext():
                return rms_norm(x, self.normalized_shape, weight, self.eps)
        if not trains_on_cpu(x):
            return super().forward(x)
        eps = torch.finfo(x.dtype).eps if self.eps is None else self.eps
        y: Tensor = _Normalise.apply(x, eps)
        return y if self.weight is None else y * self.weight


def rms_forward(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """``y = x / r`` with ``r² = mean(x²) + eps``, and ``1 / r``."""
    inverse = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    inverse = inverse.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    return x * inverse, inverse


def rms_backward(gradient: Tensor, y: Tensor, inverse: Tensor) -> Tensor:
    """Gradient of x from that of y: ``(g - y mean(g y)) / r``."""
    along = (gradient * y).mean(-1, keepdim=True)
    return torch.addcmul(gradient, y, along, value=-1).mul_(inverse)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        y, inverse = rms_forward(x, eps)
        ctx.save_for_backward(y, inverse)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return rms_backward(gradient, *ctx.saved_tensors), None
