"""What the velocity network is told of conditions: estimates looked up once, then by row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from celldit.conditions.condition import Condition
from celldit.conditions.population import Population
from celldit.conditions.strata import StratumKey
from celldit.flow.anchored import FlowCondition


@dataclass(frozen=True, eq=False)
class ConditionEmbedding:
    """Estimates for Q conditions as tensors."""

    effects_QKD: Tensor  # mean shift
    positions_QKD: Tensor  # mean of the condition's cells
    sds_Q: Tensor  # size of the standard deviation of the shift

    @classmethod
    def of(
        cls,
        population: Population,
        conditions: Sequence[Condition],
        shape: Sequence[int],
        references: Mapping[StratumKey, np.ndarray] | None = None,
    ) -> ConditionEmbedding:
        """Look up Q conditions, for latents of shape (K, D).

        References are those of :meth:`Population.estimate`.
        """
        estimate = population.estimate(conditions, references)
        return cls(
            torch.from_numpy(estimate.effect).view(-1, *shape),
            torch.from_numpy(estimate.position).view(-1, *shape),
            torch.from_numpy(estimate.sd),
        )

    @classmethod
    def joined(
        cls, blocks: Sequence[ConditionEmbedding], rows: np.ndarray, n_conditions: int
    ) -> ConditionEmbedding:
        """One of Q conditions from several, whose rows together are `rows`, repeats allowed."""
        place = np.empty(n_conditions, dtype=np.int64)
        place[rows] = np.arange(len(rows))
        at = torch.from_numpy(place)
        return cls(
            torch.cat([block.effects_QKD for block in blocks])[at],
            torch.cat([block.positions_QKD for block in blocks])[at],
            torch.cat([block.sds_Q for block in blocks])[at],
        )

    def conditioning(self, rows: Tensor | np.ndarray, *, from_noise: bool) -> FlowCondition:
        """What the network is told of cells in the conditions `rows`, shape (B,)."""
        at = torch.as_tensor(rows, dtype=torch.int64)
        positions_BKD = self.positions_QKD[at]
        flags_B = torch.full((len(at),), from_noise)
        return FlowCondition(
            self.effects_QKD[at],
            positions_BKD if from_noise else torch.zeros_like(positions_BKD),
            self.sds_Q[at],
            flags_B,
            torch.zeros_like(flags_B),
        )


def context_numbers(population: Population, conditions: Sequence[Condition]) -> Tensor:
    """Number of each condition's context, from 1, and 0 for those not in training, int64 (Q,)."""
    number = {context: i for i, context in enumerate(population.contexts, start=1)}
    return torch.tensor([number.get(c.context, 0) for c in conditions], dtype=torch.int64)
