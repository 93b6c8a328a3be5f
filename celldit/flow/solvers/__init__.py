"""Solvers for velocity fields: fixed steps, and an SDE with the same marginals."""

from __future__ import annotations

from celldit.flow.solvers.base import Solver
from celldit.flow.solvers.fixed import SOLVERS, FixedStep, resolve_solver
from celldit.flow.solvers.sde import EulerMaruyama

__all__ = ["SOLVERS", "EulerMaruyama", "FixedStep", "Solver", "resolve_solver"]
