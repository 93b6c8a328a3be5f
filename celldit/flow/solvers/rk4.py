"""The classical Runge-Kutta method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from celldit.flow.solvers.fixed import Field

__all__ = ["RK4"]


@dataclass(frozen=True)
class RK4:
    r"""Classical Runge-Kutta method: order 4, four evaluations a step.

    :math:`x_{n+1} = x_n + \tfrac{h}{6}(k_1 + 2 k_2 + 2 k_3 + k_4)`.

    References
    ----------
    Hairer, Nørsett, Wanner. Solving ordinary differential equations I, section II.1.
    """

    order: ClassVar[int] = 4
    evaluations_per_step: ClassVar[int] = 4

    def step(self, field: Field, x: torch.Tensor, t: float, dt: float) -> torch.Tensor:
        """Carry states x (B, ...) from t to t + dt."""
        half = 0.5 * dt
        k1 = field(x, t)
        k2 = field(x + half * k1, t + half)
        k3 = field(x + half * k2, t + half)
        k4 = field(x + dt * k3, t + dt)
        return x + (dt / 6.0) * (k1 + 2.0 * (k2 + k3) + k4)
