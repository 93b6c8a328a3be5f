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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias

import torch

from celldit.errors import InputError
from celldit.flow.draws import GeneratorNoise, Noise
from celldit.flow.path import LinearPath, Path, source_from_velocity
from celldit.flow.solvers.base import check_grid
from celldit.flow.solvers.grids import check_n_steps
from celldit.flow.source import GaussianSource
from celldit.flow.velocity import Velocity, evaluate

__all__ = ["Diffusion", "EulerMaruyama", "bump_diffusion", "constant_diffusion", "sigma_diffusion"]

Diffusion: TypeAlias = Callable[[Path, torch.Tensor], torch.Tensor]
"""``diffusion(path, t)``: the diffusion w at times t (B,), before scaling by the strength, (B,)."""


def sigma_diffusion(path: Path, t: torch.Tensor) -> torch.Tensor:
    """Diffusion equal to the weight of the source, w = sigma(t): finite drift at both ends."""
    return path.sigma(t)


def constant_diffusion(path: Path, t: torch.Tensor) -> torch.Tensor:
    """Constant diffusion, w = 1: most stirring near the data, where it needs small steps."""
    return torch.ones_like(t)


def bump_diffusion(path: Path, t: torch.Tensor) -> torch.Tensor:
    """Diffusion in the middle only, w = sin(pi t)**2."""
    return torch.sin(math.pi * t).square()


@dataclass(frozen=True, eq=False)
class EulerMaruyama:
    """Euler-Maruyama steps of the SDE that keeps the flow's marginals.

    Only for flows from a Gaussian source: the score of an anchored flow is unknown. The step on to
    t = 1, where the score has no bound, is the ODE's, and adds no noise.

    Parameters
    ----------
    path
        Path the velocity was learnt on.
    source
        Source of the flow; its position and spread broadcast against the states.
    strength
        Factor on the diffusion, at least 0; at 0 this is Euler's method.
    diffusion
        How the diffusion depends on time.
    noise
        Supply of noise, one draw per step; ``CellNoise`` makes results independent of the batch.

    Raises
    ------
    InputError
        The strength is negative or not finite.
    """

    path: Path = field(default_factory=LinearPath)
    source: GaussianSource = field(default_factory=GaussianSource)
    strength: float = 1.0
    diffusion: Diffusion = sigma_diffusion
    noise: Noise = field(default_factory=GeneratorNoise)

    def __post_init__(self) -> None:
        if not (0 <= self.strength < math.inf):
            raise InputError(
                f"The strength of the SDE must be finite and at least 0, not {self.strength}."
            )

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
        x = x0
        for x in self._states(velocity, x0, grid):  # noqa: B007 (the last one is the result)
            pass
        return x

    def trajectory(self, velocity: Velocity, x0: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        """Carry the states along the grid and keep every one; see :meth:`solve`.

        Returns
        -------
        torch.Tensor
            States at every time of the grid, (T, B, ...).
        """
        return torch.stack([x0, *self._states(velocity, x0, grid)])

    def evaluations(self, n_steps: int) -> int:
        """Evaluations of the field for ``n_steps`` steps, one each."""
        return check_n_steps(n_steps)

    def _states(
        self, velocity: Velocity, x: torch.Tensor, grid: torch.Tensor
    ) -> Iterator[torch.Tensor]:
        times = check_grid(grid)
        if min(times) < 0 or max(times) > 1:
            raise InputError(
                f"The SDE runs within [0, 1], where the path is defined, not from {times[0]} to "
                f"{times[-1]}."
            )
        for n, (t, t_next) in enumerate(pairwise(times)):
            x = self._step(velocity, x, t, t_next, n)  # (B, ...)
            yield x

    def _step(
        self, velocity: Velocity, x: torch.Tensor, t: float, t_next: float, n: int
    ) -> torch.Tensor:
        dt = t_next - t
        v = evaluate(velocity, x, t)  # (B, ...)
        if t_next == 1.0 or self.strength == 0:
            return x + dt * v
        # Scalars of the path in double precision on the host: alike for every dtype and device.
        time = torch.tensor([t], dtype=torch.float64)
        sigma = float(self.path.sigma(time))
        w = self.strength * float(self.diffusion(self.path, time))
        drift = v
        # At t = 1 the state tells nothing about its source: E[x0 | x] is its position, and no score
        # term is left.
        if sigma > 0:
            t_B = torch.full((len(x),), t, dtype=x.dtype, device=x.device)
            x0_mean = source_from_velocity(self.path, v, x, t_B)  # (B, ...)
            drift = v - math.copysign(0.5 * w / sigma, dt) * (x0_mean - self.source.position)
        return x + dt * drift + math.sqrt(w * abs(dt)) * self.source.spread * self.noise(n, x)
