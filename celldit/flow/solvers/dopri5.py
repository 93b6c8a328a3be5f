"""The adaptive Dormand-Prince method, through torchdiffeq."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from celldit.errors import InputError
from celldit.flow.solvers.base import check_grid
from celldit.flow.velocity import Velocity, evaluate

__all__ = ["Dopri5"]


@dataclass(frozen=True)
class Dopri5:
    """Dormand-Prince 5(4): chooses its own steps, so that the error stays within tolerance.

    Only the ends of the grid matter to :meth:`solve`; :meth:`trajectory` interpolates to the times
    between. The error is measured cell by cell (root mean square over the cell's dimensions) and
    the worst cell decides, so the tolerance holds for each cell. All cells of a batch share the
    steps: what a cell becomes depends on its batch, within the tolerance. Where the same bytes are
    needed whatever the batch, use a solver with fixed steps.

    Parameters
    ----------
    rtol
        Relative tolerance, above 0.
    atol
        Absolute tolerance in the units of the state, above 0.
    max_steps
        Steps after which the field is declared too stiff.

    Raises
    ------
    InputError
        A setting is not positive.

    References
    ----------
    Dormand, Prince. A family of embedded Runge-Kutta formulae. J. Comput. Appl. Math. 6, 1980.
    Chen. torchdiffeq, 2018.
    """

    rtol: float = 1e-5
    atol: float = 1e-5
    max_steps: int = 10_000

    def __post_init__(self) -> None:
        for name in ("rtol", "atol", "max_steps"):
            value = getattr(self, name)
            if not (0 < value < math.inf):
                raise InputError(f"{name} of dopri5 must be positive and finite, not {value}.")

    def solve(self, velocity: Velocity, x0: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        """Carry the states to the last time of the grid.

        Parameters
        ----------
        velocity
            The field, ``velocity(x, t)``.
        x0
            States at ``grid[0]``, (B, ...).
        grid
            Times, (T,), strictly monotone.

        Returns
        -------
        torch.Tensor
            States at ``grid[-1]``, (B, ...).

        Raises
        ------
        InputError
            The grid cannot be used, the field returns another shape than that of the states, or the
            tolerance cannot be kept (not finite, too stiff).
        """
        times = check_grid(grid)
        return self._integrate(velocity, x0, [times[0], times[-1]])[-1]

    def trajectory(self, velocity: Velocity, x0: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        """Carry the states along and keep them at every time of the grid; see :meth:`solve`.

        Returns
        -------
        torch.Tensor
            States at every time of the grid, (T, B, ...).
        """
        return self._integrate(velocity, x0, check_grid(grid))

    def evaluations(self, n_steps: int) -> None:
        """None: the number depends on the field; wrap it in ``CountedVelocity`` to know."""
        return None

    def _integrate(self, velocity: Velocity, x0: torch.Tensor, times: list[float]) -> torch.Tensor:
        # Imported here, since it brings scipy along, which no other part of the flow needs.
        from torchdiffeq import odeint

        if len(x0) == 0:
            return x0.expand(len(times), *x0.shape)
        time_dtype = torch.float32 if x0.device.type == "mps" else torch.float64
        try:
            states: torch.Tensor = odeint(
                lambda t, x: evaluate(velocity, x, t),
                x0,
                torch.tensor(times, dtype=time_dtype, device=x0.device),
                rtol=self.rtol,
                atol=self.atol,
                method="dopri5",
                options={
                    "norm": _worst_cell,
                    "max_num_steps": self.max_steps,
                    "dtype": time_dtype,
                },
            )
        except AssertionError as error:
            # torchdiffeq reports failures of the integration by assertion.
            raise InputError(
                f"dopri5 could not keep rtol={self.rtol} and atol={self.atol} from t={times[0]} to "
                f"t={times[-1]} ({error}); loosen them, or use a solver with fixed steps."
            ) from error
        return states


def _worst_cell(error: torch.Tensor) -> torch.Tensor:
    rows = error.reshape(error.shape[0], -1) if error.ndim > 1 else error.reshape(-1, 1)
    return rows.square().mean(dim=1).sqrt().max()
