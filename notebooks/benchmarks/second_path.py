r"""A second path and its stochastic sampler, to compare the product's straight one with.

:math:`x_t = \cos(\pi t/2)\, x_0 + \sin(\pi t/2)\, x_1` preserves variance, as the diffusion of DDPM
does (Albergo, Boffi, Vanden-Eijnden. Stochastic interpolants. arXiv:2303.08797). Its sampler takes
Euler-Maruyama steps of the SDE with the flow's marginals (Ma et al. SiT. ECCV 2024, equation 4).
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor

from celldit.flow import Noise, Velocity


def on_arc(x0: Tensor, x1: Tensor, t_B: Tensor) -> tuple[Tensor, Tensor]:
    """Points between x0 and x1 (B, ...) at times t, and their velocities."""
    angle = 0.5 * math.pi * t_B.reshape(-1, *(1,) * (x0.ndim - 1))
    velocity = 0.5 * math.pi * (angle.cos() * x1 - angle.sin() * x0)
    return angle.cos() * x0 + angle.sin() * x1, velocity


def ddpm(velocity: Velocity, x0: Tensor, grid: Tensor, noise: Noise) -> Tensor:
    """Carry a standard normal (B, ...) to data along a grid from 0 to 1, a draw for each step."""
    x = x0
    for n, (t, t_next) in enumerate(pairwise(grid.tolist())):
        dt, alpha, sigma = t_next - t, math.sin(0.5 * math.pi * t), math.cos(0.5 * math.pi * t)
        v = velocity(x, torch.full((len(x),), t, dtype=x.dtype))
        if t_next == 1.0:  # where the score has no bound
            return x + dt * v
        source_mean = sigma * x - alpha * v / (0.5 * math.pi)
        x = x + dt * (v - 0.5 * source_mean) + math.sqrt(sigma * dt) * noise(n, x)
    return x
