"""The explicit midpoint rule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from celldit.flow.solvers.fixed import Field

__all__ = ["Midpoint"]


@dataclass(frozen=True)
class Midpoint:
    r"""Explicit midpoint rule: order 2, two evaluations a step, none of them at the last time.

    :math:`x_{n+1} = x_n + h\, v(x_n + \tfrac{h}{2} v(x_n, t_n),\; t_n + \tfrac{h}{2})`.

    References
    ----------
    Hairer, Nørsett, Wanner. Solving ordinary differential equations I, section II.1.
    """

    order: ClassVar[int] = 2
    evaluations_per_step: ClassVar[int] = 2

    def step(self, field: Field, x: torch.Tensor, t: float, dt: float) -> torch.Tensor:
        """Carry states x (B, ...) from t to t + dt."""
        half = 0.5 * dt
        return x + dt * field(x + half * field(x, t), t + half)
