"""To a GPU without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device.

    From ordinary memory a copy to a GPU waits until the work before it is done, so that nothing is
    under way while the next step is prepared; from pinned memory it takes its turn.
    """
    if device.type == "cuda" and x.device.type == "cpu":
        return x.pin_memory().to(device, non_blocking=True)
    return x.to(device)
