r"""Joint classifier-free guidance as a velocity field around two others.

All conditions are dropped together: :math:`v = v_\varnothing + s\,(v_c - v_\varnothing)`.

References
----------
Ho, Salimans. Classifier-free diffusion guidance. arXiv:2207.12598.
Kynkäänniemi et al. Applying guidance in a limited interval improves sample and distribution quality
in diffusion models. NeurIPS 2024.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from celldit.flow.path import per_row
from celldit.flow.solvers import Velocity


@dataclass(frozen=True)
class GuidedVelocity:
    """Push the conditional velocity away from the unconditional one.

    Each side is evaluated only where it counts: with scale 1, or outside the interval, one
    evaluation is made instead of two; with scale 0 only the unconditional one. A scale of 1 leaves
    the condition as learnt, more exaggerates it; it applies at times within the interval [lo, hi],
    ends included, and outside it is 1.
    """

    conditional: Velocity
    unconditional: Velocity
    scale: float
    interval: tuple[float, float] = (0.0, 1.0)

    def __call__(self, x: Tensor, t_B: Tensor) -> Tensor:
        """Guided velocity (B, ...) at states x (B, ...) and times t."""
        lo, hi = self.interval
        acts_B = (t_B >= lo) & (t_B <= hi)
        if self.scale == 1 or not bool(acts_B.any()):
            return self.conditional(x, t_B)
        if self.scale == 0 and bool(acts_B.all()):
            return self.unconditional(x, t_B)
        v_cond, v_free = self.conditional(x, t_B), self.unconditional(x, t_B)
        guided = v_free + self.scale * (v_cond - v_free)
        return torch.where(per_row(acts_B, x), guided, v_cond)
