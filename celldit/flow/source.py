"""Where the flow starts: Gaussian noise, or the control cell moved by its expected effect."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from celldit.errors import InputError

__all__ = ["AnchoredSource", "GaussianSource"]


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


@dataclass(frozen=True)
class AnchoredSource:
    """The control cell moved by the baseline's effect: x0 = control + effect + jitter * noise.

    With a velocity of zero the flow leaves x0 where it is, so the untrained model equals the
    baseline that estimated the effect.

    Parameters
    ----------
    jitter
        Standard deviation of the noise added, in latent units; 0 keeps the flow deterministic. A
        little noise widens a predicted distribution that a deterministic flow leaves too narrow.

    Raises
    ------
    InputError
        The jitter is negative or not finite.
    """

    jitter: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.jitter < math.inf):
            raise InputError(f"jitter must be 0 or more and finite, not {self.jitter}.")

    def __call__(
        self, control: torch.Tensor, effect: torch.Tensor, noise: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Find the start points.

        Parameters
        ----------
        control
            Latent control cells, (B, ...).
        effect
            Expected latent shift of each cell, (B, ...).
        noise
            Standard normal noise, (B, ...); needed only when ``jitter`` is above 0.

        Returns
        -------
        torch.Tensor
            Start points, (B, ...).

        Raises
        ------
        InputError
            The shapes differ, or noise is missing.
        """
        if control.shape != effect.shape:
            raise InputError(
                f"control has shape {tuple(control.shape)} and effect {tuple(effect.shape)}; "
                "give one effect per control cell."
            )
        x0 = control + effect
        if self.jitter == 0:
            return x0
        if noise is None or noise.shape != control.shape:
            raise InputError(
                f"A jitter of {self.jitter} needs noise of shape {tuple(control.shape)}; pass "
                "noise=, or use AnchoredSource(jitter=0)."
            )
        return x0 + self.jitter * noise
