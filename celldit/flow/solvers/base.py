"""What every solver offers, and how the times it is given are checked."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Protocol

import torch

from celldit.errors import InputError
from celldit.flow.velocity import Velocity

__all__ = ["Solver", "check_grid"]


class Solver(Protocol):
    """Carries states along a velocity field over a grid of times.

    A decreasing grid runs the field backward. Gradients flow through unless the caller wraps the
    call in ``torch.no_grad()``. Times reach the field as a tensor of shape (B,) in the dtype of the
    states.
    """

    def solve(self, velocity: Velocity, x0: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        """Give the states (B, ...) at the last time of the grid, from x0 (B, ...) at the first."""
        ...


def check_grid(grid: torch.Tensor) -> list[float]:
    """Check a grid of times and give it as plain numbers.

    Steps are computed from double precision numbers on the host, so that neither the device nor the
    dtype of the states changes them.

    Parameters
    ----------
    grid
        Times, (T,), at least two, strictly increasing or strictly decreasing.

    Returns
    -------
    list of float
        The times.

    Raises
    ------
    InputError
        The grid is anything else.
    """
    shape = tuple(grid.shape)
    if grid.ndim != 1 or shape[0] < 2:
        raise InputError(
            f"A grid is one row of at least two times, not a tensor of shape {shape}; try "
            "uniform_grid(10)."
        )
    times: list[float] = grid.detach().to("cpu", torch.float64).tolist()
    steps = [later - earlier for earlier, later in pairwise(times)]
    monotone = all(step > 0 for step in steps) or all(step < 0 for step in steps)
    if not monotone or not all(math.isfinite(time) for time in times):
        raise InputError(
            "The times of a grid must be finite and strictly increase, or strictly decrease to run "
            "backward; try uniform_grid(10)."
        )
    return times
