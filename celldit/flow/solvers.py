r"""Solvers that carry states along a velocity field over a grid of times.

A decreasing grid runs the field backward. Every row of the batch is treated alike and alone, so a
cell's result depends on the rest of its batch only as far as the field's does.

The SDE has the same marginals as the flow. For a Gaussian source, the equations
:math:`dx = (v + \tfrac{w}{2} \nabla\log p_t)\,dt + \sqrt{w}\,dW` forward, and with the sign of the
score reversed backward, have the marginals of :math:`dx = v\,dt` for every :math:`w(t) \ge 0`.
Where a learnt velocity is a little wrong, the score pulls states back to the marginal. The
diffusion of each coordinate is measured in units of its variance in the source, w s**2: then the
spread s of the source drops out of the drift, and so does a covariance in its place.

References
----------
Hairer, Nørsett, Wanner. Solving ordinary differential equations I, section II.1.
Ma et al. SiT: exploring flow and diffusion-based generative models with scalable interpolant
transformers. ECCV 2024, equation 4 and section 2.4.
Albergo, Boffi, Vanden-Eijnden. Stochastic interpolants. arXiv:2303.08797, corollary 18.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from celldit.errors import UnknownNameError
from celldit.flow.noise import Noise
from celldit.flow.path import GaussianSource

Velocity: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""``velocity(x, t)``: states x of shape (B, ...), times t of shape (B,), result shaped like x."""
Field: TypeAlias = Callable[[Tensor, float], Tensor]
"""``field(x, t)``: states (B, ...) and one time for all of them -> velocities (B, ...)."""
Step: TypeAlias = Callable[[Field, Tensor, float, float], Tensor]
"""``step(field, x, t, dt)``: states at t + dt from those at t; dt is negative backward."""


class Solver(Protocol):
    """Carries states along a velocity field over a grid of times."""

    def solve(self, velocity: Velocity, x0: Tensor, grid: Tensor) -> Tensor:
        """Carry states (B, ...) from the first to the last time of a grid (T,); gradients flow.

        Times of the grid are strictly monotone, for the SDE within [0, 1]; they reach the field as
        a tensor of shape (B,) in the dtype of the states.
        """
        ...


def evaluate(velocity: Velocity, x: Tensor, t: float) -> Tensor:
    """Velocities of a batch (B, ...) that shares one time."""
    return velocity(x, torch.as_tensor(t, dtype=x.dtype, device=x.device).expand(x.shape[0]))


def steps_of(grid: Tensor) -> Iterator[tuple[float, float]]:
    """Start and end of each step of a grid (T,).

    They are double precision numbers on the host, so that neither the device nor the dtype of the
    states changes them.
    """
    times: list[float] = grid.detach().to("cpu", torch.float64).tolist()
    return pairwise(times)


def euler(field: Field, x: Tensor, t: float, dt: float) -> Tensor:
    r""":math:`x + h\, v(x, t)`: order 1, exact in one step where trajectories are straight."""
    return x + dt * field(x, t)


def heun(field: Field, x: Tensor, t: float, dt: float) -> Tensor:
    r""":math:`x + \tfrac{h}{2}(k_1 + k_2)`, the explicit trapezoidal rule: order 2."""
    k1 = field(x, t)
    k2 = field(x + dt * k1, t + dt)
    return x + 0.5 * dt * (k1 + k2)


def rk4(field: Field, x: Tensor, t: float, dt: float) -> Tensor:
    r""":math:`x + \tfrac{h}{6}(k_1 + 2 k_2 + 2 k_3 + k_4)`, the classical method: order 4."""
    half = 0.5 * dt
    k1 = field(x, t)
    k2 = field(x + half * k1, t + half)
    k3 = field(x + half * k2, t + half)
    k4 = field(x + dt * k3, t + dt)
    return x + (dt / 6.0) * (k1 + 2.0 * (k2 + k3) + k4)


STEPS: dict[str, Step] = {"euler": euler, "heun": heun, "rk4": rk4}
SOLVERS: tuple[str, ...] = (*STEPS, "sde")
"""Names of solvers; the last is :class:`EulerMaruyama`, which needs its noise."""


@dataclass(frozen=True)
class FixedStep:
    """A solver that takes exactly the steps of its grid, each by one of the functions above."""

    step: Step

    def solve(self, velocity: Velocity, x0: Tensor, grid: Tensor) -> Tensor:
        """As :meth:`Solver.solve`."""
        x = x0
        for t, t_next in steps_of(grid):
            x = self.step(lambda x, t: evaluate(velocity, x, t), x, t, t_next - t)  # (B, ...)
        return x


def resolve_solver(name: str) -> FixedStep:
    """Find a solver with fixed steps by name, ``"euler"``, ``"heun"`` or ``"rk4"``.

    UnknownNameError if no solver has that name.
    """
    if not isinstance(name, str) or name not in STEPS:
        raise UnknownNameError.among("solver", name, SOLVERS)
    return FixedStep(STEPS[name])


@dataclass(frozen=True, eq=False)
class EulerMaruyama:
    """Euler-Maruyama steps of the SDE that keeps the flow's marginals, a draw of noise for each.

    Only for flows from a Gaussian source: the score of an anchored flow is unknown. The diffusion
    is the weight of the source, w = 1 - t, with which the drift is finite at both ends. The step on
    to t = 1, where the score has no bound, is the ODE's, and adds no noise. ``CellNoise`` makes
    results independent of the batch.
    """

    noise: Noise
    source: GaussianSource = field(default_factory=GaussianSource)

    def solve(self, velocity: Velocity, x0: Tensor, grid: Tensor) -> Tensor:
        """As :meth:`Solver.solve`."""
        x = x0
        for n, (t, t_next) in enumerate(steps_of(grid)):
            x = self._step(velocity, x, t, t_next, n)  # (B, ...)
        return x

    def _step(self, velocity: Velocity, x: Tensor, t: float, t_next: float, n: int) -> Tensor:
        dt, w = t_next - t, 1 - t
        v = evaluate(velocity, x, t)  # (B, ...)
        # At t = 1 the state tells nothing about its source, and no score term is left.
        if t_next == 1.0 or w == 0:
            return x + dt * v
        x0_mean = x - t * v  # the mean of the source given the point, (B, ...)
        drift = v - math.copysign(0.5, dt) * (x0_mean - self.source.position)
        return x + dt * drift + math.sqrt(w * abs(dt)) * self.source.scatter(self.noise(n, x))
