"""Grids of times for solvers with fixed steps.

A grid from t1 back to t0 holds the same times as the one from t0 to t1: spacing belongs to the
path, not to the direction. Grids are double precision, since fine ones would repeat times in
single.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import TypeAlias

import torch

from celldit.errors import InputError, UnknownNameError

__all__ = ["Grid", "check_n_steps", "cosine_grid", "quadratic_grid", "resolve_grid", "uniform_grid"]

Grid: TypeAlias = Callable[[int, float, float], torch.Tensor]
"""``grid(n_steps, t0, t1)``: the n_steps + 1 times from t0 to t1, (T,) float64."""


def uniform_grid(n_steps: int, t0: float = 0.0, t1: float = 1.0) -> torch.Tensor:
    """Equal steps.

    Parameters
    ----------
    n_steps
        Number of steps, positive.
    t0
        First time.
    t1
        Last time, another than t0; below it to run backward.

    Returns
    -------
    torch.Tensor
        Times, (n_steps + 1,), float64, both ends included.

    Raises
    ------
    InputError
        The number of steps is not a positive integer, or the ends are equal or not finite.
    """
    return _spread(lambda u: u, n_steps, t0, t1)


def quadratic_grid(n_steps: int, t0: float = 0.0, t1: float = 1.0) -> torch.Tensor:
    """Steps that shrink linearly towards the later time, the data.

    There a flow from noise bends most. As the quadratic spacing of DDIM (Song, Meng, Ermon. ICLR
    2021, appendix D.2), in which data is at time 0. Parameters, result and errors are those of
    :func:`uniform_grid`.
    """
    return _spread(lambda u: u * (2 - u), n_steps, t0, t1)


def cosine_grid(n_steps: int, t0: float = 0.0, t1: float = 1.0) -> torch.Tensor:
    """Steps that are small at both ends, as Chebyshev points are.

    Parameters, result and errors are those of :func:`uniform_grid`.
    """
    return _spread(lambda u: torch.sin(0.5 * math.pi * u).square(), n_steps, t0, t1)


_GRIDS: dict[str, Grid] = {
    "uniform": uniform_grid,
    "quadratic": quadratic_grid,
    "cosine": cosine_grid,
}


def resolve_grid(name: str) -> Grid:
    """Find a grid by name.

    Parameters
    ----------
    name
        ``"uniform"``, ``"quadratic"`` or ``"cosine"``.

    Returns
    -------
    Grid
        The function that makes the grid.

    Raises
    ------
    UnknownNameError
        No grid has that name.
    """
    if not isinstance(name, str) or name not in _GRIDS:
        raise UnknownNameError.among("grid", name, _GRIDS)
    return _GRIDS[name]


def check_n_steps(n_steps: int) -> int:
    """Check a number of steps.

    Parameters
    ----------
    n_steps
        Any integer type; truth values do not count as one.

    Returns
    -------
    int
        The number.

    Raises
    ------
    InputError
        It is not a positive integer.
    """
    try:
        number = 0 if isinstance(n_steps, bool) else operator.index(n_steps)
    except TypeError:
        number = 0
    if number < 1:
        raise InputError(f"n_steps must be a positive integer, such as 10, not {n_steps!r}.")
    return number


def _spread(
    shape: Callable[[torch.Tensor], torch.Tensor], n_steps: int, t0: float, t1: float
) -> torch.Tensor:
    n_steps = check_n_steps(n_steps)
    if not (math.isfinite(t0) and math.isfinite(t1)) or t0 == t1:
        raise InputError(f"A grid runs between two different finite times, not {t0} and {t1}.")
    early, late = min(t0, t1), max(t0, t1)
    u_T = torch.arange(n_steps + 1, dtype=torch.float64) / n_steps
    grid_T = early + (late - early) * shape(u_T)
    # Rounding must not move the ends: backward and forward have to meet.
    grid_T[0], grid_T[-1] = early, late
    return grid_T if t0 < t1 else grid_T.flip(0)
