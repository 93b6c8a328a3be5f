"""Rectified flow in torch alone: path, couplings, solvers, guidance, edits, losses.

Time runs from the source (t = 0) to data (t = 1). Each module is one noun, and any coupling goes
with any solver and loss.
"""

from __future__ import annotations

from celldit.flow.edit import FlowEnd, edit_flow
from celldit.flow.grids import resolve_grid, uniform_grid
from celldit.flow.guidance import GuidedVelocity
from celldit.flow.losses import energy_distance_loss, velocity_loss
from celldit.flow.noise import CellNoise, Noise, cell_noise, cell_uniform
from celldit.flow.path import GaussianSource, on_path, stratified_times
from celldit.flow.solvers import SOLVERS, EulerMaruyama, Solver, Velocity, resolve_solver

__all__ = [
    "SOLVERS",
    "CellNoise",
    "EulerMaruyama",
    "FlowEnd",
    "GaussianSource",
    "GuidedVelocity",
    "Noise",
    "Solver",
    "Velocity",
    "cell_noise",
    "cell_uniform",
    "edit_flow",
    "energy_distance_loss",
    "on_path",
    "resolve_grid",
    "resolve_solver",
    "stratified_times",
    "uniform_grid",
    "velocity_loss",
]
