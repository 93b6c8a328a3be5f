"""Training times, spread evenly over the whole path in every batch.

References
----------
Kingma, Salimans, Poole, Ho. Variational diffusion models. NeurIPS 2021, appendix I.1 (evenly
spread times within a batch).
"""

from __future__ import annotations

import torch

from celldit.flow.transfer import to_device

__all__ = ["stratified_times"]

# 1 - 2**-24 is the largest float32 below 1; the same distance is kept from 0.
_EDGE = 2.0**-24


def stratified_times(
    batch: int,
    device: torch.device | None = None,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """One time from each of B equally long parts of (0, 1), in random order.

    The batch covers the whole path every time, so the loss varies less between steps. Draws never
    reach 0 or 1, where the conditional velocity of some paths carries no information.

    Parameters
    ----------
    batch
        B, at least 1.
    device
        Where the times go; the CPU when None.
    generator
        Draws on the CPU; the global one when None.

    Returns
    -------
    torch.Tensor
        Shape (B,), float32.
    """
    # Drawn in double precision on the CPU, then moved.
    u_B = torch.rand(batch, generator=generator, dtype=torch.float64)
    order_B = torch.randperm(batch, generator=generator)
    t_B = ((order_B + u_B) / batch).to(torch.float32).clamp(_EDGE, 1 - _EDGE)
    return t_B if device is None else to_device(t_B, device)
