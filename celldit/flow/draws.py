"""Where repeated noise comes from: the steps of an SDE, the averages of an edit.

Consumers ask for draw 0, 1, 2, ...; what a draw is made of is the choice of the caller.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from celldit.errors import InputError
from celldit.flow.noise import cell_noise
from celldit.random import SDE_STREAM

__all__ = [
    "CellNoise",
    "FixedNoise",
    "GeneratorNoise",
    "Noise",
]


class Noise(Protocol):
    """A numbered supply of standard normal noise."""

    def __call__(self, draw: int, like: torch.Tensor) -> torch.Tensor:
        """Give draw number ``draw`` in the shape (B, ...), dtype and device of ``like``."""
        ...


@dataclass(frozen=True, eq=False)
class CellNoise:
    """Noise that belongs to the cells: the same whatever batch they are in.

    Parameters
    ----------
    cell_keys
        One integer per cell of the batch, (B,), int64.
    seed
        Seed of the run.
    stream
        Stream of draw 0; draw k uses stream + k. See :mod:`celldit.random`.
    """

    cell_keys: torch.Tensor
    seed: int
    stream: int = SDE_STREAM

    def __call__(self, draw: int, like: torch.Tensor) -> torch.Tensor:
        """Give draw number ``draw``, shape (B, ...)."""
        if len(self.cell_keys) != len(like):
            raise InputError(
                f"There are {len(self.cell_keys)} cell keys for a batch of {len(like)} cells; give "
                "one key per cell."
            )
        keys_B = self.cell_keys.to(like.device)
        return cell_noise(keys_B, like.shape[1:], self.seed, self.stream + draw).to(like.dtype)


@dataclass(frozen=True, eq=False)
class GeneratorNoise:
    """Fresh noise from a torch generator, or from the global one when None is given.

    Parameters
    ----------
    generator
        The generator; the numbers are drawn on its device.
    """

    generator: torch.Generator | None = None

    def __call__(self, draw: int, like: torch.Tensor) -> torch.Tensor:
        """Give the next draw, shape (B, ...); its number is of no consequence."""
        device = like.device if self.generator is None else self.generator.device
        noise = torch.randn(like.shape, generator=self.generator, device=device, dtype=like.dtype)
        return noise.to(like.device)


@dataclass(frozen=True, eq=False)
class FixedNoise:
    """Noise given as a tensor; when its draws are used up it starts again.

    Parameters
    ----------
    noise
        The draws, (D, B, ...). With D equal to the number of averages of an edit, every step of the
        edit sees the same noise.
    """

    noise: torch.Tensor

    def __call__(self, draw: int, like: torch.Tensor) -> torch.Tensor:
        """Give draw number ``draw`` modulo D, shape (B, ...)."""
        if self.noise.shape[1:] != like.shape or len(self.noise) == 0:
            raise InputError(
                f"The noise has shape {tuple(self.noise.shape)}; for states of shape "
                f"{tuple(like.shape)} give (draws, {', '.join(map(str, like.shape))})."
            )
        return self.noise[draw % len(self.noise)].to(device=like.device, dtype=like.dtype)
