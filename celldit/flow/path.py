r"""The straight path from a source (t = 0) to data (t = 1), and a Gaussian that it may start at.

:math:`x_t = (1 - t)\, x_0 + t\, x_1` moves at the velocity :math:`x_1 - x_0`, whose mean given
:math:`x_t` the network learns.

References
----------
Liu, Gong, Liu. Flow straight and fast: learning to generate and transfer data with rectified flow.
ICLR 2023.
Kingma, Salimans, Poole, Ho. Variational diffusion models. NeurIPS 2021, appendix I.1 (times spread
evenly within a batch).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# 1 - 2**-24 is the largest float32 below 1; the same distance is kept from 0.
_EDGE = 2.0**-24


def on_path(x0: Tensor, x1: Tensor, t_B: Tensor) -> tuple[Tensor, Tensor]:
    """Points on the path from x0 to x1 at times t, and their velocities, the regression target.

    Source and data are both (B, ...), times in [0, 1].
    """
    t = per_row(t_B, x1)
    return (1 - t) * x0 + t * x1, x1 - x0


def per_row(t: Tensor, x: Tensor) -> Tensor:
    """Give times of shape (B,) the trailing axes of x, so that they act row by row: (B, 1, ...)."""
    return t.reshape(-1, *(1,) * (x.ndim - 1))


def stratified_times(batch: int, generator: torch.Generator | None = None) -> Tensor:
    """One time from each of B equally long parts of (0, 1), in random order, float32 (B,).

    The batch covers the whole path every time, so the loss varies less between steps. Draws never
    reach 0 or 1. They are made in double precision on the CPU, from the global generator if None
    is given.
    """
    u_B = torch.rand(batch, generator=generator, dtype=torch.float64)
    order_B = torch.randperm(batch, generator=generator)
    return ((order_B + u_B) / batch).to(torch.float32).clamp(_EDGE, 1 - _EDGE)


@dataclass(frozen=True, eq=False)
class GaussianSource:
    """Independent Gaussian coordinates, for generation: x0 = position + spread * noise.

    Standard normal by default. The score of a flow, and so the SDE, is known for these sources.
    Mean and standard deviation are in latent units, numbers or tensors that broadcast against the
    states (B, ...).
    """

    position: float | Tensor = 0.0
    spread: float | Tensor = 1.0

    def __call__(self, noise: Tensor) -> Tensor:
        """Start points (B, ...) from standard normal noise (B, ...)."""
        return self.position + self.scatter(noise)

    def scatter(self, noise: Tensor) -> Tensor:
        """Give standard normal noise (B, ...) the scatter of the source."""
        return self.spread * noise
