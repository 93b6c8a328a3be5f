"""New cells at a time between two of training: from which they come, and how far they have gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from celldit.conditions.between import Between
from celldit.inference.batch import ConditionBatch
from celldit.inference.noise import NoiseSources, uniforms
from celldit.inference.time.matched_states import Partners
from celldit.training.trained import Trained

TIME_STREAM = 1 << 18
PARTNER_STREAM = 1 << 17


@dataclass(frozen=True, eq=False)
class Pair:
    """Where each of N new cells starts, and where it is on its way to.

    Nothing was measured between two times of training. Of the cells asked for at a time between
    them some start among those of the earlier and some among those of the later, the more the
    nearer it is, and each has gone its share of the way to the other. Both ends of the way are new
    cells of their times, drawn from the same noise, in states that go together
    (:mod:`celldit.inference.time.matched_states`). A cell at a time of training is already where it
    goes.

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
    partners
        Which states go together, for each two rows of `ends` between which cells are.
    seed
        Of the draws.
    """

    ends: ConditionBatch
    other_N: np.ndarray
    share_N: np.ndarray
    sources: NoiseSources
    partners: Mapping[tuple[int, int], Partners]
    seed: int

    @classmethod
    def of(cls, trained: Trained, asked: ConditionBatch, seed: int) -> Pair:
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
        ends = ConditionBatch.of_rows(trained, distinct, np.where(late_N, later_N, earlier_N))
        other_N = np.where(late_N, earlier_N, later_N)
        share_N = np.where(late_N, 1 - share_N, share_N)
        between_N = share_N > 0
        ways = np.unique(np.stack([ends.row[between_N], other_N[between_N]], axis=1), axis=0)
        partners = {
            (q, p): Partners.of(trained.states, distinct[q], distinct[p]) for q, p in ways.tolist()
        }
        return cls(ends, other_N, share_N, ends.sources(trained.states), partners, seed)

    def states_of_others(self, keys: np.ndarray, state_B: np.ndarray) -> np.ndarray:
        """The states at the other ends of cells that are in the states `state_B`, int64.

        Of cells that are where they go, their own.
        """
        uniform_B = uniforms(keys, self.seed, PARTNER_STREAM)
        row_B, other_B, other_state_B = self.ends.row[keys], self.other_N[keys], state_B.copy()
        for (q, p), partners in self.partners.items():
            own = (row_B == q) & (other_B == p) & (self.share_N[keys] > 0)
            other_state_B[own] = partners.draw(state_B[own], uniform_B[own])
        return other_state_B
