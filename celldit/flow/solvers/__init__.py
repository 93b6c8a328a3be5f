"""Solvers for velocity fields: fixed steps, adaptive steps, and an SDE with the same marginals."""

from __future__ import annotations

from celldit.flow.solvers.base import Solver
from celldit.flow.solvers.dopri5 import Dopri5
from celldit.flow.solvers.euler import Euler
from celldit.flow.solvers.fixed import FixedStep, Stepper
from celldit.flow.solvers.heun import Heun
from celldit.flow.solvers.midpoint import Midpoint
from celldit.flow.solvers.resolve import SOLVERS, resolve_solver
from celldit.flow.solvers.rk4 import RK4
from celldit.flow.solvers.sde import (
    EulerMaruyama,
    bump_diffusion,
    constant_diffusion,
    sigma_diffusion,
)

__all__ = [
    "RK4",
    "SOLVERS",
    "Dopri5",
    "Euler",
    "EulerMaruyama",
    "FixedStep",
    "Heun",
    "Midpoint",
    "Solver",
    "Stepper",
    "bump_diffusion",
    "constant_diffusion",
    "resolve_solver",
    "sigma_diffusion",
]
