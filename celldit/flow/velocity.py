"""What a velocity field is to the rest of the package."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch

from celldit.errors import InputError

__all__ = ["Velocity", "evaluate"]

Velocity: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""``velocity(x, t)``: states x of shape (B, ...), times t of shape (B,), result shaped like x."""


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
