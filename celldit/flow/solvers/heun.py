"""Heun's method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from celldit.flow.solvers.fixed import Field

__all__ = ["Heun"]


@dataclass(frozen=True)
class Heun:
    r"""Heun's method (explicit trapezoidal rule): order 2, two evaluations a step.

    :math:`x_{n+1} = x_n + \tfrac{h}{2}(k_1 + k_2)` with :math:`k_1 = v(x_n, t_n)` and
    :math:`k_2 = v(x_n + h k_1, t_n + h)`.

    References
    ----------
    Hairer, Nørsett, Wanner. Solving ordinary differential equations I, section II.1.
    """

    order: ClassVar[int] = 2
    evaluations_per_step: ClassVar[int] = 2

    def step(self, field: Field, x: torch.Tensor, t: float, dt: float) -> torch.Tensor:
        """Carry states x (B, ...) from t to t + dt."""
        k1 = field(x, t)
        k2 = field(x + dt * k1, t + dt)
        return x + 0.5 * dt * (k1 + k2)
