r"""Counterfactuals without inversion, by integrating a difference of velocities.

The cell x is noised as the flow's paths are,
:math:`\hat x_t = \alpha_t x + \sigma_t x_0(\epsilon)`, and the edited cell z moves by what the flow
of the target condition would do beyond that of the source condition,

.. math:: \dot z = E_\epsilon\left[ v'(\hat x'_t + z - x,\, t) - v(\hat x_t,\, t)
          - \dot\sigma_t\,(x'_0 - x_0) \right],

from z = x at t_start to t = 1; the prime marks the target condition. The last term is for flows
that start from a Gaussian that depends on the condition; without it this is FlowEdit. Equal
conditions leave the cell exactly as it was.

References
----------
Kulikov, Kleiner, Huberman-Spiegelglas, Michaeli. FlowEdit: inversion-free text-based editing using
pre-trained flow models. ICCV 2025, arXiv:2412.08629, algorithm 1 (with noise at t = 1 there).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import torch

from celldit.errors import InputError
from celldit.flow.draws import Noise
from celldit.flow.path import LinearPath, Path
from celldit.flow.solvers.base import check_grid
from celldit.flow.solvers.grids import Grid, uniform_grid
from celldit.flow.source import GaussianSource
from celldit.flow.velocity import Velocity, evaluate

__all__ = ["FlowEdit"]


@dataclass(frozen=True, eq=False)
class FlowEdit:
    """Edit cells from one condition to another along flows from Gaussian sources.

    Parameters
    ----------
    n_avg
        Draws of noise averaged at each step; the spread of the result around its mean shrinks as
        its square root.
    t_start
        Time at which the edit starts, in [0, 1); later starts keep more of the cell and move less.
    path
        Path the velocities were learnt on.
    grid
        How the steps are spread over [t_start, 1].

    Raises
    ------
    InputError
        ``n_avg`` is not a positive integer or ``t_start`` outside [0, 1).
    """

    n_avg: int = 1
    t_start: float = 0.0
    path: Path = field(default_factory=LinearPath)
    grid: Grid = uniform_grid

    def __post_init__(self) -> None:
        if isinstance(self.n_avg, bool) or not isinstance(self.n_avg, int) or self.n_avg < 1:
            raise InputError(f"n_avg must be a positive integer, not {self.n_avg!r}.")
        if not (0 <= self.t_start < 1):
            raise InputError(
                f"t_start must be in [0, 1), where 0 is noise and 1 data, not {self.t_start}."
            )

    def edit(
        self,
        velocity_source: Velocity,
        velocity_target: Velocity,
        x: torch.Tensor,
        n_steps: int,
        noise: Noise,
        start_source: GaussianSource | None = None,
        start_target: GaussianSource | None = None,
    ) -> torch.Tensor:
        """Edit the cells with Euler steps.

        Parameters
        ----------
        velocity_source
            Velocity under the cells' own condition.
        velocity_target
            Velocity under the condition asked for.
        x
            Latent cells, (B, ...), at t = 1.
        n_steps
            Number of steps, positive.
        noise
            Supply of noise, draw ``step * n_avg + k`` for the k-th average; ``CellNoise`` makes
            results independent of the batch.
        start_source
            Where the flow of the cells' own condition starts; standard normal when None.
        start_target
            Where the flow of the condition asked for starts; as ``start_source`` when None.

        Returns
        -------
        torch.Tensor
            Edited cells, (B, ...); cell i of the input is cell i of the result.

        Raises
        ------
        InputError
            The number of steps is not a positive integer, or shapes do not fit.
        """
        start = GaussianSource() if start_source is None else start_source
        start_there = start if start_target is None else start_target
        times = check_grid(self.grid(n_steps, self.t_start, 1.0))
        z = x
        for step, (t, t_next) in enumerate(pairwise(times)):
            alpha, sigma, d_sigma = self._coefficients(t)
            total = torch.zeros_like(x)
            for k in range(self.n_avg):
                eps = noise(step * self.n_avg + k, x)  # (B, ...)
                x0 = start(eps)  # (B, ...)
                offset = start_there(eps) - x0  # (B, ...)
                x_t = alpha * x + sigma * x0  # (B, ...)
                v_target = evaluate(velocity_target, x_t + (z - x) + sigma * offset, t)
                v_source = evaluate(velocity_source, x_t, t)
                total = total + (v_target - v_source - d_sigma * offset)  # (B, ...)
            z = z + (t_next - t) / self.n_avg * total
        return z

    def _coefficients(self, t: float) -> tuple[float, float, float]:
        # In double precision on the host: alike for every dtype and device.
        time = torch.tensor([t], dtype=torch.float64)
        path = self.path
        return float(path.alpha(time)), float(path.sigma(time)), float(path.d_sigma(time))
