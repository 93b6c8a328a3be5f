"""GELU whose gradient is cheap on a CPU."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from celldit.nn.on_cpu import trains_on_cpu

_LINEAR = 2 * math.sqrt(2 / math.pi)
_CUBIC = 0.044715 * _LINEAR


class GELU(nn.GELU):
    """:class:`torch.nn.GELU` in its tanh form, ``x sigmoid(2 u)`` with a cubic u.

    On a CPU torch takes a hyperbolic tangent forward and again backward, each longer than the
    matrix product before. In training there is one sigmoid, which takes a fifth of one of them, and
    the slope is kept for the way back, of which there are first derivatives only.
    """

    def __init__(self) -> None:
        super().__init__(approximate="tanh")

    def forward(self, x: Tensor) -> Tensor:
        if not trains_on_cpu(x):
            return super().forward(x)
        y: Tensor = _Gelu.apply(x)
        return y


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        square = x.square()
        share = (square * _CUBIC).add_(_LINEAR).mul_(x).sigmoid_()
        y = x * share
        # The derivative of 2 u, then that of y: s + (1 - s) y (2 u)'.
        slope = square.mul_(3 * _CUBIC).add_(_LINEAR).mul_(y)
        ctx.save_for_backward(share.lerp_(share.new_ones(()), slope))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors
        return gradient * slope
