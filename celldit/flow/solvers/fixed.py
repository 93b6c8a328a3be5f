"""The loop shared by all solvers with fixed steps; what one step does is a part put in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, TypeAlias

import torch

from celldit.flow.solvers.base import check_grid
from celldit.flow.solvers.grids import check_n_steps
from celldit.flow.velocity import Velocity, evaluate

__all__ = ["FixedStep", "Stepper"]

Field: TypeAlias = Callable[[torch.Tensor, float], torch.Tensor]
"""``field(x, t)``: states (B, ...) and one time for all of them -> velocities (B, ...)."""


class Stepper(Protocol):
    """One step of an explicit one-step method."""

    @property
    def order(self) -> int:
        """Order of convergence: the error falls as the step size to this power."""
        ...

    @property
    def evaluations_per_step(self) -> int:
        """Evaluations of the field in one step."""
        ...

    def step(self, field: Field, x: torch.Tensor, t: float, dt: float) -> torch.Tensor:
        """Carry states x (B, ...) from t to t + dt; dt is negative when running backward."""
        ...


@dataclass(frozen=True)
class FixedStep:
    """Solver that takes exactly the steps of the grid.

    Every row of the batch is treated alike and alone, so a cell's result depends on the rest of its
    batch only as far as the field's does.

    Parameters
    ----------
    stepper
        What one step does: :class:`Euler`, :class:`Heun`, :class:`Midpoint` or :class:`RK4`.
    """

    stepper: Stepper

    def solve(self, velocity: Velocity, x0: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
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
        """Evaluations of the field for ``n_steps`` steps."""
        return self.stepper.evaluations_per_step * check_n_steps(n_steps)

    def _states(
        self, velocity: Velocity, x: torch.Tensor, grid: torch.Tensor
    ) -> Iterator[torch.Tensor]:
        def field(x: torch.Tensor, t: float) -> torch.Tensor:
            return evaluate(velocity, x, t)

        times = check_grid(grid)
        for t, t_next in pairwise(times):
            x = self.stepper.step(field, x, t, t_next - t)  # (B, ...)
            yield x
