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
