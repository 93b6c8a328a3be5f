"""A condition as a set: one token for each of its parts, for a network that attends to them.

The token of a part says what the part does alone in the same stratum, at its own dose, by the
effect prior. So it means the same for every perturbation of which something is known, those never
seen but described by features included; a learned embedding of names could not say that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from celldit.conditions.condition import Condition
from celldit.conditions.strata import StratumKey
from celldit.effects.prior import EffectPrior
from celldit.flow.anchored import N_PART_EXTRA


@dataclass(frozen=True, eq=False)
class PartTokens:
    """Tokens of Q conditions, padded to the largest.

    Attributes
    ----------
    tokens_QMP
        Effect of each part alone (F numbers), its dose as log2(1 + dose), and the doubt of the
        estimate; zero where there is no part.
    is_part_QM
        Whether there is a part, bool.
    """

    tokens_QMP: Tensor
    is_part_QM: Tensor

    @classmethod
    def of(
        cls,
        prior: EffectPrior,
        conditions: Sequence[Condition],
        references: Mapping[StratumKey, np.ndarray] | None = None,
        *,
        crossed: bool = False,
    ) -> PartTokens:
        """Look up the parts of Q conditions.

        With `crossed` the parts of a condition are estimated without that condition's own cells,
        where it was observed: what its tokens would be, had it been held out. References are those
        of :meth:`celldit.conditions.population.Population.estimate`.
        """
        places = [(q, m) for q, c in enumerate(conditions) for m in range(len(c.parts))]
        alone = [_alone(conditions[q], m) for q, m in places]
        observed = {c: i for i, c in enumerate(prior.conditions)}
        rows = np.array(
            [observed.get(conditions[q], -1) if crossed else -1 for q, _ in places], dtype=np.int64
        )
        distinct = list(dict.fromkeys(alone))
        row_of = {c: i for i, c in enumerate(distinct)}
        found = prior.estimate(distinct, references)
        at = np.array([row_of[c] for c in alone], dtype=np.int64)
        effect, sd = found.mean[at], found.sd[at]
        if (rows >= 0).any():
            apart = np.flatnonzero(rows >= 0)
            left_out = prior.estimate_without([alone[i] for i in apart], rows[apart])
            effect[apart], sd[apart] = left_out.mean, left_out.sd
        width = max((len(c.parts) for c in conditions), default=1)
        tokens = np.zeros(
            (len(conditions), max(width, 1), effect.shape[1] + N_PART_EXTRA), np.float32
        )
        is_part = np.zeros(tokens.shape[:2], dtype=bool)
        for i, (q, m) in enumerate(places):
            doses = alone[i].doses
            amount = 1.0 if doses is None else np.log2(1 + doses[0])
            tokens[q, m] = [*effect[i], amount, sd[i]]
            is_part[q, m] = True
        return cls(torch.from_numpy(tokens), torch.from_numpy(is_part))

    @classmethod
    def joined(cls, blocks: Sequence[PartTokens]) -> PartTokens:
        """Those of several, one after the other, padded to the largest."""
        width = max(block.tokens_QMP.shape[1] for block in blocks)
        missing = [width - block.tokens_QMP.shape[1] for block in blocks]
        tokens, is_part = (
            [pad(block.tokens_QMP, (0, 0, 0, n)) for block, n in zip(blocks, missing, strict=True)],
            [pad(block.is_part_QM, (0, n)) for block, n in zip(blocks, missing, strict=True)],
        )
        return cls(torch.cat(tokens), torch.cat(is_part))

    def rows(self, row_R: Tensor) -> PartTokens:
        """Tokens of some of the conditions, int64 (R,), each as often as it is named."""
        return PartTokens(self.tokens_QMP[row_R], self.is_part_QM[row_R])


def _alone(condition: Condition, which: int) -> Condition:
    """One part of a condition by itself, in the same stratum."""
    doses = condition.doses and (condition.doses[which],)
    return Condition((condition.parts[which],), doses, condition.context, condition.time)
