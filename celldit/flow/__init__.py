"""Rectified flow in torch alone: paths, times, sources, couplings, solvers, guidance, losses.

Time runs from the source (t = 0) to data (t = 1). Each module is one noun, and any path goes with
any source, coupling, solver and loss.
"""

from __future__ import annotations

from celldit.flow.coupling import (
    COUPLINGS,
    Coupling,
    EntropicCoupling,
    IndependentCoupling,
    OptimalTransportCoupling,
    Pairs,
    UnbalancedCoupling,
    resolve_coupling,
)
from celldit.flow.draws import CellNoise, Noise
from celldit.flow.edit import FlowEdit
from celldit.flow.guidance import GuidedVelocity
from celldit.flow.losses import energy_distance_loss, velocity_loss
from celldit.flow.noise import cell_noise, cell_uniform
from celldit.flow.path import (
    LinearPath,
    Path,
    PathSample,
    TrigonometricPath,
    source_from_velocity,
)
from celldit.flow.solvers import SOLVERS, Solver, resolve_solver
from celldit.flow.solvers.grids import cosine_grid, quadratic_grid, resolve_grid, uniform_grid
from celldit.flow.source import GaussianSource
from celldit.flow.times import stratified_times
from celldit.flow.velocity import Velocity

__all__ = [
    "COUPLINGS",
    "SOLVERS",
    "CellNoise",
    "Coupling",
    "EntropicCoupling",
    "FlowEdit",
    "GaussianSource",
    "GuidedVelocity",
    "IndependentCoupling",
    "LinearPath",
    "Noise",
    "OptimalTransportCoupling",
    "Pairs",
    "Path",
    "PathSample",
    "Solver",
    "TrigonometricPath",
    "UnbalancedCoupling",
    "Velocity",
    "cell_noise",
    "cell_uniform",
    "cosine_grid",
    "energy_distance_loss",
    "quadratic_grid",
    "resolve_coupling",
    "resolve_grid",
    "resolve_solver",
    "source_from_velocity",
    "stratified_times",
    "uniform_grid",
    "velocity_loss",
]
