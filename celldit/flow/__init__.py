"""Rectified flow in torch alone: paths, times, sources, couplings, solvers, guidance, losses.

Time runs from the source (t = 0) to data (t = 1). Each module is one noun, and any path goes with
any time sampler, source, coupling, solver and loss.
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
from celldit.flow.draws import CellNoise, FixedNoise, GeneratorNoise, Noise
from celldit.flow.edit import FlowEdit
from celldit.flow.guidance import GuidedVelocity
from celldit.flow.losses import energy_distance_loss, mmd_loss, velocity_loss
from celldit.flow.noise import cell_noise, cell_uniform
from celldit.flow.path import (
    LinearPath,
    Path,
    PathSample,
    TrigonometricPath,
    data_from_velocity,
    resolve_path,
    score_from_velocity,
    source_from_velocity,
)
from celldit.flow.solvers import SOLVERS, Solver, resolve_solver
from celldit.flow.solvers.grids import cosine_grid, quadratic_grid, resolve_grid, uniform_grid
from celldit.flow.source import AnchoredSource, GaussianSource
from celldit.flow.times import LogitNormal, Stratified, TimeSampler, Uniform, resolve_times
from celldit.flow.velocity import CountedVelocity, Velocity

__all__ = [
    "COUPLINGS",
    "SOLVERS",
    "AnchoredSource",
    "CellNoise",
    "CountedVelocity",
    "Coupling",
    "EntropicCoupling",
    "FixedNoise",
    "FlowEdit",
    "GaussianSource",
    "GeneratorNoise",
    "GuidedVelocity",
    "IndependentCoupling",
    "LinearPath",
    "LogitNormal",
    "Noise",
    "OptimalTransportCoupling",
    "Pairs",
    "Path",
    "PathSample",
    "Solver",
    "Stratified",
    "TimeSampler",
    "TrigonometricPath",
    "UnbalancedCoupling",
    "Uniform",
    "Velocity",
    "cell_noise",
    "cell_uniform",
    "cosine_grid",
    "data_from_velocity",
    "energy_distance_loss",
    "mmd_loss",
    "quadratic_grid",
    "resolve_coupling",
    "resolve_grid",
    "resolve_path",
    "resolve_solver",
    "resolve_times",
    "score_from_velocity",
    "source_from_velocity",
    "uniform_grid",
    "velocity_loss",
]
