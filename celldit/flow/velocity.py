"""What a velocity field is to the rest of the package, and a wrapper that counts its calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch

from celldit.errors import InputError

__all__ = ["CountedVelocity", "Velocity"]

Velocity: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""``velocity(x, t)``: states x of shape (B, ...), times t of shape (B,), result shaped like x."""


class CountedVelocity:
    """A velocity field that counts how often it is evaluated.

    Parameters
    ----------
    velocity
        The field to count, ``velocity(x, t)`` with x of shape (B, ...) and t of shape (B,).

    Attributes
    ----------
    n_evaluations
        Calls since construction or the last :meth:`reset`; one call evaluates the whole batch.

    Examples
    --------
    >>> import torch
    >>> from celldit.flow import resolve_solver, uniform_grid
    >>> field = CountedVelocity(lambda x, t: -x)
    >>> _ = resolve_solver("heun").solve(field, torch.ones(3, 2), uniform_grid(10))
    >>> field.n_evaluations
    20
    """

    def __init__(self, velocity: Velocity) -> None:
        self.velocity = velocity
        self.n_evaluations = 0

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        self.n_evaluations += 1
        return self.velocity(x, t)

    def reset(self) -> None:
        """Start counting from zero again."""
        self.n_evaluations = 0


def evaluate(velocity: Velocity, x: torch.Tensor, t: float | torch.Tensor) -> torch.Tensor:
    """Evaluate a field for a batch that shares one time.

    Parameters
    ----------
    velocity
        The field.
    x
        States, (B, ...).
    t
        One time for the whole batch.

    Returns
    -------
    torch.Tensor
        Velocities, (B, ...).

    Raises
    ------
    InputError
        The field returned another shape than that of the states, which broadcasting would hide.
    """
    t_B = torch.as_tensor(t, dtype=x.dtype, device=x.device).expand(x.shape[0])
    v = velocity(x, t_B)
    if v.shape != x.shape:
        raise InputError(
            f"The velocity field returned shape {tuple(v.shape)} for states of shape "
            f"{tuple(x.shape)}; it must return one velocity per state, of the same shape."
        )
    return v
