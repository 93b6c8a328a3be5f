"""Grids of times for solvers with fixed steps.

A grid from t1 back to t0 holds the same times as the one from t0 to t1: spacing belongs to the
path, not to the direction. Grids are double precision, since fine ones would repeat times in
single.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from celldit.errors import UnknownNameError

Grid: TypeAlias = Callable[[int, float, float], Tensor]
"""``grid(n_steps, t0, t1)``: the n_steps + 1 times from t0 to t1, (T,) float64."""


def uniform_grid(n_steps: int, t0: float = 0.0, t1: float = 1.0) -> Tensor:
    """Equal steps, both ends included; `t1` below `t0` runs backward."""
    return _spread(lambda u: u, n_steps, t0, t1)


def quadratic_grid(n_steps: int, t0: float = 0.0, t1: float = 1.0) -> Tensor:
    """Steps that shrink linearly towards the later time, the data; as :func:`uniform_grid`.

    There a flow from noise bends most. As the quadratic spacing of DDIM (Song, Meng, Ermon. ICLR
    2021, appendix D.2), in which data is at time 0.
    """
    return _spread(lambda u: u * (2 - u), n_steps, t0, t1)


def cosine_grid(n_steps: int, t0: float = 0.0, t1: float = 1.0) -> Tensor:
    """Steps that are small at both ends, as Chebyshev points are; as :func:`uniform_grid`."""
    return _spread(lambda u: torch.sin(0.5 * math.pi * u).square(), n_steps, t0, t1)


_GRIDS: dict[str, Grid] = {
    "uniform": uniform_grid,
    "quadratic": quadratic_grid,
    "cosine": cosine_grid,
}


def resolve_grid(name: str) -> Grid:
    """Find a grid by name, ``"uniform"``, ``"quadratic"`` or ``"cosine"``, or UnknownNameError."""
    if not isinstance(name, str) or name not in _GRIDS:
        raise UnknownNameError.among("grid", name, _GRIDS)
    return _GRIDS[name]


def _spread(shape: Callable[[Tensor], Tensor], n_steps: int, t0: float, t1: float) -> Tensor:
    early, late = min(t0, t1), max(t0, t1)
    u_T = torch.arange(n_steps + 1, dtype=torch.float64) / n_steps
    grid_T = early + (late - early) * shape(u_T)
    # Rounding must not move the ends: backward and forward have to meet.
    grid_T[0], grid_T[-1] = early, late
    return grid_T if t0 < t1 else grid_T.flip(0)
