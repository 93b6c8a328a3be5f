r"""Counterfactuals without inversion, by integrating a difference of velocities.

The cell x is noised as the flow's paths are, :math:`\hat x_t = t x + (1 - t) x_0(\epsilon)`, and
the edited cell z moves by what the flow of the target condition would do beyond that of the source
condition,

.. math:: \dot z = E_\epsilon\left[ v'(\hat x'_t + z - x,\, t) - v(\hat x_t,\, t)
          + x'_0 - x_0 \right],

from z = x at the first time to t = 1; the prime marks the target condition. The last term is for
flows that start from a Gaussian that depends on the condition; without it this is FlowEdit. Equal
conditions leave the cell exactly as it was.

References
----------
Kulikov, Kleiner, Huberman-Spiegelglas, Michaeli. FlowEdit: inversion-free text-based editing using
pre-trained flow models. ICCV 2025, arXiv:2412.08629, algorithm 1 (with noise at t = 1 there).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from celldit.flow.noise import Noise
from celldit.flow.path import GaussianSource
from celldit.flow.solvers import Velocity, evaluate, steps_of


class FlowEnd(NamedTuple):
    """One condition: its velocity field, and the Gaussian that its flow starts from."""

    velocity: Velocity
    source: GaussianSource = GaussianSource()


def edit_flow(
    own: FlowEnd, other: FlowEnd, x: Tensor, grid: Tensor, noise: Noise, n_avg: int = 1
) -> Tensor:
    """Edit cells from one condition to another with Euler steps.

    Cells are latents (B, ...) at t = 1. The grid (T,) begins in [0, 1) and ends at 1; later starts
    keep more of the cell and move less. At each step `n_avg` draws of noise are averaged, the k-th
    of them number ``step * n_avg + k``; the spread of the result around its mean shrinks as the
    square root of `n_avg`. ``CellNoise`` makes results independent of the batch.
    """
    z = x
    for step, (t, t_next) in enumerate(steps_of(grid)):
        total = torch.zeros_like(x)
        for k in range(n_avg):
            eps = noise(step * n_avg + k, x)  # (B, ...)
            x0 = own.source(eps)  # (B, ...)
            offset = other.source(eps) - x0  # (B, ...)
            x_t = t * x + (1 - t) * x0  # (B, ...)
            v_other = evaluate(other.velocity, x_t + (z - x) + (1 - t) * offset, t)
            v_own = evaluate(own.velocity, x_t, t)
            total = total + (v_other - v_own + offset)  # (B, ...)
        z = z + (t_next - t) / n_avg * total
    return z
