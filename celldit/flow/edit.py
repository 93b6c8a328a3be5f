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

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from celldit.flow.noise import Noise
from celldit.flow.path import GaussianSource
from celldit.flow.solvers import Velocity, check_grid, evaluate

__all__ = ["FlowEnd", "edit_flow"]


class FlowEnd(NamedTuple):
    """One condition: its velocity field, and the Gaussian that its flow starts from."""

    velocity: Velocity
    source: GaussianSource = GaussianSource()


def edit_flow(
    own: FlowEnd, other: FlowEnd, x: Tensor, grid: Tensor, noise: Noise, n_avg: int = 1
) -> Tensor:
    """Edit cells from one condition to another with Euler steps.

    Parameters
    ----------
    own, other
        The cells' own condition, and the one asked for.
    x
        Latent cells, (B, ...), at t = 1.
    grid
        Times from the start of the edit, in [0, 1), to 1, (T,); later starts keep more of the cell
        and move less.
    noise
        Supply of noise, draw ``step * n_avg + k`` for the k-th average; ``CellNoise`` makes results
        independent of the batch.
    n_avg
        Draws of noise averaged at each step; the spread of the result around its mean shrinks as
        its square root.

    Returns
    -------
    Tensor
        Edited cells, (B, ...); cell i of the input is cell i of the result.

    Raises
    ------
    InputError
        The grid cannot be used, or shapes do not fit.
    """
    z = x
    for step, (t, t_next) in enumerate(pairwise(check_grid(grid))):
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
