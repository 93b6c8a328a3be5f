"""RMS normalisation that is cheap under autocast."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm


class RMSNorm(nn.RMSNorm):
    """:class:`torch.nn.RMSNorm` over the last dimension.

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
