"""New cells at a time between two of training: from which they come, and how far they have gone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from celldit.conditions.between import Between
from celldit.samplers.noise import NoiseSources, uniforms
from celldit.samplers.synthesis import Towards
from celldit.samplers.trained import Asked, Trained

TIME_STREAM = 1 << 18


@dataclass(frozen=True, eq=False)
class Pair:
    """Where each of N new cells starts, and where it is on its way to.

    Nothing was measured between two times of training. Of the cells asked for at a time between
    them some start among those of the earlier and some among those of the later, the more the
    nearer it is, and each has gone its share of the way to the other. A cell at a time of training
    is already where it goes.

    Attributes
    ----------
    ends
        The conditions at times of training, and which of them each cell starts from.
    other_N
        The row in `ends` to which it is on its way.
    share_N
        How far it is.
    sources
        Where the flow from noise starts for each condition in `ends`.
    """

    ends: Asked
    other_N: np.ndarray
    share_N: np.ndarray
    sources: NoiseSources

    @classmethod
    def of(cls, trained: Trained, asked: Asked, seed: int) -> Pair:
        """Look up the trained times about all conditions that are asked for."""
        between = Between.of(asked.conditions, trained.population.references)
        distinct = list(dict.fromkeys((*between.earlier, *between.later)))
        place = {condition: i for i, condition in enumerate(distinct)}
        earlier_N, later_N = (
            np.array([place[c] for c in ends], dtype=np.int64)[asked.row]
            for ends in (between.earlier, between.later)
        )
        share_N = between.share_Q[asked.row]
        late_N = uniforms(np.arange(len(share_N)), seed, TIME_STREAM) < share_N
        ends = Asked.of_rows(trained, distinct, np.where(late_N, later_N, earlier_N))
        other_N = np.where(late_N, earlier_N, later_N)
        share_N = np.where(late_N, 1 - share_N, share_N)
        return cls(ends, other_N, share_N, ends.sources(trained.states))

    def towards(self, keys: np.ndarray) -> Towards | None:
        """The way of some cells; None where none of them is on one."""
        share_B = torch.from_numpy(self.share_N[keys].astype(np.float32))
        if not bool(share_B.any()):
            return None
        positions_of = self.sources.positions_of
        shift_BKD = positions_of(self.other_N[keys]) - positions_of(self.ends.row[keys])
        return Towards(shift_BKD, share_B)
