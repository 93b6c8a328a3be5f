r"""Joint classifier-free guidance as a velocity field around two others.

All conditions are dropped together: :math:`v = v_\varnothing + s\,(v_c - v_\varnothing)`.

References
----------
Ho, Salimans. Classifier-free diffusion guidance. arXiv:2207.12598.
Kynkäänniemi et al. Applying guidance in a limited interval improves sample and distribution quality
in diffusion models. NeurIPS 2024.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from celldit.errors import InputError
from celldit.flow.path import per_row
from celldit.flow.velocity import Velocity

__all__ = ["GuidedVelocity"]


@dataclass(frozen=True)
class GuidedVelocity:
    """Push the conditional velocity away from the unconditional one.

    Each side is evaluated only where it counts: with scale 1, or outside the interval, one
    evaluation is made instead of two; with scale 0 only the unconditional one.

    Parameters
    ----------
    conditional
        Velocity under the condition.
    unconditional
        Velocity with all conditions dropped; may be None when ``scale`` is 1.
    scale
        0 ignores the condition, 1 leaves it as learnt, more exaggerates it.
    interval
        Times [lo, hi], ends included, within which the scale applies; outside it is 1.

    Raises
    ------
    InputError
        The scale is negative or not finite, the interval is not inside [0, 1], or guidance is asked
        for without an unconditional velocity.
    """

    conditional: Velocity
    unconditional: Velocity | None
    scale: float = 1.0
    interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not (0 <= self.scale < math.inf):
            raise InputError(
                f"The guidance scale must be finite and at least 0, not {self.scale}; 1 means no "
                "guidance."
            )
        lo, hi = self.interval
        if not (0 <= lo <= hi <= 1):
            raise InputError(
                f"The guidance interval must satisfy 0 <= lo <= hi <= 1, not ({lo}, {hi})."
            )
        if self.unconditional is None and self.scale != 1:
            raise InputError(
                f"A guidance scale of {self.scale} needs a velocity without conditions, which only "
                "a model trained with dropped conditions has; use guidance 1."
            )

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Guided velocity (B, ...) at states x (B, ...) and times t (B,)."""
        if self.scale == 1 or self.unconditional is None:
            return self.conditional(x, t)
        lo, hi = self.interval
        acts_B = (t >= lo) & (t <= hi)  # (B,)
        acts_on = int(acts_B.sum())
        if acts_on == 0:
            return self.conditional(x, t)
        if self.scale == 0 and acts_on == len(acts_B):
            return self.unconditional(x, t)
        v_cond = self.conditional(x, t)  # (B, ...)
        v_free = self.unconditional(x, t)  # (B, ...)
        guided = v_free + self.scale * (v_cond - v_free)  # (B, ...)
        return torch.where(per_row(acts_B, x), guided, v_cond)
