"""Where the flow from noise starts."""

from __future__ import annotations

from dataclasses import dataclass

import torch

__all__ = ["GaussianSource"]


@dataclass(frozen=True, eq=False)
class GaussianSource:
    """Independent Gaussian coordinates, for generation: x0 = position + spread * noise.

    Standard normal by default. The score of a flow, and so the SDE, is known for these sources.

    Parameters
    ----------
    position
        Mean, a number or a tensor that broadcasts against the states (B, ...), in latent units.
    spread
        Standard deviation of each coordinate, likewise, in latent units.
    """

    position: float | torch.Tensor = 0.0
    spread: float | torch.Tensor = 1.0

    def __call__(self, noise: torch.Tensor) -> torch.Tensor:
        """Start points (B, ...) from standard normal noise (B, ...)."""
        return self.position + self.spread * noise
