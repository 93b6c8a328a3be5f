r"""A stochastic sampler with the same marginals as the flow.

For a Gaussian source, the equations
:math:`dx = (v + \tfrac{w}{2} \nabla\log p_t)\,dt + \sqrt{w}\,dW` forward, and with the sign of the
score reversed backward, have the marginals of :math:`dx = v\,dt` for every :math:`w(t) \ge 0`.
Where a learnt velocity is a little wrong, the score pulls states back to the marginal. The
diffusion of each coordinate is measured in units of its variance in the source, w s**2: then the
spread s of the source drops out of the drift.

References
----------
Ma et al. SiT: exploring flow and diffusion-based generative models with scalable interpolant
transformers. ECCV 2024, equation 4 and section 2.4.
Albergo, Boffi, Vanden-Eijnden. Stochastic interpolants. arXiv:2303.08797, corollary 18.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

import torch

from celldit.errors import InputError
from celldit.flow.draws import Noise
from celldit.flow.path import LinearPath, Path, source_from_velocity
from celldit.flow.solvers.base import check_grid
from celldit.flow.source import GaussianSource
from celldit.flow.velocity import Velocity, evaluate

__all__ = ["EulerMaruyama"]


@dataclass(frozen=True, eq=False)
class EulerMaruyama:
    r"""Euler-Maruyama steps of the SDE that keeps the flow's marginals.

    Only for flows from a Gaussian source: the score of an anchored flow is unknown. The diffusion
    is the weight of the source, :math:`w = \sigma(t)`, with which the drift is finite at both ends.
    The step on to t = 1, where the score has no bound, is the ODE's, and adds no noise.

    Parameters
    ----------
    noise
        Supply of noise, one draw per step; ``CellNoise`` makes results independent of the batch.
    source
        Source of the flow; its position and spread broadcast against the states.
    path
        Path the velocity was learnt on.
    """

    noise: Noise
    source: GaussianSource = field(default_factory=GaussianSource)
    path: Path = field(default_factory=LinearPath)

    def solve(self, velocity: Velocity, x0: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        """Carry the states to the last time of the grid.

        Parameters
        ----------
        velocity
            The field, ``velocity(x, t)``, of a flow from the Gaussian source.
        x0
            States at ``grid[0]``, (B, ...).
        grid
            Times in [0, 1], (T,), strictly monotone.

        Returns
        -------
        torch.Tensor
            States at ``grid[-1]``, (B, ...).

        Raises
        ------
        InputError
            The grid cannot be used, or the field returns another shape than that of the states.
        """
        times = check_grid(grid)
        if min(times) < 0 or max(times) > 1:
            raise InputError(
                f"The SDE runs within [0, 1], where the path is defined, not from {times[0]} to "
                f"{times[-1]}."
            )
        x = x0
        for n, (t, t_next) in enumerate(pairwise(times)):
            x = self._step(velocity, x, t, t_next, n)  # (B, ...)
        return x

    def _step(
        self, velocity: Velocity, x: torch.Tensor, t: float, t_next: float, n: int
    ) -> torch.Tensor:
        dt = t_next - t
        v = evaluate(velocity, x, t)  # (B, ...)
        # Scalars of the path in double precision on the host: alike for every dtype and device.
        w = float(self.path.sigma(torch.tensor([t], dtype=torch.float64)))
        # At t = 1 the state tells nothing about its source, and no score term is left.
        if t_next == 1.0 or w == 0:
            return x + dt * v
        t_B = torch.full((len(x),), t, dtype=x.dtype, device=x.device)
        x0_mean = source_from_velocity(self.path, v, x, t_B)  # (B, ...)
        drift = v - math.copysign(0.5, dt) * (x0_mean - self.source.position)
        return x + dt * drift + math.sqrt(w * abs(dt)) * self.source.spread * self.noise(n, x)
