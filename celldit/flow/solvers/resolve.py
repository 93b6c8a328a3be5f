"""Solvers by name."""

from __future__ import annotations

from collections.abc import Callable

from celldit.errors import UnknownNameError
from celldit.flow.draws import GeneratorNoise, Noise
from celldit.flow.path import LinearPath, Path
from celldit.flow.solvers.base import Solver
from celldit.flow.solvers.dopri5 import Dopri5
from celldit.flow.solvers.euler import Euler
from celldit.flow.solvers.fixed import FixedStep, Stepper
from celldit.flow.solvers.heun import Heun
from celldit.flow.solvers.midpoint import Midpoint
from celldit.flow.solvers.rk4 import RK4
from celldit.flow.solvers.sde import EulerMaruyama
from celldit.flow.source import GaussianSource

__all__ = ["SOLVERS", "resolve_solver"]

_STEPPERS: dict[str, Callable[[], Stepper]] = {
    "euler": Euler,
    "heun": Heun,
    "midpoint": Midpoint,
    "rk4": RK4,
}

SOLVERS: tuple[str, ...] = (*_STEPPERS, "dopri5", "sde")
"""Names that :func:`resolve_solver` knows."""


def resolve_solver(
    name: str,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    path: Path | None = None,
    source: GaussianSource | None = None,
    strength: float = 1.0,
    noise: Noise | None = None,
) -> Solver:
    """Find a solver by name.

    Settings a solver has no use for are left aside, so that one call serves every name.

    Parameters
    ----------
    name
        ``"euler"``, ``"heun"``, ``"midpoint"``, ``"rk4"``, ``"dopri5"`` or ``"sde"``.
    rtol
        Relative tolerance of ``"dopri5"``.
    atol
        Absolute tolerance of ``"dopri5"``.
    path
        Path the velocity was learnt on, for ``"sde"``; the linear one when None.
    source
        Gaussian source of the flow, for ``"sde"``; the standard normal one when None.
    strength
        Strength of the diffusion of ``"sde"``.
    noise
        Supply of noise of ``"sde"``; torch's global generator when None.

    Returns
    -------
    Solver
        The solver.

    Raises
    ------
    UnknownNameError
        No solver has that name.
    InputError
        A setting of the solver cannot be used.
    """
    if isinstance(name, str) and name in _STEPPERS:
        return FixedStep(_STEPPERS[name]())
    if isinstance(name, str) and name == "dopri5":
        return Dopri5(rtol=rtol, atol=atol)
    if isinstance(name, str) and name == "sde":
        return EulerMaruyama(
            path=LinearPath() if path is None else path,
            source=GaussianSource() if source is None else source,
            strength=strength,
            noise=GeneratorNoise() if noise is None else noise,
        )
    raise UnknownNameError.among("solver", name, SOLVERS)
