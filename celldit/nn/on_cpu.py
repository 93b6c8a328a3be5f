"""When functions with a gradient of their own take the place of torch's."""

from __future__ import annotations

import torch
from torch import Tensor


def trains_on_cpu(x: Tensor) -> bool:
    """Whether a gradient will flow through `x`, in single precision on a CPU."""
    trains = x.requires_grad and torch.is_grad_enabled()
    return trains and x.device.type == "cpu" and x.dtype == torch.float32
