"""Which cells of a request respond to what is done to them, and how far those go.

Of a perturbation of training it is known what share of the cells responds
(:mod:`celldit.calibration.responders.shares`). That many cells, each by a random number of its own,
go 1 / share times as far, and the others stay: the mean is the same, and predicted cells are
bimodal where measured ones are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from celldit.inference.batch import ConditionBatch
from celldit.inference.maps.transport import TransportMap
from celldit.inference.noise import uniforms
from celldit.inference.offsets import Offset
from celldit.random import RESPONSE_STREAM
from celldit.training.trained import Trained


@dataclass(frozen=True, eq=False)
class Responders:
    """How far cells go by their position in a request."""

    scale_P: Tensor | None = None  # 0 for a cell that does not respond; None where all do

    @classmethod
    def of(
        cls, trained: Trained, target: ConditionBatch, keys_P: np.ndarray, seed: int
    ) -> Responders:
        """Draw which cells respond, from the keys of the P cells and the conditions asked for."""
        shares = trained.mean_calibration.shares
        share_Q = np.array([shares.get(c.parts, 1.0) for c in target.conditions])
        if (share_Q == 1).all():
            return cls()
        share_P = share_Q[target.row]
        responds_P = uniforms(target.draw_keys(keys_P), seed, RESPONSE_STREAM) < share_P
        return cls(torch.from_numpy((responds_P / share_P).astype(np.float32)))

    @property
    def responds_P(self) -> np.ndarray | bool:
        """Which cells respond; True for all."""
        return True if self.scale_P is None else (self.scale_P > 0).numpy()

    def moved(self, move: TransportMap) -> TransportMap:
        """A map of which some cells go further and others not at all."""
        if (scale_P := self.scale_P) is None:
            return move

        def mapping(z_BKD: Tensor, at_B: np.ndarray) -> Tensor:
            sent_BKD = move(z_BKD, at_B)
            scale_B = scale_P[torch.from_numpy(at_B)]
            further_BKD = z_BKD + (sent_BKD - z_BKD) * scale_B[:, None, None]
            # Where all respond, cells are where they were sent, to the byte.
            return torch.where((scale_B == 1)[:, None, None], sent_BKD, further_BKD)

        return mapping

    def offset(self, offset: Offset | None) -> Offset | None:
        """Offsets, none for cells that do not respond."""
        if offset is None or (scale_P := self.scale_P) is None:
            return offset
        return lambda at_B: offset(at_B) * (scale_P[torch.from_numpy(at_B)] > 0)[:, None]
