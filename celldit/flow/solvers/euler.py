"""Euler's method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from celldit.flow.solvers.fixed import Field

__all__ = ["Euler"]


@dataclass(frozen=True)
class Euler:
    r"""Euler's method, :math:`x_{n+1} = x_n + h\, v(x_n, t_n)`: order 1, one evaluation a step.

    Exact in one step where trajectories are straight, which is what rectified flow aims at.
    """

    order: ClassVar[int] = 1
    evaluations_per_step: ClassVar[int] = 1

    def step(self, field: Field, x: torch.Tensor, t: float, dt: float) -> torch.Tensor:
        """Carry states x (B, ...) from t to t + dt."""
        return x + dt * field(x, t)
