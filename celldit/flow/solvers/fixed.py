"""Solvers that take exactly the steps of their grid; what one step does is a part put in.

Every row of the batch is treated alike and alone, so a cell's result depends on the rest of its
batch only as far as the field's does.

References
----------
Hairer, Nørsett, Wanner. Solving ordinary differential equations I, section II.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

from torch import Tensor

from celldit.errors import UnknownNameError
from celldit.flow.solvers.base import check_grid
from celldit.flow.velocity import Velocity, evaluate

__all__ = ["SOLVERS", "FixedStep", "resolve_solver"]

Field: TypeAlias = Callable[[Tensor, float], Tensor]
"""``field(x, t)``: states (B, ...) and one time for all of them -> velocities (B, ...)."""
Step: TypeAlias = Callable[[Field, Tensor, float, float], Tensor]
"""``step(field, x, t, dt)``: states at t + dt from those at t; dt is negative backward."""


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
"""Names of solvers; the last is made by its source and noise, :mod:`celldit.flow.solvers.sde`."""


@dataclass(frozen=True)
class FixedStep:
    """A solver of one of the steps above.

    Attributes
    ----------
    step
        What one step does.
    """

    step: Step

    def solve(self, velocity: Velocity, x0: Tensor, grid: Tensor) -> Tensor:
        """Carry the states to the last time of the grid.

        Parameters
        ----------
        velocity
            The field, ``velocity(x, t)``.
        x0
            States at ``grid[0]``, (B, ...).
        grid
            Times, (T,), strictly monotone.

        Returns
        -------
        torch.Tensor
            States at ``grid[-1]``, (B, ...).

        Raises
        ------
        InputError
            The grid cannot be used, or the field returns another shape than that of the states.
        """

        def field(x: Tensor, t: float) -> Tensor:
            return evaluate(velocity, x, t)

        x = x0
        for t, t_next in pairwise(check_grid(grid)):
            x = self.step(field, x, t, t_next - t)  # (B, ...)
        return x


def resolve_solver(name: str) -> FixedStep:
    """Find a solver with fixed steps by name.

    Parameters
    ----------
    name
        ``"euler"``, ``"heun"`` or ``"rk4"``.

    Raises
    ------
    UnknownNameError
        No solver has that name.
    """
    if not isinstance(name, str) or name not in STEPS:
        raise UnknownNameError.among("solver", name, SOLVERS)
    return FixedStep(STEPS[name])
