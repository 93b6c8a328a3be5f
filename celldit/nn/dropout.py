"""Dropout whose mask is cheap to draw on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LEVELS = 2**16


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
